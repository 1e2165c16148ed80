"""Diffusion's clock: how much data is left after each of 1000 steps of adding noise.

    x_k = sqrt(a_k) data + sqrt(1 - a_k) noise,    k = 0 ... 999

with a_k ("alphas_cumprod") falling from about 1 to 0. CogVideoX (arXiv 2408.06072, section 2.2 and
its published configs) shifts the ratio of signal to noise and ends in pure noise (arXiv
2305.08891).
"""

import dataclasses

import numpy as np

from mg.flow.parametrisation import Mixture

__all__ = ["NoiseSchedule", "trailing_steps"]


@dataclasses.dataclass(frozen=True)
class NoiseSchedule:
    """The shares of data and noise by step.

    Args:
        num_steps: number of steps that training knows.
        beta_start, beta_end: variance of the noise that the first and the last step add.
        snr_shift_scale: the ratio of signal to noise is divided by this.
        zero_terminal_snr: stretch the schedule so that the last step is pure noise.

    Raises:
        ValueError: values that make no schedule.
    """

    num_steps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    snr_shift_scale: float = 1.0
    zero_terminal_snr: bool = True

    def __post_init__(self) -> None:
        if type(self.num_steps) is not int or not 2 <= self.num_steps <= 100_000:
            raise ValueError(f"num_steps={self.num_steps!r}; expected a whole number from 2")
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise ValueError(
                f"beta_start={self.beta_start} and beta_end={self.beta_end}; expected "
                "0 < beta_start <= beta_end < 1"
            )
        if not 0 < self.snr_shift_scale < np.inf:
            raise ValueError(f"snr_shift_scale={self.snr_shift_scale}; expected more than 0")

    def alphas(self) -> np.ndarray:
        """Return a_k, float64 (num_steps,), falling."""
        roots = np.linspace(self.beta_start**0.5, self.beta_end**0.5, self.num_steps)
        alphas = np.cumprod(1.0 - roots**2)  # "scaled_linear"
        scale = self.snr_shift_scale
        alphas = alphas / (scale + (1 - scale) * alphas)
        if not self.zero_terminal_snr:
            return alphas
        # After the shift, not before: the two do not commute.
        signal = np.sqrt(alphas)
        first, last = signal[0], signal[-1]
        return ((signal - last) * first / (first - last)) ** 2

    def mixture(self, step: int | np.ndarray) -> Mixture:
        """Return the shares at a step, or at an array of steps."""
        alphas = self.alphas()[step]
        return Mixture(np.sqrt(alphas), np.sqrt(1.0 - alphas))


def trailing_steps(num_steps: int, num_train_steps: int = 1000) -> np.ndarray:
    """Return the steps that a sampler visits, int64 (num_steps,), from the last one down.

    Args:
        num_steps: how many, at most `num_train_steps`.
        num_train_steps: number of steps that training knows.

    Raises:
        ValueError: less than one step, or more than there are.
    """
    if not 1 <= num_steps <= num_train_steps:
        raise ValueError(f"num_steps={num_steps}; expected 1 to {num_train_steps}")
    return np.round(np.arange(num_train_steps, 0, -num_train_steps / num_steps)).astype(int) - 1
