"""What the times of a video's frames say about its frame rate."""

import numpy as np

__all__ = ["VARIABLE_RATE", "is_variable"]

VARIABLE_RATE = "variable frame rate"
# Times are rounded to the ticks of a clock, so equal durations may differ by one.
ROUNDING_TICKS = 1
TOLERANCE = 0.1


def is_variable(durations: np.ndarray) -> bool:
    """Return whether frames are shown for different times.

    Args:
        durations: of the frames, in ticks of the clock that the file uses.
    """
    if len(durations) < 2:
        return False
    usual = float(np.median(durations))
    largest = float(np.abs(durations - usual).max())
    return largest > max(ROUNDING_TICKS, TOLERANCE * usual)
