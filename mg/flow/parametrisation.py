"""What a network predicts of a noisy latent, and how one prediction becomes another.

Every network here sees a mixture of data and standard normal noise,

    x = signal * data + sigma * noise

on a path of its own. What it predicts is one of

    data        "sample" in diffusers
    noise       "epsilon"
    v           signal * noise - sigma * data, where signal^2 + sigma^2 = 1 (arXiv 2202.00512)
    velocity    data - noise, on the straight path signal = t, sigma = 1 - t: ours
    flow        noise - data, on the same path: HunyuanVideo's and diffusers' flow matching

The functions are plain arithmetic: they take numpy arrays and tensors, in compiled graphs too.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["PREDICTIONS", "Mixture", "data_and_noise", "prediction_of"]

PREDICTIONS = ("data", "noise", "v", "velocity", "flow")

Array = Any  # numpy's, or a MindSpore tensor


class Mixture(NamedTuple):
    """How much data and how much noise are in x; numbers, or arrays that broadcast against it."""

    signal: Array
    sigma: Array

    def of(self, data: Array, noise: Array) -> Array:
        """Return x = signal * data + sigma * noise."""
        return self.signal * data + self.sigma * noise


def prediction_of(kind: str, data: Array, noise: Array, mixture: Mixture) -> Array:
    """Return what a network that predicts `kind` is trained to give.

    Args:
        kind: one of `PREDICTIONS`.
        data, noise: what was mixed.
        mixture: in which shares.

    Raises:
        ValueError: an unknown kind.
    """
    return _entry(_TARGETS, kind)(data, noise, mixture)


def data_and_noise(kind: str, prediction: Array, x: Array, mixture: Mixture) -> tuple[Array, Array]:
    """Return the data and the noise that a prediction says are in x; undoes `prediction_of`.

    Args:
        kind: one of `PREDICTIONS`.
        prediction: what the network gave.
        x: what it saw.
        mixture: the shares in x. Of `noise` the signal must not be 0, of `data` sigma must not:
            nothing else tells the rest.

    Raises:
        ValueError: an unknown kind.
    """
    return _entry(_SOLUTIONS, kind)(prediction, x, *mixture)


def _entry(table: dict[str, Callable], kind: str) -> Callable:
    if kind not in table:
        raise ValueError(f"prediction {kind!r}; expected one of {', '.join(PREDICTIONS)}")
    return table[kind]


_TARGETS = {
    "data": lambda data, noise, mixture: data,
    "noise": lambda data, noise, mixture: noise,
    "v": lambda data, noise, mixture: mixture.signal * noise - mixture.sigma * data,
    "velocity": lambda data, noise, mixture: data - noise,
    "flow": lambda data, noise, mixture: noise - data,
}


def _of_data(data: Array, x: Array, signal: Array, sigma: Array) -> tuple[Array, Array]:
    return data, (x - signal * data) / sigma


def _of_noise(noise: Array, x: Array, signal: Array, sigma: Array) -> tuple[Array, Array]:
    return (x - sigma * noise) / signal, noise


def _of_v(v: Array, x: Array, signal: Array, sigma: Array) -> tuple[Array, Array]:
    return signal * x - sigma * v, sigma * x + signal * v


def _of_velocity(velocity: Array, x: Array, signal: Array, sigma: Array) -> tuple[Array, Array]:
    return x + sigma * velocity, x - signal * velocity


def _of_flow(flow: Array, x: Array, signal: Array, sigma: Array) -> tuple[Array, Array]:
    return _of_velocity(-flow, x, signal, sigma)


_SOLUTIONS = {
    "data": _of_data,
    "noise": _of_noise,
    "v": _of_v,
    "velocity": _of_velocity,
    "flow": _of_flow,
}
