"""Classifier-free guidance (Ho and Salimans, arXiv 2207.12598; Movie Gen 3.4): text that counts."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from mindspore import Tensor, ops

from mg.flow.solvers import Velocity

__all__ = ["guided_velocity"]


def guided_velocity(
    network: Callable[..., np.ndarray | Tensor],
    text: Sequence[np.ndarray | Tensor],
    unconditional_text: Sequence[np.ndarray | Tensor] | None = None,
    *,
    scale: float = 7.5,
    one_batch: bool = True,
) -> Velocity:
    """Return velocity(latent, t) = v_uncond + scale (v_cond - v_uncond).

    With scale 1 that is v_cond: the network runs once per call and `unconditional_text` is unused.

    Args:
        network: (latent (B, C, T, H, W), t (B,), *text) -> velocity of the latent's shape.
        text: embedding and mask of each text encoder, batch first, (B, L, D) and (B, L).
        unconditional_text: the same of the empty prompt, or of a negative one, which the video is
            then pushed away from; each B or 1 in the batch axis.
        scale: weight w of the text, 0 or more.
        one_batch: run both branches as one batch of 2 B; False runs the network twice on B, which
            takes half the memory.

    Raises:
        ValueError: `scale` is negative or not finite; the two texts do not fit.
    """
    if not (math.isfinite(scale) and scale >= 0):
        raise ValueError(f"guidance scale {scale}; expected 0 or more (1 turns guidance off)")
    text = tuple(text)
    if scale == 1.0:
        return lambda latent, t: network(latent, t, *text)
    if unconditional_text is None:
        raise ValueError(
            f"guidance scale {scale} needs the text of the unconditional branch: that of the empty "
            "prompt or a negative one; scale 1 turns guidance off"
        )
    unconditional_text = _fitted(unconditional_text, text)

    if not one_batch:

        def in_two_passes(latent, t):
            unconditional = network(latent, t, *unconditional_text)
            return unconditional + scale * (network(latent, t, *text) - unconditional)

        return in_two_passes

    both_texts = [_joined(a, b) for a, b in zip(unconditional_text, text, strict=True)]

    def in_one_batch(latent, t):
        both = network(_joined(latent, latent), _joined(t, t), *both_texts)  # (2 B, C, T, H, W)
        unconditional, conditional = both[: len(latent)], both[len(latent) :]
        return unconditional + scale * (conditional - unconditional)

    return in_one_batch


def _joined(one: np.ndarray | Tensor, other: np.ndarray | Tensor) -> np.ndarray | Tensor:
    if isinstance(one, np.ndarray):
        return np.concatenate([one, other])
    return ops.concat([one, other])


def _fitted(
    unconditional: Sequence[np.ndarray | Tensor], text: tuple[np.ndarray | Tensor, ...]
) -> tuple[np.ndarray | Tensor, ...]:
    """Return the unconditional text with as many rows as the text has."""
    shapes = [tuple(x.shape) for x in unconditional]
    expected = [tuple(x.shape) for x in text]
    if shapes == expected:
        return tuple(unconditional)
    if shapes != [(1, *shape[1:]) for shape in expected]:
        raise ValueError(
            f"the unconditional text has the shapes {shapes}; expected those of the text, "
            f"{expected}, or the same with 1 row"
        )
    return tuple(_repeated(x, len(like)) for x, like in zip(unconditional, text, strict=True))


def _repeated(x: np.ndarray | Tensor, num_rows: int) -> np.ndarray | Tensor:
    if isinstance(x, np.ndarray):
        return np.repeat(x, num_rows, axis=0)
    return Tensor(np.repeat(x.asnumpy(), num_rows, axis=0))
