"""From noise to a latent: the ODE of a velocity field, solved along a schedule."""

from collections.abc import Callable, Sequence

import numpy as np
from mindspore import Tensor

from mg.flow.schedulers import DrawNoise, Scheduler
from mg.flow.solvers import SOLVERS, Velocity

__all__ = ["sample", "sample_with_scheduler"]

# (steps done, latent) -> a latent that replaces it, or None
OnStep = Callable[[int, np.ndarray | Tensor], np.ndarray | Tensor | None]


def sample(
    velocity: Velocity,
    noise: np.ndarray | Tensor,
    schedule: Sequence[float] | np.ndarray,
    *,
    solver: str = "euler",
    on_step: OnStep | None = None,
) -> np.ndarray | Tensor:
    """Return the latent that the velocity carries the noise to, of the noise's type and shape.

    It is a pure function: the same arguments give the same latent.

    Args:
        velocity: (latent (B, C, T, H, W), t (B,) float32) -> velocity of the latent's shape; see
            `guided_velocity`. It gets numpy arrays or tensors, as `noise` is.
        noise: x_0, float32 (B, C, T, H, W); see `initial_noise`.
        schedule: rising times from [0, 1], one more than steps; see `mg.flow.schedules`.
        solver: euler (1 call of the velocity per step) or midpoint (2).
        on_step: called after each step with the number of steps done and the latent, for a
            progress bar or a preview; a latent that it returns takes the place of that one.

    Raises:
        ValueError: unknown solver, times that do not rise within [0, 1], or a velocity of another
            shape than the latent.
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver {solver!r}; expected one of {', '.join(SOLVERS)}")
    times = _checked_times(schedule)
    step = SOLVERS[solver].step

    def velocity_at(latent, t):
        result = velocity(latent, _times_like(latent, t))
        if tuple(result.shape) != tuple(latent.shape):
            raise ValueError(
                f"the velocity of a latent of shape {tuple(latent.shape)} has the shape "
                f"{tuple(result.shape)}; expected the same"
            )
        return result

    latent = noise
    for i in range(len(times) - 1):
        latent = step(velocity_at, latent, times[i], times[i + 1])
        if on_step is not None:
            changed = on_step(i + 1, latent)
            latent = latent if changed is None else changed
    return latent


def sample_with_scheduler(
    predict: Velocity,
    noise: np.ndarray | Tensor,
    scheduler: Scheduler,
    *,
    draw_noise: DrawNoise,
    first_step: int = 0,
    on_step: OnStep | None = None,
) -> np.ndarray | Tensor:
    """Return the latent that a published scheduler carries another one to.

    Args:
        predict: (latent, the scheduler's time (B,) float32) -> what the network predicts, of the
            latent's shape; `guided_velocity` guides any prediction.
        noise: what it begins with, float32 (B, C, T, H, W): noise, or the mixture of a video with
            noise that `scheduler.mixture` states for the first step.
        scheduler: new; it remembers steps.
        draw_noise: gives fresh noise to schedulers that add some, of the type and shape of `noise`.
        first_step: number of the step to begin with; those before are left out.
        on_step: as of `sample`.
    """
    latent = noise
    for i in range(first_step, len(scheduler.timesteps)):
        output = predict(latent, _times_like(latent, scheduler.timesteps[i]))
        latent = scheduler.step(i, output, latent, draw_noise)
        if on_step is not None:
            changed = on_step(i + 1 - first_step, latent)
            latent = latent if changed is None else changed
    return latent


def _times_like(latent: np.ndarray | Tensor, t: float) -> np.ndarray | Tensor:
    times = np.full(len(latent), t, np.float32)  # (B,)
    return times if isinstance(latent, np.ndarray) else Tensor(times)


def _checked_times(schedule: Sequence[float] | np.ndarray) -> list[float]:
    times = np.asarray(schedule, np.float64)
    is_line = times.ndim == 1 and len(times) >= 2
    if not is_line or not (times[0] >= 0 and times[-1] <= 1 and np.all(np.diff(times) > 0)):
        raise ValueError(f"times of a schedule must rise within [0, 1]; got {times.tolist()}")
    return times.tolist()
