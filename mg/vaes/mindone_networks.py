"""mindone's VAE networks, to compare ours with: in tests, and in the benchmark.

The architectures are mindone's (`mindone.diffusers`), which are those of diffusers; names and
shapes of tensors are diffusers'. What is added here: names that stay what they are, networks
without weights, and stand-ins for the operators that CPUs lack.

AutoencoderKL and AutoencoderKLCogVideoX run in both modes. AutoencoderKLHunyuanVideo does not
compile: run it within `pynative_mode`.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import mindspore as ms
from mindspore import nn
from mindspore.nn.utils import no_init_parameters

from mg.cpu_stand_ins import install_stand_ins
from mg.quiet_imports import quiet_imports

__all__ = [
    "CLASS_NAMES",
    "build_network",
    "pynative_mode",
]

CLASS_NAMES = ("AutoencoderKL", "AutoencoderKLCogVideoX", "AutoencoderKLHunyuanVideo")


def build_network(
    class_name: str, config: Mapping[str, Any], *, initialize: bool = True
) -> nn.Cell:
    """Return a VAE network of mindone, in evaluation mode.

    Its methods `encode(video)` and `decode(latent)` return tuples whose first entry is the moments
    (mean and logvar along axis 1) and the frames. On CPU the stand-ins are installed.

    Args:
        class_name: one of `CLASS_NAMES`, as in `_class_name` of a config.json.
        config: the fields of config.json; absent ones get the class's defaults, and those that the
            class does not know (`_diffusers_version` ...) have no effect.
        initialize: whether to draw random weights. If not, the weights have no values and take no
            memory until `load_network` of the tests sets them, which is quicker by seconds.

    Raises:
        ValueError: another class, or a config of which no such network can be made.
    """
    network_class = _network_class(class_name)
    install_stand_ins()
    weights = contextlib.nullcontext() if initialize else no_init_parameters()
    try:
        with weights:
            network = network_class.from_config(dict(config))
    except (AssertionError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"no {class_name} can be built from this config: {error}") from error
    _keep_names_when_sliced(network)
    return network.set_train(False)


@contextlib.contextmanager
def pynative_mode() -> Iterator[None]:
    """Run what is in the block line by line, whichever mode is set outside."""
    before = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        yield
    finally:
        ms.set_context(mode=before)


def _network_class(class_name: str) -> type[nn.Cell]:
    if class_name not in CLASS_NAMES:
        raise ValueError(
            f"class {class_name!r} is not known here; expected one of {', '.join(CLASS_NAMES)}"
        )
    with quiet_imports():
        import mindone.diffusers

        return getattr(mindone.diffusers, class_name)


class _Cells(nn.CellList):
    """A list of cells whose slices are plain lists.

    A slice of `nn.CellList` is a new CellList, which renames the parameters in it for good:
    `blocks[1:]` in a network's construct makes `blocks.1.weight` into `0.weight`. Saving then
    loses tensors, and optimisers find names twice.
    """

    def __getitem__(self, index):
        if isinstance(index, slice):
            return list(self._cells.values())[index]
        return super().__getitem__(index)


def _keep_names_when_sliced(network: nn.Cell) -> None:
    for _, cell in network.cells_and_names():
        if type(cell) is nn.CellList:
            object.__setattr__(cell, "__class__", _Cells)
