"""Matrices of which each rank keeps its rows only, gathered for each use (ZeRO stage 3)."""

import mindspore as ms
from mindspore import Tensor, nn, ops

from mg.models.layers.tokens import Linear, PatchLinear
from mg.parallel.device_collectives import ReduceScatter
from mg.parallel.ranks import Ranks
from mg.parallel.rows import keep_rows, splits_evenly

__all__ = ["GatheredProduct", "shard_linear_maps"]


class GatheredProduct(nn.Cell):
    """x W^T, of whose W each rank has some rows; its gradient is the mean over the ranks.

    The whole W is there for the product alone: the backward pass gathers it again, and leaves
    each rank with the gradient of its own rows. It is gathered in the precision of x.

    Args:
        ranks: all of them.
    """

    def __init__(self, ranks: Ranks) -> None:
        super().__init__(auto_prefix=False)
        self.factor = 1.0 / ranks.size
        self.all_gather = ops.AllGather()
        self.reduce_scatter = ReduceScatter(ranks)
        self.product = ops.MatMul(transpose_b=True)
        self.product_of_rows = ops.MatMul()
        self.product_over_rows = ops.MatMul(transpose_a=True)
        self.cast = ops.Cast()
        self.depend = ops.Depend()

    def construct(self, x: Tensor, own: Tensor) -> Tensor:
        """Return (n, out) of x (n, in) and this rank's rows of W, (out / ranks, in) in fp32."""
        # Not before x is there, so that few matrices are whole at a time.
        whole = self.all_gather(self.depend(self.cast(own, x.dtype), x))  # (out, in)
        return self.product(x, whole)

    def bprop(self, x: Tensor, own: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        whole = self.all_gather(self.depend(self.cast(own, x.dtype), dout))  # (out, in)
        dx = self.product_of_rows(dout, whole)  # (n, in)
        gradient = self.cast(self.product_over_rows(dout, x), ms.float32)  # (out, in)
        # After dx, which frees W first.
        return dx, self.reduce_scatter(self.depend(gradient, dx)) * self.factor


def shard_linear_maps(network: nn.Cell, ranks: Ranks) -> None:
    """Let each rank keep its rows of the matrices of all `Linear` cells that split evenly.

    They are nearly all of a transformer. All other parameters stay whole: biases, norms, and the
    maps of patches, which checkpoints store as convolutions.

    Args:
        network: with the same weights on all ranks; not compiled yet.
        ranks: all of them; with one nothing changes.
    """
    for _, cell in network.cells_and_names():
        if not isinstance(cell, Linear) or isinstance(cell, PatchLinear):
            continue
        if cell.weight.ndim == 2 and splits_evenly(cell.weight.shape, ranks):
            keep_rows(cell.weight, ranks)
            cell.gathered_product = GatheredProduct(ranks)
