"""How alike the features of two networks are, whatever their widths: attention transfer."""

from mindspore import Tensor, ops
from mindspore import dtype as mstype

__all__ = ["attention_transfer_loss"]

SQUARED_NORM_FLOOR = 1e-12  # under the root: a map of zeros has a finite gradient


def attention_transfer_loss(features: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared distance of the features' maps, 0 to 2, a float32 scalar.

    The map of an image is the mean square over its channels, scaled to length 1. Source: Zagoruyko
    and Komodakis, "Paying More Attention to Attention" (arXiv 1612.03928), section 3.1, p = 2.

    Args:
        features: (N, C, H, W), of the network that learns.
        target: (N, C', H, W), of the one that it learns from; C' may be another number.
    """
    difference = _maps(features) - _maps(target)
    return ops.square(difference).sum(1).mean()


def _maps(features: Tensor) -> Tensor:
    """Return the maps of images, (N, H*W), each of length 1."""
    features = ops.cast(features, mstype.float32)
    maps = ops.square(features).mean(1).reshape(features.shape[0], -1)
    return maps / ops.sqrt(ops.square(maps).sum(1, keepdims=True) + SQUARED_NORM_FLOOR)
