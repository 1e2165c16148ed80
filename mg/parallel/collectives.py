"""Collectives inside compiled graphs, and of whole parameters.

All ranks must come to the same collectives in the same order. If they do not they wait for ever,
or one takes another's values. The compiler orders collectives that do not depend on each other as
it likes, so ranks whose graphs differ in any way run them in different orders: inside one graph,
let each depend on the one before, or make them one.

Only what CPU has is used (MindSpore 2.10): AllReduce sums float32 and float16, and knows no
maximum and no integers; AllGather and Broadcast also take int32, int64 and float64; none takes
bool. There a rank waits 30 seconds for the others, then fails: after anything that takes ranks
unequally long, let them meet in `Ranks.barrier` first.
"""

from collections.abc import Sequence

import numpy as np
from mindspore import Tensor, nn, ops

from mg.parallel.ranks import Ranks

__all__ = [
    "GradientMean",
    "ScalarMean",
    "broadcast_array",
]


class GradientMean(nn.Cell):
    """Mean of gradients over all ranks; with one rank the gradients themselves.

    The mean is the same bit for bit on all ranks, so that they stay equal and decide equally.

    All gradients are sent as one: a single AllReduce has no order that could differ between ranks,
    and is quicker than one for each. It takes the memory of two copies while it runs.

    Args:
        ranks: with one rank nothing is added to the graph.
        sizes: number of elements of each gradient.
    """

    def __init__(self, ranks: Ranks, sizes: Sequence[int]) -> None:
        super().__init__()
        self.factor = 1.0 / ranks.size
        self.starts = tuple(np.cumsum([0, *sizes])[:-1].tolist())
        self.all_reduce = ops.AllReduce() if ranks.size > 1 else None
        self.map = ops.HyperMap()

    def construct(self, gradients: tuple[Tensor, ...], after: Tensor) -> tuple[Tensor, ...]:
        """Return the means.

        Args:
            gradients: float32, of the same shapes on all ranks.
            after: what must be computed before, such as the result of the collective before.
        """
        if self.all_reduce is None:
            return gradients
        flat = ops.concat(self.map(_flatten, gradients))  # (elements of all,)
        mean = self.all_reduce(ops.depend(flat, after)) * self.factor
        return self.map(ops.partial(_piece_like, mean), self.starts, gradients)


def _flatten(gradient):
    return ops.reshape(gradient, (-1,))


def _piece_like(flat, start, gradient):
    return ops.reshape(flat[start : start + gradient.size], gradient.shape)


class ScalarMean(nn.Cell):
    """Mean over all ranks of each of a few scalars; with one rank the scalars themselves."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self.factor = 1.0 / ranks.size
        self.all_reduce = ops.AllReduce() if ranks.size > 1 else None

    def construct(self, scalars: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the means of float32 scalars; all ranks have equally many."""
        if self.all_reduce is None:
            return scalars
        return ops.unstack(self.all_reduce(ops.stack(scalars)) * self.factor)


def broadcast_array(array: np.ndarray, ranks: Ranks, *, root: int = 0) -> np.ndarray:
    """Return the array of rank `root`; all ranks must call it.

    Args:
        array: float or integer, of the same shape and dtype on all ranks.
        ranks: this one among all.
        root: whose values are taken.
    """
    if ranks.size == 1:
        return array
    return ops.Broadcast(root)((Tensor(np.ascontiguousarray(array)),))[0].asnumpy()
