"""Multi-scale structural similarity (Wang, Simoncelli and Bovik, 2003)."""

import cv2
import numpy as np

from mg.metrics.frames import checked_pair
from mg.metrics.ssim import SSIM_WINDOWS, ssim_maps

__all__ = ["MIN_MS_SSIM_SIZE", "ms_ssim"]

# Exponents of the five scales, from fine to coarse (section 3.2 of the paper).
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW_SIZE = SSIM_WINDOWS["gaussian"]
# The coarsest scale, 16 times smaller, still has to hold a window.
MIN_MS_SSIM_SIZE = WINDOW_SIZE * 2 ** (len(SCALE_WEIGHTS) - 1)


def ms_ssim(
    reference: np.ndarray, reconstruction: np.ndarray, *, data_range: float = 255
) -> np.ndarray:
    """Return the MS-SSIM of each frame, in [0, 1], shape (T,), float64.

    Per channel, the mean contrast-structure terms of five scales and the mean SSIM of the coarsest
    one are multiplied with the exponents of the paper (negative means count as 0); the channels
    are averaged. Windows are Gaussian, 11x11; from scale to scale 2x2 pixels are averaged, an odd
    last row or column is left out.

    Args:
        reference: frames (T, H, W, 3), uint8 or floating, at least 176x176.
        reconstruction: frames of the same shape and kind.
        data_range: largest minus smallest possible value: 255 for bytes.

    Raises:
        ValueError: the clips cannot be compared or are too small, or `data_range` is not positive.
    """
    num_frames, height, width = checked_pair(reference, reconstruction)
    if not data_range > 0:
        raise ValueError(f"data_range must be positive, got {data_range}")
    if min(height, width) < MIN_MS_SSIM_SIZE:
        raise ValueError(
            f"frames of {height}x{width} are too small for MS-SSIM; its five scales need at least "
            f"{MIN_MS_SSIM_SIZE}x{MIN_MS_SSIM_SIZE}"
        )
    return np.array(
        [
            _frame_ms_ssim(reference[index], reconstruction[index], data_range)
            for index in range(num_frames)
        ]
    )


def _frame_ms_ssim(reference: np.ndarray, reconstruction: np.ndarray, data_range: float) -> float:
    """Return the MS-SSIM of one frame (H, W, 3), equation (7) of the paper."""
    x, y = reference.astype(np.float64), reconstruction.astype(np.float64)
    result = np.ones(3)
    for scale, weight in enumerate(SCALE_WEIGHTS):
        if scale:
            x, y = _halved(x), _halved(y)
        luminance, structure = ssim_maps(
            x, y, data_range=data_range, window="gaussian", window_size=WINDOW_SIZE
        )
        is_coarsest = scale == len(SCALE_WEIGHTS) - 1
        term = luminance * structure if is_coarsest else structure
        result *= np.maximum(term.mean((0, 1)), 0) ** weight
    return float(result.mean())


def _halved(values: np.ndarray) -> np.ndarray:
    """Return (H // 2, W // 2, 3): the means of 2x2 pixels."""
    height, width = values.shape[0] // 2, values.shape[1] // 2
    even = values[: 2 * height, : 2 * width]
    return cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)
