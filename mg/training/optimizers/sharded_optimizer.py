"""AdamW whose moments are spread over the ranks (ZeRO stages 1 and 2), in the compiled step."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from mg.parallel.ranks import Ranks
from mg.parallel.rows import own_rows, splits_evenly
from mg.training.optimizers.optimizer import AdamW

__all__ = ["ShardedAdamW"]


class ShardedAdamW(nn.Cell):
    """`AdamW` that updates this rank's rows of each parameter and gets the others' from them.

    The result is that of `AdamW`, while each rank holds the moments of its rows only (ZeRO,
    Rajbhandari et al., arXiv 1910.02054, sections 5.1 and 5.2), and a copy of these rows.
    Parameters whose rows the ranks cannot share equally are updated by all.

    Args:
        parameters: all of them, whole, the same on every rank.
        ranks: this one among all, more than one.
        takes_rows: whether the gradients given are those of this rank's rows, or whole.
        settings: the keyword arguments of `AdamW`.
    """

    def __init__(
        self, parameters: list[Parameter], ranks: Ranks, *, takes_rows: bool, **settings: Any
    ) -> None:
        super().__init__(auto_prefix=False)  # leaves parameter names as they are
        self.parameters = ParameterTuple(parameters)
        self.ranks = ranks
        self.takes_rows = takes_rows
        self.is_split = tuple(splits_evenly(p.shape, ranks) for p in parameters)
        self.own = ParameterTuple(
            own_rows(p, ranks, name=f"own_rows.{p.name}") if is_split else p
            for p, is_split in zip(parameters, self.is_split, strict=True)
        )
        self.optimizer = AdamW(self.own, names=[p.name for p in parameters], **settings)
        self.rows_of = ops.partial(_rows, ranks.rank, ranks.size)
        self.all_gather = ops.AllGather()
        self.map = ops.HyperMap()

    def construct(self, gradients: tuple[Tensor, ...], lr: Tensor) -> Tensor:
        """Apply one update; return how many there were of each parameter.

        Args:
            gradients: already averaged over the ranks.
            lr: learning rate, scalar.
        """
        # Anew each time: the parameters may have been set from outside.
        copied = self.map(_assign, self.own, self.map(self.rows_of, self.is_split, self.parameters))
        if not self.takes_rows:
            gradients = self.map(self.rows_of, self.is_split, gradients)
        num_updates = self.optimizer(gradients, ops.depend(lr, copied))
        gather = ops.partial(_gather, self.all_gather, num_updates)
        gathered = self.map(gather, self.is_split, self.parameters, self.own)
        return ops.depend(num_updates, gathered)

    def state(self) -> dict[str, np.ndarray]:
        """Return the state of all parameters, on every rank; all ranks must call it.

        Names and shapes are those of a plain `AdamW`, so that a checkpoint does not depend on the
        number of ranks.
        """
        return self.optimizer.state()

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of `state`, by name."""
        return self.optimizer.state_shapes()

    def load_state(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take this rank's part of a whole state; parameters that it lacks start anew."""
        self.optimizer.load_state(arrays)


def _rows(rank, size, is_split, x):
    if not is_split:
        return x
    num_rows = x.shape[0] // size
    return x[rank * num_rows : (rank + 1) * num_rows]


def _assign(own, rows):
    return ops.assign(own, rows)


def _gather(all_gather, after, is_split, parameter, own):
    """Set a parameter to the rows of all ranks, once the update is done."""
    if not is_split:
        return parameter
    return ops.assign(parameter, all_gather(ops.depend(own, after)))
