"""LoRA in a network that trains: low-rank maps beside its linear maps (arXiv 2106.09685).

y = W x + alpha / rank B A x. W stays as it is; A begins random, B at zero, so that nothing changes
before training, to the last bit.
"""

import fnmatch
from collections.abc import Sequence

from mindspore import nn

from mg.models.layers.tokens import Linear, PatchLinear
from mg.weights.lora_file import LowRankMap

__all__ = ["DEFAULT_TARGETS", "add_lora", "lora_maps"]

# Attention and feed-forward maps of all families.
DEFAULT_TARGETS = ("*attention.*", "*.attn*", "*.ffn.*", "*.ff.*", "*.ff_context.*", "*.proj_mlp")


def add_lora(
    network: nn.Cell, *, rank: int, alpha: float, targets: Sequence[str] = DEFAULT_TARGETS
) -> list[str]:
    """Give linear maps of a network low-rank maps beside them; return the maps' names.

    Args:
        network: not compiled yet.
        rank: of the maps.
        alpha: alpha / rank is the factor on them.
        targets: patterns of the maps' names, shell style.

    Raises:
        ValueError: a pattern matches no linear map.
    """
    linear = {
        name: cell
        for name, cell in network.cells_and_names()
        if isinstance(cell, Linear) and not isinstance(cell, PatchLinear)
    }
    chosen: set[str] = set()
    for pattern in targets:
        found = fnmatch.filter(linear, pattern)
        # The default patterns are those of all families; each family has some of them.
        if not found and tuple(targets) != DEFAULT_TARGETS:
            shown = ", ".join(list(linear)[:4])
            raise ValueError(f"no linear map matches {pattern!r}; their names are like {shown}")
        chosen.update(found)
    names = [name for name in linear if name in chosen]
    for name in names:
        out_width, in_width = linear[name].weight.shape
        linear[name].lora_A = Linear(in_width, rank, has_bias=False)
        linear[name].lora_B = Linear(rank, out_width, has_bias=False, starts_at_zero=True)
        linear[name].lora_scale = alpha / rank
    for name, parameter in network.parameters_and_names():
        parameter.name = name
    return names


def lora_maps(network: nn.Cell) -> dict[str, LowRankMap]:
    """Return the low-rank maps of a network by the names of the maps that they stand beside."""
    return {
        name: LowRankMap(
            cell.lora_A.weight.asnumpy(), cell.lora_B.weight.asnumpy(), float(cell.lora_scale)
        )
        for name, cell in network.cells_and_names()
        if getattr(cell, "lora_A", None) is not None
    }
