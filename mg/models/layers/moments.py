"""The moments that an encoder gives: mean and log-variance of a latent's distribution."""

import mindspore as ms
from mindspore import Tensor, ops

from mg.latent_spec import LOGVAR_MAX, LOGVAR_MIN

__all__ = ["split_moments"]


def split_moments(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and logvar, each (B, C, T, H, W) in fp32, of moments (B, 2 C, T, H, W).

    The log-variance is clamped to where its exponential is a float32.
    """
    mean, logvar = ops.chunk(moments.astype(ms.float32), 2, axis=1)
    return mean, ops.clamp(logvar, LOGVAR_MIN, LOGVAR_MAX)
