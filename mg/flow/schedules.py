"""The times that a sampler steps through, from 0 (noise) to 1 (data)."""

import numpy as np

__all__ = ["check_strength", "linear_quadratic_schedule", "linear_schedule", "remaining_schedule"]


def linear_schedule(num_steps: int) -> np.ndarray:
    """Return num_steps + 1 equally spaced times, float64, first 0 and last exactly 1.

    Raises:
        ValueError: `num_steps` is below 1.
    """
    _check_num_steps("num_steps", num_steps)
    return np.arange(num_steps + 1) / num_steps


def linear_quadratic_schedule(num_steps: int, *, num_reference_steps: int = 250) -> np.ndarray:
    """Return num_steps + 1 rising times, float64, first 0 and last exactly 1.

    The first half of the steps, which settle scene and motion, are the first ones of a linear
    schedule of `num_reference_steps`; the rest grow quadratically up to t = 1. With an odd number
    the quadratic half has one step more.
    Source: Movie Gen 3.4.2, which leaves open which parabola. This one goes on with the slope of
    the linear part, so no step is shorter than the one before it, and as many steps as the
    reference has are the linear schedule itself.

    Args:
        num_steps: calls of a one-evaluation solver; 50 in the paper.
        num_reference_steps: of the linear schedule that is imitated, at least `num_steps`; 250 in
            the paper's figure, 1000 in the public MindSpore code.

    Raises:
        ValueError: a number below 1, or `num_steps` above `num_reference_steps`.
    """
    _check_num_steps("num_steps", num_steps)
    _check_num_steps("num_reference_steps", num_reference_steps)
    if num_steps > num_reference_steps:
        raise ValueError(
            f"num_steps={num_steps} is more than num_reference_steps={num_reference_steps}, the "
            "linear schedule that is imitated; raise that, or take the linear schedule"
        )
    num_linear = num_steps // 2
    num_quadratic = num_steps - num_linear
    slope = 1.0 / num_reference_steps  # time per step
    join = num_linear * slope
    curvature = (1.0 - join - num_quadratic * slope) / num_quadratic**2
    step = np.arange(num_quadratic + 1)
    quadratic = join + slope * step + curvature * step**2
    quadratic[-1] = 1.0  # whatever the rounding
    return np.concatenate([np.arange(num_linear) * slope, quadratic])


def remaining_schedule(times: np.ndarray, strength: float) -> np.ndarray:
    """Return the part of a schedule behind t = 1 - strength, which comes first; float64.

    An edit starts there, from a source that is noised to that time, instead of from noise alone;
    so it takes fewer steps. A strength of 1 gives the whole schedule.
    Source: SDEdit (arXiv 2108.01073).

    Args:
        times: of the whole way, rising from 0 to 1.
        strength: how far back towards noise the source is taken, above 0 and at most 1.

    Raises:
        ValueError: a strength out of range.
    """
    check_strength(strength)
    start = 1.0 - strength
    return np.concatenate([[start], times[times > start + 1e-9]])  # whatever the rounding


def check_strength(strength: float) -> None:
    """Raise ValueError unless a strength is above 0 and at most 1."""
    if not 0 < strength <= 1:
        raise ValueError(
            f"strength={strength}; expected more than 0 and at most 1 (1 leaves nothing of the "
            "source, small values change it little)"
        )


def _check_num_steps(name: str, number: int) -> None:
    is_whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
    if not is_whole or number < 1:
        raise ValueError(f"{name}={number!r}; expected a whole number of 1 or more")
