"""Local correlation of latents as a regulariser (SSVAE, arXiv 2512.05394)."""

from mindspore import Tensor, ops
from mindspore import dtype as mstype

__all__ = ["local_correlation", "local_correlation_loss"]

# Under the root, so that a vector without variation over the channels has a finite gradient.
SQUARED_NORM_FLOOR = 1e-12
WINDOW = 2  # latent frames, rows and columns


def local_correlation_loss(z: Tensor, threshold: float = 0.75) -> Tensor:
    """Return max(threshold - local correlation, 0), a float32 scalar.

    Latents whose neighbours agree more than that are left alone. Source: SSVAE, whose networks
    keep a first frame apart and average its correlation with that of the others; here all frames
    are alike.

    Args:
        z: latents (B, C, T, H, W), C at least 2, H and W at least 2.
        threshold: correlation that is enough, in (0, 1]; SSVAE has 0.75.
    """
    return ops.relu(threshold - local_correlation(z))


def local_correlation(z: Tensor) -> Tensor:
    """Return the mean correlation of neighbouring vectors over the channels, a float32 scalar.

    At each place stands a vector over the channels; its mean is removed and its length made 1. The
    result is the mean product of all pairs in windows of 2x2x2 places (2x2 where there is but one
    frame), which do not overlap; an odd last frame, row or column is left out.
    `mg.metrics.latent_structure` computes the same in numpy.

    Args:
        z: latents (B, C, T, H, W).

    Raises:
        ValueError: one channel, or maps smaller than a window.
    """
    _, channels, frames, height, width = z.shape
    if channels < 2 or height < WINDOW or width < WINDOW:
        raise ValueError(
            f"local correlation needs 2 channels and maps of 2x2 or more, got latents {z.shape}"
        )
    z = ops.cast(z, mstype.float32)
    z = z - z.mean(1, keep_dims=True)
    z = z / ops.sqrt(ops.square(z).sum(1, keepdims=True) + SQUARED_NORM_FLOOR)
    if frames % 2 and frames > 1:
        z = z[:, :, : frames - 1]
    if height % 2:
        z = z[:, :, :, : height - 1]
    if width % 2:
        z = z[:, :, :, :, : width - 1]
    lengths = ops.square(z).sum(1)  # (B, T, H, W), 1 but for flat vectors
    # Summed over one axis after the other: tensors of few axes suit every device.
    sums = z.reshape(-1, width // WINDOW, WINDOW).sum(2)
    sums = sums.reshape(-1, height // WINDOW, WINDOW, width // WINDOW).sum(2)
    num_vectors = WINDOW**2
    if frames > 1:
        places = (height // WINDOW) * (width // WINDOW)
        sums = sums.reshape(-1, frames // WINDOW, WINDOW, places).sum(2)
        num_vectors = WINDOW**3
    # |sum v|^2 = sum |v|^2 + the products of all ordered pairs, summed over all windows
    num_windows = lengths.size // num_vectors
    products = ops.square(sums).sum() - lengths.sum()
    return products / (num_windows * num_vectors * (num_vectors - 1))
