"""Structural similarity (Wang et al., 2004): uniform windows, as scikit-image, or Gaussian ones."""

import cv2
import numpy as np

from mg.metrics.frames import checked_pair

__all__ = ["SSIM_WINDOWS", "ssim", "ssim_maps"]

K1 = 0.01  # Wang et al. 2004, section III-B
K2 = 0.03
GAUSSIAN_SIGMA = 1.5  # section III-B, with 11x11 windows
SSIM_WINDOWS = {"uniform": 7, "gaussian": 11}  # and their usual sides


def ssim(
    reference: np.ndarray,
    reconstruction: np.ndarray,
    *,
    data_range: float = 255,
    window: str = "uniform",
    window_size: int | None = None,
) -> np.ndarray:
    """Return the mean SSIM of each frame, in [-1, 1], shape (T,), float64.

    Each channel is compared by itself, over the windows that lie wholly inside the frame; the
    channels are averaged. "uniform" has windows of equal weights and the sample covariance (N - 1),
    as `skimage.metrics.structural_similarity(channel_axis=-1)` by default; "gaussian" has weights
    of standard deviation 1.5 and the population covariance, as in the paper.

    Args:
        reference: frames (T, H, W, 3), uint8 or floating.
        reconstruction: frames of the same shape and kind.
        data_range: largest minus smallest possible value: 255 for bytes, 2 for [-1, 1].
        window: "uniform" or "gaussian".
        window_size: side of the window in pixels, odd; None is 7 for "uniform", 11 for "gaussian".

    Raises:
        ValueError: the clips cannot be compared, are smaller than the window, or an argument is
            out of range.
    """
    num_frames, height, width = checked_pair(reference, reconstruction)
    if not data_range > 0:
        raise ValueError(f"data_range must be positive, got {data_range}")
    if window not in SSIM_WINDOWS:
        raise ValueError(f"window must be one of {', '.join(SSIM_WINDOWS)}, got {window!r}")
    window_size = SSIM_WINDOWS[window] if window_size is None else window_size
    if window_size < 3 or window_size % 2 == 0:
        raise ValueError(f"window_size must be odd and at least 3, got {window_size}")
    if min(height, width) < window_size:
        raise ValueError(
            f"frames of {height}x{width} are smaller than the {window_size}x{window_size} window "
            "of SSIM; use larger frames or a smaller window_size"
        )
    values = np.empty(num_frames)
    for index in range(num_frames):
        luminance, structure = ssim_maps(
            reference[index].astype(np.float64),
            reconstruction[index].astype(np.float64),
            data_range=data_range,
            window=window,
            window_size=window_size,
        )
        values[index] = np.mean(luminance * structure)
    return values


def ssim_maps(
    x: np.ndarray, y: np.ndarray, *, data_range: float, window: str, window_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the luminance and the contrast-structure term of each window inside a frame.

    Their product is equation (13) of the paper; each is (H - size + 1, W - size + 1, 3).

    Args:
        x, y: frames (H, W, 3), float64.
        data_range, window, window_size: as of `ssim`.
    """
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    to_sample = window_size**2 / (window_size**2 - 1) if window == "uniform" else 1.0
    # In place where it can be: half of the time would go into fresh memory.
    mean_x, mean_y = (_window_means(v, window, window_size) for v in (x, y))
    product = mean_x * mean_y
    mean_x *= mean_x
    mean_y *= mean_y
    mean_x += mean_y
    squares = mean_x  # mean_x^2 + mean_y^2
    covariance = _window_means(x * y, window, window_size)
    covariance -= product
    energy = x * x
    energy += y * y
    variances = _window_means(energy, window, window_size)  # var_x + var_y
    variances -= squares
    covariance *= 2 * to_sample
    covariance += c2
    variances *= to_sample
    variances += c2
    product *= 2
    product += c1
    squares += c1
    product /= squares
    covariance /= variances
    border = window_size // 2
    inside = np.s_[border : len(x) - border, border : x.shape[1] - border]
    return product[inside], covariance[inside]


def _window_means(values: np.ndarray, window: str, size: int) -> np.ndarray:
    """Return the weighted mean of the window around every pixel of (H, W, 3)."""
    if window == "uniform":
        return cv2.boxFilter(values, cv2.CV_64F, (size, size))
    weights = cv2.getGaussianKernel(size, GAUSSIAN_SIGMA)
    return cv2.sepFilter2D(values, cv2.CV_64F, weights, weights)
