"""Peak signal-to-noise ratio."""

import numpy as np

from mg.metrics.frames import checked_pair

__all__ = ["psnr"]


def psnr(
    reference: np.ndarray, reconstruction: np.ndarray, *, data_range: float = 255
) -> np.ndarray:
    """Return the PSNR of each frame in dB, shape (T,), float64.

    PSNR = 10 log10(data_range^2 / MSE), the MSE being over all pixels and channels of a frame.
    Identical frames give infinity, and a frame with NaN gives NaN.

    Args:
        reference: frames (T, H, W, 3), uint8 or floating.
        reconstruction: frames of the same shape and kind.
        data_range: largest minus smallest possible value: 255 for bytes, 2 for [-1, 1].

    Raises:
        ValueError: the clips cannot be compared, or `data_range` is not positive.
    """
    num_frames, _, _ = checked_pair(reference, reconstruction)
    if not data_range > 0:
        raise ValueError(f"data_range must be positive, got {data_range}")
    mse = np.empty(num_frames)
    for index in range(num_frames):  # one frame at a time: float64 copies of a clip are large
        difference = np.subtract(reference[index], reconstruction[index], dtype=np.float64)
        mse[index] = np.mean(np.square(difference))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(data_range**2 / mse)
