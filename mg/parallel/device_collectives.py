"""Collectives that CPUs lack, each with its stand-in beside it (MindSpore 2.10).

    ReduceScatter   on CPU AllReduce, then this rank's rows
    AlltoAll        on CPU AllGather, then this rank's part

The stand-ins move more data and give the same numbers.
"""

import mindspore as ms
from mindspore import Tensor, nn, ops

from mg.parallel.ranks import Ranks

__all__ = ["AllToAll", "ReduceScatter"]


def _on_cpu() -> bool:
    return ms.get_context("device_target") == "CPU"


class ReduceScatter(nn.Cell):
    """This rank's rows of the sum over all ranks.

    Args:
        ranks: all of them; their number divides the rows.
    """

    def __init__(self, ranks: Ranks) -> None:
        super().__init__(auto_prefix=False)
        self.rank, self.size = ranks.rank, ranks.size
        self.on_cpu = _on_cpu()
        self.collective = ops.AllReduce() if self.on_cpu else ops.ReduceScatter()

    def construct(self, x: Tensor) -> Tensor:
        """Return (R / ranks, ...) of x (R, ...)."""
        y = self.collective(x)
        if not self.on_cpu:
            return y
        num_rows = x.shape[0] // self.size
        return y[self.rank * num_rows : (self.rank + 1) * num_rows]


class AllToAll(nn.Cell):
    """Part i along one axis goes to rank i; what comes from the ranks is joined along another.

    Its gradient is the same with the axes exchanged.

    Args:
        rank, size: this one among those of the group.
        split_axis, join_axis: of tensors (B, L, H, d); neither is the first.
        group: name of the ranks' communication group.
    """

    def __init__(
        self, rank: int, size: int, *, split_axis: int, join_axis: int, group: str
    ) -> None:
        super().__init__(auto_prefix=False)
        self.exchange = _Exchange(rank, size, split_axis, join_axis, group)
        self.exchange_back = _Exchange(rank, size, join_axis, split_axis, group)

    def construct(self, x: Tensor) -> Tensor:
        """Return x (B, L, H, d) with one axis `size` times shorter, the other that much longer."""
        return self.exchange(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        return (self.exchange_back(dout),)


class _Exchange(nn.Cell):
    """The values of `AllToAll`."""

    def __init__(self, rank: int, size: int, split_axis: int, join_axis: int, group: str) -> None:
        super().__init__(auto_prefix=False)
        self.rank, self.size = rank, size
        self.split_axis, self.join_axis = split_axis, join_axis
        self.on_cpu = _on_cpu()
        self.collective = (
            ops.AllGather(group=group)
            if self.on_cpu
            else ops.AlltoAll(size, split_axis, join_axis, group=group)
        )
        # The axis of the ranks, which comes first, goes in front of the one that is joined.
        others = [1, 2, 3, 4]
        self.order = (*others[:join_axis], 0, *others[join_axis:])
        self.split = ops.Split(axis=split_axis + 1, output_num=size)

    def construct(self, x: Tensor) -> Tensor:
        y = self.collective(x)
        if not self.on_cpu:
            return y
        y = y.reshape(self.size, *x.shape)  # (ranks, B, L, H, d)
        y = self.split(y)[self.rank]
        shape = y.shape
        y = ops.transpose(y, self.order)
        if self.join_axis == 1:
            return y.reshape(shape[1], self.size * shape[2], shape[3], shape[4])
        return y.reshape(shape[1], shape[2], self.size * shape[3], shape[4])
