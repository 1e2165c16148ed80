"""bfloat16 for numpy, which has no such type: a type of our own, and exact conversions."""

import numpy as np

__all__ = ["BFLOAT16", "is_bfloat16", "narrow_to_bfloat16", "widen_bfloat16"]

# Bit patterns under a name of their own, so that writers can tell them from other integers.
BFLOAT16 = np.dtype([("bfloat16", "<u2")])


def widen_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Return float32 numbers equal to the bfloat16 numbers whose bit patterns are given.

    A bfloat16 is the upper half of a float32, so the conversion is exact.

    Args:
        bits: uint16 array of any shape (little-endian bit patterns).
    """
    wide = np.array(bits, np.uint32)
    wide <<= np.uint32(16)
    return wide.view(np.float32)


def narrow_to_bfloat16(array: np.ndarray) -> np.ndarray:
    """Return the nearest bfloat16 numbers, as an array of type `BFLOAT16`.

    Half-way cases go to the even neighbour, as everywhere in IEEE arithmetic; numbers beyond the
    range become infinite, and NaN stays NaN.

    Args:
        array: floating-point numbers of any shape. float64 is rounded to float32 first.
    """
    numbers = np.asarray(array, np.float32)
    bits = numbers.view(np.uint32)
    # Adding half of the last kept place, less one bit if that place is even, rounds to nearest.
    rounded = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    # A NaN could overflow to zero by that, or lose its only bits: keep its quiet form.
    quiet = bits >> np.uint32(16) | np.uint32(0x40)
    return np.where(np.isnan(numbers), quiet, rounded).astype("<u2").view(BFLOAT16)


def is_bfloat16(dtype: np.dtype) -> bool:
    """Return whether `dtype` is `BFLOAT16`, or the bfloat16 that other packages add to numpy."""
    return dtype == BFLOAT16 or dtype.name == "bfloat16"
