"""Samplers of published generators, step by step as their own package takes them.

    ddim        CogVideoX-2b      Song et al., arXiv 2010.02502
    dpm         CogVideoX-5b      second-order SDE solver, Lu et al., arXiv 2211.01095
    flow_euler  HunyuanVideo      straight path, Euler, times shifted towards noise

A scheduler says which times the network sees, and carries a latent from one to the next. What the
network predicts is turned into data and noise by `mg.flow.parametrisation`.
"""

import abc
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mg.flow.noise_schedule import NoiseSchedule, trailing_steps
from mg.flow.parametrisation import Mixture, data_and_noise

__all__ = [
    "DDIM",
    "DPM",
    "DrawNoise",
    "FlowEuler",
    "Scheduler",
    "dynamic_guidance",
    "shifted_sigmas",
]

Array = Any  # numpy's, or a MindSpore tensor
DrawNoise = Callable[[], Array]  # standard normal, of the latent's shape


class Scheduler(abc.ABC):
    """One way from noise to a latent in a number of steps.

    Attributes:
        timesteps: what the network gets as its time at each step, (num_steps,).
        prediction: what the network predicts, one of `PREDICTIONS`.
    """

    timesteps: np.ndarray
    prediction: str

    @abc.abstractmethod
    def mixture(self, index: int) -> Mixture:
        """Return how much data and noise are in a latent before a step.

        Its `of(data, noise)` is where a video begins that is sampled from this step on (`add_noise`
        and `scale_noise` of the published samplers).
        """

    @abc.abstractmethod
    def step(self, index: int, output: Array, latent: Array, draw_noise: DrawNoise) -> Array:
        """Return the latent after a step.

        Steps are taken in order, from 0 or a later one.

        Args:
            index: number of the step.
            output: what the network predicted at `timesteps[index]`.
            latent: what it saw.
            draw_noise: gives fresh noise; called only by schedulers that add some.
        """


class _Diffusion(Scheduler):
    """What DDIM and DPM share: the clock of 1000 steps.

    Args:
        schedule: shares of data and noise.
        num_steps: how many steps to take.
        prediction: what the network predicts.

    Raises:
        ValueError: more steps than training knew, or none.
    """

    def __init__(self, schedule: NoiseSchedule, num_steps: int, prediction: str = "v") -> None:
        self.timesteps = trailing_steps(num_steps, schedule.num_steps)
        self.prediction = prediction
        self.alphas = schedule.alphas()
        # The step before is one stride of whole steps away, though the times above are rounded:
        # for 7, 13 or 30 steps the two differ, and the published samplers do take this one.
        self.stride = schedule.num_steps // num_steps

    def alpha_after(self, index: int) -> float:
        """Return a at the end of a step; 1, no noise, where it leads below step 0."""
        after = self.timesteps[index] - self.stride
        return float(self.alphas[after]) if after >= 0 else 1.0

    def mixture(self, index: int) -> Mixture:
        alpha = float(self.alphas[self.timesteps[index]])
        return Mixture(math.sqrt(alpha), math.sqrt(1.0 - alpha))

    def data_of(self, index: int, output: Array, latent: Array) -> Array:
        """Return the data that the network's output says is in the latent."""
        return data_and_noise(self.prediction, output, latent, self.mixture(index))[0]


class DDIM(_Diffusion):
    """Deterministic steps: the same noise, less of it."""

    def step(self, index: int, output: Array, latent: Array, draw_noise: DrawNoise) -> Array:
        now, after = float(self.alphas[self.timesteps[index]]), self.alpha_after(index)
        data = self.data_of(index, output, latent)
        keep = math.sqrt((1.0 - after) / (1.0 - now))
        return keep * latent + (math.sqrt(after) - math.sqrt(now) * keep) * data


class DPM(_Diffusion):
    """Stochastic steps of second order; it remembers the data of the step before.

    With lambda = log(signal / sigma), h its difference over a step and r = h_before / h,

        x' = (sigma' / sigma) e^-h x + signal' (1 - e^-2h) D + sigma' sqrt(1 - e^-2h) noise
        D  = data + (data - data_before) / (2 r)

    At pure noise and at pure data lambda is infinite, and the exponentials are 0.
    """

    def __init__(self, schedule: NoiseSchedule, num_steps: int, prediction: str = "v") -> None:
        super().__init__(schedule, num_steps, prediction)
        self.data_before: Array | None = None

    def step(self, index: int, output: Array, latent: Array, draw_noise: DrawNoise) -> Array:
        now, after = float(self.alphas[self.timesteps[index]]), self.alpha_after(index)
        data = self.data_of(index, output, latent)
        h = _log_ratio(after) - _log_ratio(now)
        decay = math.exp(-h)
        keep = math.sqrt((1.0 - after) / (1.0 - now)) * decay
        noise = draw_noise()
        estimate = data
        leads_below_0 = self.timesteps[index] - self.stride < 0
        if index > 0 and self.data_before is not None and not leads_below_0:
            before = float(self.alphas[self.timesteps[index - 1]])
            ratio = (_log_ratio(now) - _log_ratio(before)) / h
            estimate = data + (data - self.data_before) / (2.0 * ratio)
            noise = draw_noise()  # a second draw, as the published sampler makes it
        self.data_before = data
        fresh = -math.expm1(-2.0 * h)
        added = math.sqrt(1.0 - after) * math.sqrt(fresh)
        return keep * latent + math.sqrt(after) * fresh * estimate + added * noise


def _log_ratio(alpha: float) -> float:
    """Return log(signal / sigma)."""
    if alpha <= 0.0:
        return -math.inf
    return math.inf if alpha >= 1.0 else 0.5 * math.log(alpha / (1.0 - alpha))


class FlowEuler(Scheduler):
    """Euler steps on the straight path; the network sees 1000 sigma.

    Args:
        num_steps: how many steps to take.
        shift: times are moved towards noise by s x / (1 + (s - 1) x); 7 for HunyuanVideo.
        prediction: what the network predicts, "flow" or "velocity".

    Raises:
        ValueError: no steps, or a shift that is not positive.
    """

    def __init__(self, num_steps: int, shift: float = 1.0, prediction: str = "flow") -> None:
        self.shift = shift
        self.sigmas = shifted_sigmas(num_steps, shift)  # (num_steps + 1,)
        self.timesteps = 1000.0 * self.sigmas[:-1]
        self.prediction = prediction

    def mixture(self, index: int) -> Mixture:
        sigma = float(self.sigmas[index])
        return Mixture(1.0 - sigma, sigma)

    def step(self, index: int, output: Array, latent: Array, draw_noise: DrawNoise) -> Array:
        now, after = float(self.sigmas[index]), float(self.sigmas[index + 1])
        data, noise = data_and_noise(self.prediction, output, latent, self.mixture(index))
        return latent + (after - now) * (noise - data)


def shifted_sigmas(num_steps: int, shift: float = 1.0) -> np.ndarray:
    """Return how much noise is left at each time, float64 (num_steps + 1,), from 1 to 0.

    Raises:
        ValueError: no steps, or a shift that is not positive.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps={num_steps}; expected 1 or more")
    if not 0 < shift < math.inf:
        raise ValueError(f"shift={shift}; expected more than 0")
    sigmas = np.linspace(1.0, 0.0, num_steps + 1)
    return shift * sigmas / (1.0 + (shift - 1.0) * sigmas)


def dynamic_guidance(scale: float, timestep: float, num_steps: int) -> float:
    """Return the weight of the text at a step of CogVideoX with `use_dynamic_cfg`.

    1 + scale (1 - cos(pi ((n - t) / n)^5)) / 2 with n the number of sampler steps and t a time
    from 0 to 999, so it jumps about; that is how the published pipeline has it.

    Args:
        scale: guidance_scale.
        timestep: the network's time.
        num_steps: steps of the sampler.
    """
    return 1.0 + scale * (1.0 - math.cos(math.pi * ((num_steps - timestep) / num_steps) ** 5.0)) / 2
