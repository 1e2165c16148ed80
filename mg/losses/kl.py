"""Divergence of the encoder's posterior from a standard normal."""

from mindspore import Tensor, ops
from mindspore import dtype as mstype

from mg.latent_spec import LOGVAR_MAX, LOGVAR_MIN

__all__ = ["kl_loss"]


def kl_loss(mean: Tensor, logvar: Tensor) -> Tensor:
    """Return KL(N(mean, exp(logvar)) || N(0, 1)), summed over a sample's latent, a float32 scalar.

    The sum runs over channels, time and space, as in latent diffusion, so it grows with the
    latent; only the batch is averaged. That is what the weight 1e-6 of the paper goes with.

    Args:
        mean: (B, C, T, H, W), or any shape with the batch first.
        logvar: the same shape; clamped to [-30, 20] first, where its gradient is zero outside.
    """
    mean = ops.cast(mean, mstype.float32)
    logvar = ops.clamp(ops.cast(logvar, mstype.float32), LOGVAR_MIN, LOGVAR_MAX)
    terms = ops.square(mean) + ops.exp(logvar) - 1.0 - logvar
    return 0.5 * terms.sum() / mean.shape[0]
