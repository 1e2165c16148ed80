"""The one check that every metric makes on its two clips."""

import numpy as np

__all__ = ["checked_pair"]


def checked_pair(reference: np.ndarray, reconstruction: np.ndarray) -> tuple[int, int, int]:
    """Return (num_frames, height, width) of two clips that can be compared.

    Args:
        reference: frames (T, H, W, 3), uint8 or floating.
        reconstruction: frames of the same shape, both uint8 or both floating.

    Raises:
        ValueError: wrong or differing shapes, no frame, or number types that hint at different
            value ranges.
    """
    shapes = (np.shape(reference), np.shape(reconstruction))
    if len(shapes[0]) != 4 or shapes[0][3] != 3 or 0 in shapes[0]:
        raise ValueError(f"expected frames of shape (T, H, W, 3), got {shapes[0]}")
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"reference {shapes[0]} and reconstruction {shapes[1]} differ in shape; "
            "crop or resize one of them first"
        )
    kinds = [_number_kind(frames) for frames in (reference, reconstruction)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"reference is {kinds[0]} and reconstruction is {kinds[1]}; give both as uint8, or "
            "both as floats of one value range"
        )
    return shapes[0][:3]


def _number_kind(frames: np.ndarray) -> str:
    """Return "uint8" or "float", the only two kinds of frames there are."""
    dtype = np.asarray(frames).dtype
    if dtype == np.uint8:
        return "uint8"
    if np.issubdtype(dtype, np.floating):
        return "float"
    raise ValueError(f"expected uint8 or floating frames, got {dtype}")
