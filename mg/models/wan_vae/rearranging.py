"""What Wan 2.2 does without parameters: patches of pixels, and shortcuts around whole levels.

Layouts: clips are folded, (B*T, C, H, W); ft and fs are factors in time and in space.
"""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import constexpr

from mg.models.layers.devices import operations
from mg.models.layers.frames import join_frames

__all__ = ["AverageShortcut", "DuplicateShortcut", "patchify", "unpatchify"]


def patchify(x: Tensor, size: int) -> Tensor:
    """Return (N, C size^2, H / size, W / size): squares of pixels as channels.

    The channels are ordered by channel, column and row of the pixel.
    """
    if size == 1:
        return x
    total, channels, height, width = x.shape
    x = x.reshape(total * channels, height // size, size, width // size, size)
    x = x.transpose(0, 4, 2, 1, 3)  # (N*C, column, row, H / size, W / size)
    return x.reshape(total, -1, height // size, width // size)


def unpatchify(x: Tensor, size: int) -> Tensor:
    """Return (N, C / size^2, H size, W size); the inverse of `patchify`."""
    if size == 1:
        return x
    total, channels, height, width = x.shape
    x = x.reshape(-1, size, size, height, width).transpose(0, 3, 2, 4, 1)
    return x.reshape(total, channels // size**2, height * size, width * size)


class AverageShortcut(nn.Cell):
    """The values that a level makes one of, as channels; means of as many as leave `out_channels`.

    Values are ordered by channel, frame, row and column; consecutive ones are averaged. The first
    frame of a clip has a frame of zeros for its partner, which counts.
    """

    def __init__(self, in_channels: int, out_channels: int, factors: tuple[int, int]) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.time, self.space = factors
        num_values = in_channels * self.time * self.space**2 // out_channels
        self.shares = Tensor(np.full(num_values, 1 / num_values, np.float32))
        self.sum = operations().SumChannels()

    def construct(self, x: Tensor, num_clips: int) -> Tensor:
        """Return (B*T', Cout, H / fs, W / fs), T' = ceil(T / ft), of x (B*T, C, H, W)."""
        if self.time > 1 and x.shape[0] // num_clips % self.time:
            x = join_frames(ops.zeros_like(x[:num_clips]), x, num_clips)
        total, channels, height, width = x.shape
        rows, columns = height // self.space, width // self.space
        total = total // self.time
        if self.time > 1:
            x = x.reshape(total, self.time, channels, -1).transpose(0, 2, 1, 3)
        if self.space > 1:
            x = x.reshape(-1, rows, self.space, columns, self.space).transpose(0, 2, 4, 1, 3)
        x = x.reshape(total * self.out_channels, -1, rows, columns)
        means = self.sum(x.astype(ms.float32), self.shares).astype(x.dtype)
        return means.reshape(total, self.out_channels, rows, columns)


class DuplicateShortcut(nn.Cell):
    """Each channel repeated, then channels spread over frames, rows and columns."""

    def __init__(self, in_channels: int, out_channels: int, factors: tuple[int, int]) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.time, self.space = factors

    def construct(self, x: Tensor, num_clips: int, is_start: bool) -> Tensor:
        """Return (B*T', Cout, fs H, fs W), T' = ft T, of x (B*T, C, H, W).

        At the start of a clip its first frame stands for itself: T' = ft (T - 1) + 1.
        """
        total, _, height, width = x.shape
        sources = _sources(self.in_channels, self.out_channels, self.time, self.space)
        x = ops.gather(x, sources, 1)  # (B*T, ft * Cout * fs * fs, H, W)
        x = x.reshape(-1, self.space, self.space, height, width).transpose(0, 3, 1, 4, 2)
        size = (self.out_channels, height * self.space, width * self.space)
        if self.time == 1 or not is_start:
            return x.reshape(total * self.time, *size)
        return x.reshape(num_clips, -1, *size)[:, self.time - 1 :].reshape(-1, *size)


@constexpr
def _sources(in_channels: int, out_channels: int, time: int, space: int) -> Tensor:
    """Return the channel that each value comes from, by frame, channel, row and column."""
    num_values = out_channels * time * space**2
    sources = np.arange(num_values) // (num_values // in_channels)
    sources = sources.reshape(out_channels, time, space, space).transpose(1, 0, 2, 3)
    return Tensor(sources.reshape(-1).astype(np.int32))
