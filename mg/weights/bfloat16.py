"""bfloat16 for numpy, which has no such type: exact widening to float32, and recognising it."""

import numpy as np

__all__ = ["is_bfloat16", "widen_bfloat16"]


def widen_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Return float32 numbers equal to the bfloat16 numbers whose bit patterns are given.

    A bfloat16 is the upper half of a float32, so the conversion is exact.

    Args:
        bits: uint16 array of any shape (little-endian bit patterns).
    """
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def is_bfloat16(dtype: np.dtype) -> bool:
    """Return whether `dtype` is one of the bfloat16 types that other packages add to numpy."""
    return dtype.name == "bfloat16"
