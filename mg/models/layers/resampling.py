"""Resizing clips in space and in time: nearest neighbour, linear, mean.

Layouts and precision: see `mg.models.layers`.
"""

import numpy as np
from mindspore import Tensor, ops
from mindspore.ops import constexpr

from mg.models.layers.frames import mix_frames

__all__ = ["linear_weights", "resize_linear", "resize_nearest"]


def resize_nearest(x: Tensor, factor: int) -> Tensor:
    """Return (N, C, H * factor, W * factor): each pixel of x (N, C, H, W) repeated."""
    size = (x.shape[2] * factor, x.shape[3] * factor)
    return ops.ResizeNearestNeighbor(size)(x)


def resize_linear(x: Tensor, num_frames: int, factors: tuple[int, int, int]) -> Tensor:
    """Return clips resized along (time, height, width) as PyTorch does without aligned corners.

    Args:
        x: folded clips (B*T, C, H, W).
        num_frames: T.
        factors: whole numbers by which each axis grows.
    """
    time, height, width = factors
    if time > 1:
        x = mix_frames(x, num_frames, _linear(num_frames, time))
    if height > 1:
        x = ops.matmul(_linear(x.shape[2], height).astype(x.dtype), x)
    if width > 1:
        x = ops.matmul(x, _linear(x.shape[3], width).T.astype(x.dtype))
    return x


def linear_weights(size: int, factor: int) -> np.ndarray:
    """Return the weights (size * factor, size) of `size` values in linear interpolation."""
    places = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
    weights = np.zeros((size * factor, size), np.float32)
    for row, place in enumerate(places):
        left = int(place)
        weights[row, left] += 1 - (place - left)
        weights[row, min(left + 1, size - 1)] += place - left
    return weights


@constexpr
def _linear(size: int, factor: int) -> Tensor:
    return Tensor(linear_weights(size, factor))
