"""Halving and doubling of height, width and time in CogVideoX's autoencoder."""

import numpy as np
from mindspore import Tensor, nn
from mindspore.ops import constexpr

from mg.models.layers.convolution import Conv2d
from mg.models.layers.frames import mix_frames, take_frames
from mg.models.layers.resampling import DoubledConv2d

__all__ = ["Downsample", "Upsample"]


class Downsample(nn.Cell):
    """Halve H and W by a 3x3 convolution with stride 2, and, where asked, T by the mean of two."""

    def __init__(self, channels: int, *, halves_time: bool) -> None:
        super().__init__()
        self.halves_time = halves_time
        self.conv = Conv2d(channels, channels, kernel_size=3, stride=2, padding=(0, 1, 0, 1))

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        if self.halves_time and num_frames > 1:
            x = mix_frames(x, num_frames, _means_of_pairs(num_frames))
        return self.conv(x)


@constexpr
def _means_of_pairs(num_frames: int) -> Tensor:
    """Return the weights (T', T) of means of two frames; of an odd T the first is kept."""
    alone = num_frames % 2
    weights = np.kron(np.eye((num_frames + 1) // 2), [0.5, 0.5])
    if alone:
        weights = weights[:, 1:]
        weights[0, 0] = 1.0
    return Tensor(weights.astype(np.float32))


class Upsample(nn.Cell):
    """Double H and W by nearest neighbour, then a 3x3 convolution; where asked, repeat frames.

    The convolution is one of each frame by itself, so frames are repeated after it, not before.
    """

    def __init__(self, channels: int, *, doubles_time: bool) -> None:
        super().__init__()
        self.doubles_time = doubles_time
        self.conv = DoubledConv2d(channels, channels)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        x = self.conv(x)
        if self.doubles_time and num_frames > 1:
            x = take_frames(x, num_frames, _twice(num_frames))
        return x


@constexpr
def _twice(num_frames: int) -> tuple[int, ...]:
    """Return the numbers of all frames twice; of an odd number of frames, the first once."""
    return tuple(i // 2 for i in range(2 * num_frames))[num_frames % 2 :]
