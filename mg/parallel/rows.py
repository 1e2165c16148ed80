"""Parameters of which each rank holds an equal share of the rows (the first axis)."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from mindspore import Parameter, Tensor, ops

from mg.parallel.ranks import Ranks

__all__ = ["Rows", "keep_rows", "own_rows", "splits_evenly"]


@dataclasses.dataclass(frozen=True)
class Rows:
    """What a parameter carries as `rows` when it holds one rank's rows of a whole one.

    The names of such parameters, and all that is saved of them, are those of whole ones.
    """

    ranks: Ranks

    def own(self, whole: np.ndarray) -> np.ndarray:
        """Return this rank's rows of an array."""
        return np.split(whole, self.ranks.size)[self.ranks.rank]

    def whole(self, own: np.ndarray) -> np.ndarray:
        """Return the array that all ranks' rows make, on each rank; all ranks must call it."""
        return ops.AllGather()(Tensor(np.ascontiguousarray(own))).asnumpy().copy()

    def whole_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of the whole array whose rows here have this shape."""
        return (shape[0] * self.ranks.size, *shape[1:])


def splits_evenly(shape: Sequence[int], ranks: Ranks) -> bool:
    """Return whether there are several ranks and as many rows for each."""
    return ranks.size > 1 and len(shape) > 0 and shape[0] % ranks.size == 0


def own_rows(parameter: Parameter, ranks: Ranks, *, name: str) -> Parameter:
    """Return a new parameter with this rank's rows of one that splits evenly."""
    rows = Rows(ranks)
    own = Parameter(Tensor(np.ascontiguousarray(rows.own(parameter.asnumpy()))), name=name)
    own.rows = rows
    return own


def keep_rows(parameter: Parameter, ranks: Ranks) -> None:
    """Let a parameter that splits evenly keep this rank's rows only, under its name."""
    rows = Rows(ranks)
    own = Tensor(np.ascontiguousarray(rows.own(parameter.asnumpy())))
    parameter.set_data(own, slice_shape=True)
    parameter.rows = rows
