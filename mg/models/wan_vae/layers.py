"""Layers of Wan's VAEs: causal convolutions with a past, samplers, normalisation, attention.

Layouts: clips are folded, (B*T, C, H, W), and `num_clips` is B.
A clip may be coded in pieces, one after the other. What a layer needs of the pieces before, it gets
as `past`, a tuple of `num_pasts` tensors of folded frames, and hands on as such a tuple with its
result. At the start of a clip `past` is empty; nothing is handed on unless `keeps_past`.
Precision: see `mg.models.layers`.
"""

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from mg.models.layers.attention import attend
from mg.models.layers.convolution import Conv2d
from mg.models.layers.convolution3d import CausalConv3d, Conv3d, tap_of
from mg.models.layers.devices import operations
from mg.models.layers.frames import join_frames, take_frames
from mg.models.layers.resampling import DoubledConv2d

__all__ = ["CausalConv", "Downsample", "MidBlock", "Past", "RMSNorm", "ResidualBlock", "Upsample"]

Past = tuple[Tensor, ...]


class CausalConv(CausalConv3d):
    """Causal convolution with a kernel of 3 in time; zeros stand before the first frame."""

    num_pasts = 1  # the last two frames

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel_size: int | tuple[int, int] = 3
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size=kernel_size, pad_time_with="zeros")

    def construct(
        self, x: Tensor, num_clips: int, past: Past, keeps_past: bool
    ) -> tuple[Tensor, Past]:
        return self.of_weight(x, num_clips, past, keeps_past, self.weight)

    def of_weight(
        self, x: Tensor, num_clips: int, past: Past, keeps_past: bool, weight: Tensor
    ) -> tuple[Tensor, Past]:
        """Return the convolution with another weight, and the past to hand on."""
        num_frames = x.shape[0] // num_clips
        before = past[0] if len(past) > 0 else None
        kept = (_last_two(x, num_clips, before),) if keeps_past else ()
        if num_frames == 1 and before is None:  # the last tap alone sees a frame
            y = self.conv2d_of_one(x, tap_of(weight, 2).astype(x.dtype))
        else:
            y = self.with_weight(x, num_frames, weight, before)
        return self.with_bias(y), kept


def _last_two(x: Tensor, num_clips: int, before: Tensor | None) -> Tensor:
    """Return the last two frames of (before, x), with zeros for what is not there."""
    num_frames = x.shape[0] // num_clips
    if num_frames > 1:
        return take_frames(x, num_frames, (num_frames - 2, num_frames - 1))
    earlier = ops.zeros_like(x) if before is None else take_frames(before, 2, (1,))
    return join_frames(earlier, x, num_clips)


def _split_first(x: Tensor, num_frames: int) -> tuple[Tensor, Tensor]:
    """Return the first frame of each clip, and the frames behind it."""
    first = take_frames(x, num_frames, (0,))
    return first, take_frames(x, num_frames, tuple(range(1, num_frames)))


class RMSNorm(nn.Cell):
    """y = gamma sqrt(C) x / max(|x|, 1e-12), |x| over the channels at each position.

    Args:
        channels: C.
        num_axes: behind the channels in the shape of `gamma`, as checkpoints have it.
    """

    def __init__(self, channels: int, *, num_axes: int = 3) -> None:
        super().__init__()
        self.root = float(channels) ** 0.5
        self.gamma = Parameter(Tensor(np.ones((channels,) + (1,) * num_axes, np.float32)))
        self.ones = Tensor(np.ones(channels, np.float32))
        self.sum = operations().SumChannels()
        self.scale = operations().ScaleChannelsAndPixels()

    def construct(self, x: Tensor) -> Tensor:
        values = x.astype(ms.float32)
        squares = ops.maximum(self.sum(ops.square(values), self.ones), 1e-24)  # (N, 1, H, W)
        y = self.scale(values, self.gamma.reshape(-1), self.root * ops.rsqrt(squares))
        return y.astype(x.dtype)


class ResidualBlock(nn.Cell):
    """x + conv(SiLU(norm(conv(SiLU(norm(x)))))), with a 1x1x1 on x if the channels change."""

    num_pasts = 2

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = RMSNorm(in_channels)
        self.conv1 = CausalConv(in_channels, out_channels)
        self.norm2 = RMSNorm(out_channels)
        self.conv2 = CausalConv(out_channels, out_channels)
        self.silu = operations().SiLU()
        self.conv_shortcut = None
        if in_channels != out_channels:
            self.conv_shortcut = Conv3d(in_channels, out_channels, kernel_size=1)

    def construct(
        self, x: Tensor, num_clips: int, past: Past, keeps_past: bool
    ) -> tuple[Tensor, Past]:
        h, first = self.conv1(self.silu(self.norm1(x)), num_clips, past[:1], keeps_past)
        h, second = self.conv2(self.silu(self.norm2(h)), num_clips, past[1:], keeps_past)
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x)), first + second


class FrameAttention(nn.Cell):
    """x plus single-head attention over the pixels of each frame by itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = RMSNorm(channels, num_axes=2)
        self.to_qkv = Conv2d(channels, 3 * channels, kernel_size=1)
        self.proj = Conv2d(channels, channels, kernel_size=1)

    def construct(self, x: Tensor) -> Tensor:
        total, channels, height, width = x.shape
        tokens = self.to_qkv(self.norm(x)).reshape(total, 3 * channels, height * width)
        query, key, value = ops.chunk(tokens.transpose(0, 2, 1), 3, axis=2)  # (B*T, H*W, C)
        h = attend(query, key, value).transpose(0, 2, 1)
        return x + self.proj(h.reshape(x.shape))


class MidBlock(nn.Cell):
    """Block, attention, block."""

    num_pasts = 4

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attentions = nn.CellList([FrameAttention(channels)])
        self.resnets = nn.CellList([ResidualBlock(channels, channels) for _ in range(2)])

    def construct(
        self, x: Tensor, num_clips: int, past: Past, keeps_past: bool
    ) -> tuple[Tensor, Past]:
        x, first = self.resnets[0](x, num_clips, past[:2], keeps_past)
        x = self.attentions[0](x)
        x, second = self.resnets[1](x, num_clips, past[2:], keeps_past)
        return x, first + second


class Downsample(nn.Cell):
    """Halve H and W by a 3x3 convolution; then, where asked, T by one over three frames.

    The first frame of a clip passes the second untouched: T' = 1 + (T - 1) / 2.
    """

    def __init__(self, channels: int, *, halves_time: bool) -> None:
        super().__init__()
        self.num_pasts = int(halves_time)  # the last frame
        conv = Conv2d(channels, channels, kernel_size=3, stride=2, padding=(0, 1, 0, 1))
        self.resample = nn.CellList([nn.Identity(), conv])  # checkpoints count the padding
        self.time_conv = None
        if halves_time:
            self.time_conv = Conv3d(
                channels, channels, kernel_size=(3, 1), stride=(2, 1), time_padding=(1, 0)
            )

    def construct(
        self, x: Tensor, num_clips: int, past: Past, keeps_past: bool
    ) -> tuple[Tensor, Past]:
        x = self.resample[1](x)
        if self.time_conv is None:
            return x, ()
        num_frames = x.shape[0] // num_clips
        kept = (take_frames(x, num_frames, (num_frames - 1,)),) if keeps_past else ()
        return self.halve_time(x, num_frames, past), kept

    def halve_time(self, x: Tensor, num_frames: int, past: Past) -> Tensor:
        if len(past) > 0:
            return self.time_conv(x, num_frames, past[0])
        if num_frames == 1:
            return x
        first, rest = _split_first(x, num_frames)
        return join_frames(first, self.time_conv(rest, num_frames - 1, first), first.shape[0])


class Upsample(nn.Cell):
    """Where asked, double T by a causal convolution; then H and W, and convolve each frame by 3x3.

    The first frame of a clip stays one and is not a context for the others: T' = 1 + 2 (T - 1).
    """

    def __init__(self, in_channels: int, out_channels: int, *, doubles_time: bool) -> None:
        super().__init__()
        self.num_pasts = int(doubles_time)
        self.time_conv = None
        if doubles_time:
            self.time_conv = CausalConv(in_channels, 2 * in_channels, kernel_size=(3, 1))
        conv = DoubledConv2d(in_channels, out_channels)
        self.resample = nn.CellList([nn.Identity(), conv])  # checkpoints count the doubling

    def construct(
        self, x: Tensor, num_clips: int, past: Past, keeps_past: bool
    ) -> tuple[Tensor, Past]:
        kept = ()
        if self.time_conv is not None:
            x, kept = self.double_time(x, num_clips, past, keeps_past)
        return self.resample[1](x), kept

    def double_time(
        self, x: Tensor, num_clips: int, past: Past, keeps_past: bool
    ) -> tuple[Tensor, Past]:
        shape = x.shape[1:]
        num_frames = x.shape[0] // num_clips
        if len(past) > 0:
            # (B*T, 2 C, H, W) -> (B*T*2, C, H, W): the halves of the channels are two frames
            y, kept = self.time_conv(x, num_clips, past, keeps_past)
            return y.reshape(-1, *shape), kept
        if num_frames == 1:
            return x, (ops.zeros_like(ops.concat((x, x), 0)),) if keeps_past else ()
        first, rest = _split_first(x, num_frames)
        y, kept = self.time_conv(rest, num_clips, past, keeps_past)
        return join_frames(first, y.reshape(-1, *shape), num_clips), kept
