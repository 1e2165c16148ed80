"""Classifier-free guidance (Ho and Salimans, arXiv 2207.12598; Movie Gen 3.4)."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from mindspore import Tensor, ops

from mg.flow.solvers import Velocity

__all__ = ["guided_velocity"]


def guided_velocity(
    network: Callable[..., np.ndarray | Tensor],
    conditions: Sequence[np.ndarray | Tensor],
    unconditional: Sequence[np.ndarray | Tensor] | None = None,
    *,
    scale: float = 7.5,
    one_batch: bool = True,
) -> Velocity:
    """Return velocity(latent, t) = v_uncond + scale (v_cond - v_uncond).

    With scale 1 that is v_cond: the network runs once per call and `unconditional` is unused.

    Args:
        network: (latent (B, C, T, H, W), t (B,), *conditions) -> velocity of the latent's shape.
        conditions: what the network is conditioned on, batch first, such as embedding (B, L, D)
            and mask (B, L) of each text encoder.
        unconditional: the same of the empty prompt, or of a negative one, which the video is then
            pushed away from; each B or 1 in the batch axis.
        scale: weight w of the conditions, 0 or more.
        one_batch: run both branches as one batch of 2 B; False runs the network twice on B, which
            takes half the memory.

    Raises:
        ValueError: `scale` is negative or not finite; the two sets of conditions do not fit.
    """
    if not (math.isfinite(scale) and scale >= 0):
        raise ValueError(f"guidance scale {scale}; expected 0 or more (1 turns guidance off)")
    conditions = tuple(conditions)
    if scale == 1.0:
        return lambda latent, t: network(latent, t, *conditions)
    if unconditional is None:
        raise ValueError(
            f"guidance scale {scale} needs the conditions of the unconditional branch: those of "
            "the empty prompt or a negative one; scale 1 turns guidance off"
        )
    others = _fitted(unconditional, conditions)

    if not one_batch:

        def in_two_passes(latent, t):
            without = network(latent, t, *others)
            return without + scale * (network(latent, t, *conditions) - without)

        return in_two_passes

    both_conditions = [_joined(a, b) for a, b in zip(others, conditions, strict=True)]

    def in_one_batch(latent, t):
        # (2 B, C, T, H, W)
        both = network(_joined(latent, latent), _joined(t, t), *both_conditions)
        without, under = both[: len(latent)], both[len(latent) :]
        return without + scale * (under - without)

    return in_one_batch


def _joined(one: np.ndarray | Tensor, other: np.ndarray | Tensor) -> np.ndarray | Tensor:
    if isinstance(one, np.ndarray):
        return np.concatenate([one, other])
    return ops.concat([one, other])


def _fitted(
    unconditional: Sequence[np.ndarray | Tensor], conditions: tuple[np.ndarray | Tensor, ...]
) -> tuple[np.ndarray | Tensor, ...]:
    """Return the unconditional ones with as many rows as the conditions have."""
    shapes = [tuple(x.shape) for x in unconditional]
    expected = [tuple(x.shape) for x in conditions]
    if shapes == expected:
        return tuple(unconditional)
    if shapes != [(1, *shape[1:]) for shape in expected]:
        raise ValueError(
            f"the unconditional branch has the shapes {shapes}; expected those of the conditions, "
            f"{expected}, or the same with 1 row"
        )
    return tuple(_repeated(x, len(like)) for x, like in zip(unconditional, conditions, strict=True))


def _repeated(x: np.ndarray | Tensor, num_rows: int) -> np.ndarray | Tensor:
    if isinstance(x, np.ndarray):
        return np.repeat(x, num_rows, axis=0)
    return Tensor(np.repeat(x.asnumpy(), num_rows, axis=0))
