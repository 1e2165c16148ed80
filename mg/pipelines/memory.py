"""How much memory the machine has, and how much of it this process has taken at its peak."""

import logging
import os
import sys

__all__ = ["log_peak_memory", "machine_memory_gb", "peak_memory_gb"]

logger = logging.getLogger("mg")


def peak_memory_gb() -> float | None:
    """Return the largest resident size so far in GB (10^9 bytes); None where it is not known."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def log_peak_memory() -> None:
    """Log the peak, in one line."""
    peak = peak_memory_gb()
    if peak is not None:
        logger.info("Peak memory of this process: %.2f GB.", peak)


def machine_memory_gb() -> float | None:
    """Return the machine's memory in GB (10^9 bytes); None where it is not known."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):  # Windows
        return None
