"""Collectives that CPUs lack, each with its stand-in beside it (MindSpore 2.10).

    ReduceScatter   on CPU AllReduce, then this rank's rows
    AlltoAll        on CPU AllGather, then this rank's part
    groups          on CPU a collective of all ranks, then the part of the group

The stand-ins move more data and give the same numbers.
"""

from mindspore import Tensor, communication, nn, ops

from mg.device import runs_on_cpu
from mg.parallel.ranks import Ranks

__all__ = ["AllToAll", "Group", "GroupGather", "ReduceScatter"]


class ReduceScatter(nn.Cell):
    """This rank's rows of the sum over all ranks.

    Args:
        ranks: all of them; their number divides the rows.
    """

    def __init__(self, ranks: Ranks) -> None:
        super().__init__(auto_prefix=False)
        self.rank, self.size = ranks.rank, ranks.size
        self.on_cpu = runs_on_cpu()
        self.collective = ops.AllReduce() if self.on_cpu else ops.ReduceScatter()

    def construct(self, x: Tensor) -> Tensor:
        """Return (R / ranks, ...) of x (R, ...)."""
        y = self.collective(x)
        if not self.on_cpu:
            return y
        num_rows = x.shape[0] // self.size
        return y[self.rank * num_rows : (self.rank + 1) * num_rows]


class Group:
    """So many ranks in a row, among them this one; making one is a collective operation.

    Args:
        ranks: all of them.
        size: ranks of each group; it divides their number.
    """

    def __init__(self, ranks: Ranks, size: int) -> None:
        self.size = size
        self.rank = ranks.rank % size
        self.first = ranks.rank - self.rank
        self.name = communication.GlobalComm.WORLD_COMM_GROUP
        if size < ranks.size and not runs_on_cpu():
            self.name = f"ranks_{self.first}_to_{self.first + size - 1}"
            communication.create_group(self.name, list(range(self.first, self.first + size)))


class GroupGather(nn.Cell):
    """The tensors of all ranks of a group, one after the other along the first axis."""

    def __init__(self, group: Group) -> None:
        super().__init__(auto_prefix=False)
        self.first, self.last = group.first, group.first + group.size
        self.on_cpu = runs_on_cpu()
        self.collective = ops.AllGather(group=group.name)

    def construct(self, x: Tensor) -> Tensor:
        """Return (size B, ...) of x (B, ...)."""
        y = self.collective(x)
        if not self.on_cpu:
            return y
        return y[self.first * x.shape[0] : self.last * x.shape[0]]


class AllToAll(nn.Cell):
    """Part i along one axis goes to rank i; what comes from the ranks is joined along another.

    Its gradient is the same with the axes exchanged.

    Args:
        group: the ranks.
        split_axis, join_axis: of tensors (B, L, H, d); one is 1, the other 2.
    """

    def __init__(self, group: Group, *, split_axis: int, join_axis: int) -> None:
        super().__init__(auto_prefix=False)
        self.exchange = _Exchange(group, split_axis, join_axis)
        self.exchange_back = _Exchange(group, join_axis, split_axis)

    def construct(self, x: Tensor) -> Tensor:
        """Return x (B, L, H, d) with one axis `size` times shorter, the other that much longer."""
        return self.exchange(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        return (self.exchange_back(dout),)


class _Exchange(nn.Cell):
    """The values of `AllToAll`."""

    def __init__(self, group: Group, split_axis: int, join_axis: int) -> None:
        super().__init__(auto_prefix=False)
        self.rank, self.size = group.rank, group.size
        self.join_axis = join_axis
        self.on_cpu = runs_on_cpu()
        self.collective = (
            GroupGather(group)
            if self.on_cpu
            else ops.AlltoAll(group.size, split_axis, join_axis, group=group.name)
        )
        # The axis of the ranks, which comes first, goes in front of the one that is joined.
        others = [1, 2, 3, 4]
        self.order = (*others[:join_axis], 0, *others[join_axis:])
        self.split = ops.Split(axis=split_axis + 1, output_num=group.size)

    def construct(self, x: Tensor) -> Tensor:
        y = self.collective(x)
        if not self.on_cpu:
            return y
        y = y.reshape(self.size, *x.shape)  # (ranks, B, L, H, d)
        y = self.split(y)[self.rank]
        _, batch, length, heads, width = y.shape
        y = ops.transpose(y, self.order)
        if self.join_axis == 1:
            return y.reshape(batch, self.size * length, heads, width)
        return y.reshape(batch, length, self.size * heads, width)
