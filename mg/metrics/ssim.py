"""Structural similarity (Wang et al., 2004) with a uniform window, scikit-image's default."""

import cv2
import numpy as np

from mg.metrics.frames import checked_pair

__all__ = ["ssim"]

K1 = 0.01  # Wang et al. 2004, section III-B
K2 = 0.03


def ssim(
    reference: np.ndarray,
    reconstruction: np.ndarray,
    *,
    data_range: float = 255,
    window_size: int = 7,
) -> np.ndarray:
    """Return the mean SSIM of each frame, in [-1, 1], shape (T,), float64.

    Each channel is compared by itself in square windows of equal weights with the sample
    covariance (N - 1), over the windows that lie wholly inside the frame; the channels are
    averaged. These are the settings of `skimage.metrics.structural_similarity(channel_axis=-1)`.

    Args:
        reference: frames (T, H, W, 3), uint8 or floating.
        reconstruction: frames of the same shape and kind.
        data_range: largest minus smallest possible value: 255 for bytes, 2 for [-1, 1].
        window_size: side of the window in pixels, odd.

    Raises:
        ValueError: the clips cannot be compared, are smaller than the window, or an argument is
            out of range.
    """
    num_frames, height, width = checked_pair(reference, reconstruction)
    if not data_range > 0:
        raise ValueError(f"data_range must be positive, got {data_range}")
    if window_size < 3 or window_size % 2 == 0:
        raise ValueError(f"window_size must be odd and at least 3, got {window_size}")
    if min(height, width) < window_size:
        raise ValueError(
            f"frames of {height}x{width} are smaller than the {window_size}x{window_size} window "
            "of SSIM; use larger frames or a smaller window_size"
        )
    return np.array(
        [
            _frame_ssim(reference[index], reconstruction[index], data_range, window_size)
            for index in range(num_frames)
        ]
    )


def _frame_ssim(
    reference: np.ndarray, reconstruction: np.ndarray, data_range: float, window_size: int
) -> float:
    """Return the SSIM of one frame (H, W, 3), equation (13) of the paper averaged over windows."""
    x, y = reference.astype(np.float64), reconstruction.astype(np.float64)
    mean_x, mean_y = _window_means(x, window_size), _window_means(y, window_size)
    to_sample = window_size**2 / (window_size**2 - 1)
    var_x = to_sample * (_window_means(x * x, window_size) - mean_x * mean_x)
    var_y = to_sample * (_window_means(y * y, window_size) - mean_y * mean_y)
    covariance = to_sample * (_window_means(x * y, window_size) - mean_x * mean_y)
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return float(np.mean(luminance * structure))


def _window_means(values: np.ndarray, window_size: int) -> np.ndarray:
    """Return the mean of every window inside (H, W, 3), shape (H - size + 1, W - size + 1, 3)."""
    means = cv2.boxFilter(values, cv2.CV_64F, (window_size, window_size))
    border = window_size // 2
    return means[border : means.shape[0] - border, border : means.shape[1] - border]
