"""Resizing clips in space and in time: nearest neighbour, linear, mean.

Layouts and precision: see `mg.models.layers`.
"""

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import constexpr

from mg.models.layers.convolution import drawn_weight, zero_bias
from mg.models.layers.devices import operations
from mg.models.layers.frames import mix_frames

__all__ = ["DoubledConv2d", "linear_weights", "resize_linear"]


class DoubledConv2d(nn.Cell):
    """Double H and W, nearest neighbour; then a 3x3 convolution of each frame."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = drawn_weight((out_channels, in_channels, 3, 3))
        self.bias = zero_bias(out_channels)
        self.convolve = operations().ConvolveDoubled(in_channels, out_channels)
        self.bias_add = operations().ChannelBias()

    def construct(self, x: Tensor) -> Tensor:
        """Return (N, Cout, 2H, 2W) of x (N, Cin, H, W)."""
        y = self.convolve(x, self.weight.astype(x.dtype))
        return self.bias_add(y, self.bias.astype(x.dtype))


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
