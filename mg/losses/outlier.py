"""Movie Gen's outlier penalty loss (section 3.1.1)."""

from mindspore import Tensor, ops
from mindspore import dtype as mstype

__all__ = ["outlier_penalty_loss"]

# Keeps the gradient of the square root finite where a latent map is constant.
VARIANCE_FLOOR = 1e-12


def outlier_penalty_loss(z: Tensor, r: float = 3.0) -> Tensor:
    """Return mean max(|z - mean_hw(z)| - r std_hw(z), 0) over all elements, a float32 scalar.

    It pulls back latent values that lie more than `r` standard deviations from the mean of their
    own map (one channel of one latent frame); such spikes show up as dots in the pixels.
    The standard deviation is the population one (divided by H W), and the gradient flows through
    mean and deviation too.

    Args:
        z: latents (B, C, T, H, W).
        r: how many standard deviations are free; the paper uses 3.
    """
    z = ops.cast(z, mstype.float32)
    distance = z - z.mean((-2, -1), keep_dims=True)
    variance = ops.square(distance).mean((-2, -1), keep_dims=True)  # (B, C, T, 1, 1)
    deviation = ops.sqrt(variance + VARIANCE_FLOOR)
    return ops.relu(ops.abs(distance) - r * deviation).mean()
