"""Halving and doubling a clip in time by convolutions over time, in the folded layout.

Layouts and precision: see `mg.models.layers`.

Source: Movie Gen (arXiv 2410.13720) section 3.1.1.
"""

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import constexpr

from mg.models.layers.convolution import TemporalConv
from mg.models.layers.frames import channel_rows, folded_frames

__all__ = ["TemporalDownsample", "TemporalUpsample"]


class TemporalDownsample(nn.Cell):
    """T -> ceil(T/2): convolution over time, kernel 3, stride 2.

    Output frame i sees the frames 2i-1, 2i, 2i+1; past the ends the end frames are repeated, in the
    paper and in the published weights alike.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = TemporalConv(channels, stride=2)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        return self.conv(x, num_frames)  # (B*ceil(T/2), C, H, W)


@constexpr
def _taps_of_pairs(batch: int, num_frames: int, pads_with_zeros: bool, channels: int) -> Tensor:
    """Taps i-1, i, i, i+1 of the two output frames of each input frame.

    Beyond the ends they see the end frames, or the frame of zeros that follows the folded batch.
    """
    frames = np.arange(num_frames)[:, None] + np.array([-1, 0, 0, 1])
    inside = (frames >= 0) & (frames < num_frames)
    frames = folded_frames(batch, num_frames, np.clip(frames, 0, num_frames - 1))
    if pads_with_zeros:
        frames[~np.tile(inside, (batch, 1))] = batch * num_frames
    return channel_rows(frames.reshape(-1, 2), channels)


class TemporalUpsample(nn.Cell):
    """T -> 2T: nearest neighbour, then a convolution over time with kernel 3.

    Past the ends are zeros ("published") or the end frames ("replicate", the paper's). With frames
    doubled and taps W0, W1, W2,

        y_2i = W0 x_{i-1} + (W1 + W2) x_i        y_2i+1 = (W0 + W1) x_i + W2 x_{i+1}

    so the frames i-1, i | i, i+1, each pair interleaved along the channels, give both with one 1x1
    convolution of two groups: 4 products per two output frames instead of 6.
    """

    def __init__(self, channels: int, *, temporal_padding: str) -> None:
        super().__init__()
        self.conv = TemporalConv(channels)
        self.pads_with_zeros = temporal_padding == "published"
        self.conv1x1 = ops.Conv2D(2 * channels, 1, pad_mode="valid", group=2)
        self.gather = ops.Gather()
        self.matmul = ops.MatMul()
        # (3, 2) each: from (W0, W1, W2) to (W0, W1 + W2) and (W0 + W1, W2)
        self.to_even = Tensor(np.array([[1, 0], [0, 1], [0, 1]], np.float32))
        self.to_odd = Tensor(np.array([[1, 0], [1, 0], [0, 1]], np.float32))

    def weight_of_pairs(self) -> Tensor:
        """Return the weight (2*C, 2*C, 1, 1) for even and odd output frames: the two groups."""
        channels = self.conv.weight.shape[0]
        taps = self.conv.weight.reshape(channels * channels, 3)
        even, odd = self.matmul(taps, self.to_even), self.matmul(taps, self.to_odd)
        return ops.concat((even, odd), 0).reshape(2 * channels, 2 * channels, 1, 1)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        total, channels, height, width = x.shape
        rows = _taps_of_pairs(total // num_frames, num_frames, self.pads_with_zeros, channels)
        if self.pads_with_zeros:
            x = ops.concat((x, ops.zeros_like(x[:1])), 0)
        taps = self.gather(x.reshape(-1, height, width), rows, 0)  # (B*T * 2 * C * 2, H, W)
        taps = taps.reshape(total, 4 * channels, height, width)
        y = self.conv1x1(taps, self.weight_of_pairs().astype(x.dtype))  # (B*T, 2*C, H, W)
        return self.conv.add_bias(y.reshape(2 * total, channels, height, width))
