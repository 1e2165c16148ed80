"""Mean gradients of which each rank keeps its share only (ZeRO stages 2 and 3)."""

from collections.abc import Sequence

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from mg.parallel.device_collectives import ReduceScatter
from mg.parallel.ranks import Ranks
from mg.parallel.rows import splits_evenly

__all__ = ["ShardedGradients"]

# What is done to a gradient: it is the mean of this rank's rows already (its matrix is gathered
# for each use), this rank's rows of the mean are taken, or the whole mean.
IS_DONE, TAKE_ROWS, TAKE_WHOLE = 0, 1, 2


class ShardedGradients(nn.Cell):
    """The mean over the ranks of gradients: this rank's rows, or all of what cannot be split.

    Each is sent on its own, so that it can be freed while the backward pass goes on. Their order
    is the compiler's: the graphs of all ranks must be equal.

    Args:
        parameters: of which the gradients are.
        ranks: all of them, more than one.
        takes_rows: whether rows are taken of gradients that split evenly.
    """

    def __init__(self, parameters: Sequence[Parameter], ranks: Ranks, *, takes_rows: bool) -> None:
        super().__init__(auto_prefix=False)
        self.kinds = tuple(_kind(p, ranks, takes_rows) for p in parameters)
        self.factor = 1.0 / ranks.size
        self.all_reduce = ops.AllReduce()
        # MindSpore 2.10 fails to compile a cell that is passed on and not used.
        self.reduce_scatter = ReduceScatter(ranks) if TAKE_ROWS in self.kinds else None
        self.map = ops.HyperMap()

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the means."""
        mean = ops.partial(_mean, self.reduce_scatter, self.all_reduce, self.factor)
        return self.map(mean, self.kinds, gradients)

    def square_sum(self, means: tuple[Tensor, ...], after: Tensor) -> Tensor:
        """Return the sum of squares of all means, on all ranks.

        Args:
            means: what `construct` returns.
            after: what must be computed before, such as the result of the collective before.
        """
        own = self.map(ops.partial(_square_sum, self.factor), self.kinds, means)
        return self.all_reduce(ops.depend(ops.addn(own), after))


def _kind(parameter: Parameter, ranks: Ranks, takes_rows: bool) -> int:
    if hasattr(parameter, "rows"):
        return IS_DONE
    return TAKE_ROWS if takes_rows and splits_evenly(parameter.shape, ranks) else TAKE_WHOLE


def _mean(reduce_scatter, all_reduce, factor, kind, gradient):
    if kind == IS_DONE:
        return gradient
    if kind == TAKE_ROWS:
        return reduce_scatter(gradient) * factor
    return all_reduce(gradient) * factor


def _square_sum(factor, kind, mean):
    row = mean.reshape(1, -1).astype(ms.float32)
    total = ops.matmul(row, row.reshape(-1, 1)).reshape(())
    if kind == TAKE_WHOLE:  # all ranks have it
        return total * factor
    return total
