"""One step of an ODE solver for dx/dt = velocity(x, t)."""

import dataclasses
from collections.abc import Callable

import numpy as np
from mindspore import Tensor

__all__ = ["EULER", "MIDPOINT", "SOLVERS", "Solver", "Velocity"]

# velocity(latent (B, C, T, H, W), t (B,) float32) -> the latent's shape
Velocity = Callable[[np.ndarray | Tensor, np.ndarray | Tensor], np.ndarray | Tensor]


@dataclasses.dataclass(frozen=True)
class Solver:
    """A one-step method.

    Attributes:
        name: what users call it.
        order: the error falls with the step's length to this power.
        num_evaluations: calls of the velocity per step.
        step: (velocity(latent, t), latent, t, t_next) -> latent at t_next, with times as floats.
    """

    name: str
    order: int
    num_evaluations: int
    step: Callable


def _euler_step(velocity, latent, t, t_next):
    return latent + (t_next - t) * velocity(latent, t)


def _midpoint_step(velocity, latent, t, t_next):
    half = 0.5 * (t_next - t)
    middle = latent + half * velocity(latent, t)
    return latent + (t_next - t) * velocity(middle, t + half)


EULER = Solver("euler", 1, 1, _euler_step)
# Rather than Heun's method, which asks for the velocity at t = 1, where training never was.
MIDPOINT = Solver("midpoint", 2, 2, _midpoint_step)

SOLVERS = {solver.name: solver for solver in (EULER, MIDPOINT)}
