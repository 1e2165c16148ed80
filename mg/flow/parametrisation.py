"""What a network predicts of a noisy latent, and how one prediction becomes another.

Every network here sees a mixture of data and standard normal noise,

    x = signal * data + sigma * noise

on a path of its own. What it predicts is one of

    data        "sample" in diffusers
    noise       "epsilon"
    v           signal * noise - sigma * data, where signal^2 + sigma^2 = 1 (arXiv 2202.00512)
    velocity    data - noise, on the straight path signal = t, sigma = 1 - t: ours
    flow        noise - data, on the same path: HunyuanVideo's and diffusers' flow matching

The functions are plain arithmetic: they take numpy arrays and tensors. Compiled graphs cannot look
a kind up; they take what `target_rule` and `velocity_rule` return before they are compiled.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = [
    "PREDICTIONS",
    "Mixture",
    "data_and_noise",
    "prediction_of",
    "target_rule",
    "velocity_of",
    "velocity_rule",
]

PREDICTIONS = ("data", "noise", "v", "velocity", "flow")

Array = Any  # numpy's, or a MindSpore tensor
Rule = Callable[[Array, Array, Array, Array], Array]


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
    return target_rule(kind)(data, noise, *mixture)


def target_rule(kind: str) -> Rule:
    """Return (data, noise, signal, sigma) -> what `prediction_of` gives.

    Raises:
        ValueError: an unknown kind.
    """
    return _entry(_TARGETS, kind)


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


def velocity_of(kind: str, prediction: Array, x: Array, mixture: Mixture) -> Array:
    """Return data - noise, as a prediction says they are in x.

    Args:
        kind, prediction, x, mixture: as of `data_and_noise`. Of velocity, flow and v the mixture
            may be anything, pure noise and pure data too.

    Raises:
        ValueError: an unknown kind.
    """
    return velocity_rule(kind)(prediction, x, *mixture)


def velocity_rule(kind: str) -> Rule:
    """Return (prediction, x, signal, sigma) -> what `velocity_of` gives.

    Raises:
        ValueError: an unknown kind.
    """
    return _entry(_VELOCITIES, kind)


def _entry(table: dict[str, Callable], kind: str) -> Callable:
    if kind not in table:
        raise ValueError(f"prediction {kind!r}; expected one of {', '.join(PREDICTIONS)}")
    return table[kind]


# -- what a network is trained to give; named functions, as graphs have no use for lambdas ---------


def _data(data: Array, noise: Array, signal: Array, sigma: Array) -> Array:
    return data


def _noise(data: Array, noise: Array, signal: Array, sigma: Array) -> Array:
    return noise


def _v(data: Array, noise: Array, signal: Array, sigma: Array) -> Array:
    return signal * noise - sigma * data


def _velocity(data: Array, noise: Array, signal: Array, sigma: Array) -> Array:
    return data - noise


def _flow(data: Array, noise: Array, signal: Array, sigma: Array) -> Array:
    return noise - data


_TARGETS = {"data": _data, "noise": _noise, "v": _v, "velocity": _velocity, "flow": _flow}


# -- back to data and noise ------------------------------------------------------------------------


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


# -- to data - noise; v, unlike the others, neither divides nor goes by way of both ---------------


def _velocity_of_data(data: Array, x: Array, signal: Array, sigma: Array) -> Array:
    return data - (x - signal * data) / sigma


def _velocity_of_noise(noise: Array, x: Array, signal: Array, sigma: Array) -> Array:
    return (x - sigma * noise) / signal - noise


def _velocity_of_v(v: Array, x: Array, signal: Array, sigma: Array) -> Array:
    return (signal - sigma) * x - (signal + sigma) * v


def _velocity_of_velocity(velocity: Array, x: Array, signal: Array, sigma: Array) -> Array:
    return velocity


def _velocity_of_flow(flow: Array, x: Array, signal: Array, sigma: Array) -> Array:
    return -flow


_VELOCITIES = {
    "data": _velocity_of_data,
    "noise": _velocity_of_noise,
    "v": _velocity_of_v,
    "velocity": _velocity_of_velocity,
    "flow": _velocity_of_flow,
}
