"""What a denoiser is trained on: at which times data and noise are mixed, and what it says of them.

    flow       the straight path and its velocity, at times of a logit-normal (Movie Gen 3.1.2)
    diffusion  the discrete steps of a `NoiseSchedule`, and v or the noise (CogVideoX)

Both draw times, fix those of a validation, and mix numpy arrays; the training losses do the same in
compiled graphs.
"""

import dataclasses
import math

import numpy as np

from mg.flow.noise_schedule import NoiseSchedule
from mg.flow.parametrisation import Mixture, prediction_of
from mg.flow.path import noisy_latent, target_velocity
from mg.flow.times import draw_steps, draw_times, step_grid, time_grid

__all__ = ["DiffusionObjective", "FlowObjective", "Objective"]


@dataclasses.dataclass(frozen=True)
class FlowObjective:
    """The velocity of the straight path, t = 0 noise, t = 1 data.

    Args:
        shift: share of noise x = 1 - t is moved to s x / (1 + (s - 1) x), as samplers of
            HunyuanVideo move theirs with s = 7; 1 is none. Of logit(t), which is normal, that
            moves the mean to -log(s).

    Raises:
        ValueError: a shift that is not positive.
    """

    shift: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.shift < math.inf:
            raise ValueError(f"shift={self.shift}; expected more than 0")

    @property
    def mean(self) -> float:
        """Of logit(t)."""
        return -math.log(self.shift)

    def draw_times(
        self, num_times: int, *, seed: int, step: int, first_place: int = 0
    ) -> np.ndarray:
        """Return the time of each clip of a batch, float32 (num_times,); see `draw_times`."""
        return draw_times(num_times, seed=seed, step=step, first_place=first_place, mean=self.mean)

    def time_grid(self, num_times: int) -> np.ndarray:
        """Return fixed times that stand for those of training, float32 (num_times,)."""
        return time_grid(num_times, mean=self.mean)

    def mixed(
        self, data: np.ndarray, noise: np.ndarray, times: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what the network sees, and what it is to predict of that.

        Args:
            data, noise: (B, C, T, H, W).
            times: (B,).
        """
        return noisy_latent(data, noise, times), target_velocity(data, noise)

    def name_of(self, time: float) -> str:
        """Return a time as people read it."""
        return f"{time:.2f}"


@dataclasses.dataclass(frozen=True)
class DiffusionObjective:
    """What one network predicts at the steps of a schedule, all of them equally often.

    Args:
        prediction: "v" or "noise".
        schedule: shares of data and noise by step.
    """

    prediction: str
    schedule: NoiseSchedule

    def draw_times(
        self, num_times: int, *, seed: int, step: int, first_place: int = 0
    ) -> np.ndarray:
        """Return the step of each clip of a batch, whole, float32 (num_times,)."""
        return draw_steps(
            num_times, self.schedule.num_steps, seed=seed, step=step, first_place=first_place
        )

    def time_grid(self, num_times: int) -> np.ndarray:
        """Return fixed steps that stand for those of training, float32 (num_times,)."""
        return step_grid(num_times, self.schedule.num_steps)

    def mixed(
        self, data: np.ndarray, noise: np.ndarray, times: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what the network sees, and what it is to predict of that, as `FlowObjective`."""
        shares = self.schedule.mixture(times.astype(np.int64))
        mixture = Mixture(*(a.astype(np.float32).reshape(-1, 1, 1, 1, 1) for a in shares))
        return mixture.of(data, noise), prediction_of(self.prediction, data, noise, mixture)

    def name_of(self, time: float) -> str:
        """Return a step as people read it."""
        return f"{time:.0f}"


Objective = FlowObjective | DiffusionObjective
