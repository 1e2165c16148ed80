"""Pixel distances between a reconstruction and its reference."""

from mindspore import Tensor, ops
from mindspore import dtype as mstype

__all__ = ["l1_loss", "mse_loss"]


def l1_loss(x: Tensor, y: Tensor) -> Tensor:
    """Return mean |x - y| over all elements, a float32 scalar.

    Args:
        x: any shape, any floating type; computed in float32.
        y: the same shape.
    """
    return ops.abs(ops.cast(x, mstype.float32) - ops.cast(y, mstype.float32)).mean()


def mse_loss(x: Tensor, y: Tensor) -> Tensor:
    """Return mean (x - y)^2 over all elements, a float32 scalar.

    Args:
        x: any shape, any floating type; computed in float32.
        y: the same shape.
    """
    return ops.square(ops.cast(x, mstype.float32) - ops.cast(y, mstype.float32)).mean()
