"""Down- and upsampling of CausalVideoVAE, by the names in its config.

Every cell takes a folded tensor `x` (B*T, C, H, W) and the number `num_frames` (T) of frames per
clip. Halving time gives (T - 1) // 2 + 1 frames, doubling it 2 T - 1: the first frame stands for
itself. Names of parameters are Open-Sora-Plan's.
"""

import functools

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.ops import constexpr

from mg.models.causal_vae.blocks import CausalConv, TemporalAttention, make_resnet_block
from mg.models.causal_vae.names import MIX, MIX_ADVANCED
from mg.models.layers.convolution import Conv2d
from mg.models.layers.convolution3d import CausalConv3d, Conv3d
from mg.models.layers.devices import operations
from mg.models.layers.frames import mix_frames, take_frames
from mg.models.layers.normalisation import GroupNorm
from mg.models.layers.resampling import DoubledConv2d, linear_weights, resize_linear

__all__ = ["make_sampler"]


class ImageDownsample(nn.Cell):
    """Halve H and W of each frame: `Downsample`."""

    def __init__(self, channels: int, num_groups: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, kernel_size=3, stride=2, padding=(0, 1, 0, 1))

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        return self.conv(x)


class ConvDownsample(nn.Cell):
    """Halve H and W, and T where the stride says so, by a causal convolution.

    Args:
        channels: C.
        num_groups: without a meaning here, as in all samplers without normalisation.
        kernel_size, stride: in time and in space.
    """

    def __init__(
        self, channels: int, num_groups: int, *, kernel_size: tuple[int, int], stride: tuple
    ) -> None:
        super().__init__()
        self.conv = CausalConv(
            channels,
            channels,
            kernel_size=kernel_size,
            stride=stride,
            space_padding=(0, 1, 0, 1),
        )

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        return self.conv(x, num_frames)


@constexpr
def _means_of_three(num_frames: int) -> Tensor:
    """Return the weights (T', T) of means of frames 2t-2, 2t-1, 2t, the first frame repeated."""
    weights = np.zeros(((num_frames - 1) // 2 + 1, num_frames), np.float32)
    for row in range(len(weights)):
        for frame in range(2 * row - 2, 2 * row + 1):
            weights[row, max(frame, 0)] += 1 / 3
    return Tensor(weights)


class TimeDownsample(nn.Cell):
    """Halve T by means of three frames: `TimeDownsample2x`."""

    def __init__(self, channels: int, num_groups: int) -> None:
        super().__init__()

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        return mix_frames(x, num_frames, _means_of_three(num_frames))


class MixedTimeDownsample(nn.Cell):
    """Those means mixed with a convolution of stride 2: `TimeDownsampleRes2x`.

    y = a mean(x) + (1 - a) conv(x)      a = sigmoid(mix_factor)
    """

    def __init__(self, channels: int, num_groups: int) -> None:
        super().__init__()
        self.conv = CausalConv3d(channels, channels, kernel_size=3, stride=(2, 1))
        self.mix_factor = _mix_factor(MIX)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        means = mix_frames(x, num_frames, _means_of_three(num_frames))
        return mixed(means, self.conv(x, num_frames), self.mix_factor)


class AdvancedTimeDownsample(nn.Cell):
    """The same with a residual block and attention before the convolution.

    `TimeDownsampleResAdv2x`. All of them see the first frame three times.
    """

    def __init__(self, channels: int, num_groups: int) -> None:
        super().__init__()
        self.attn = TemporalAttention(channels, num_groups)
        self.res = make_resnet_block("ResnetBlock3D", channels, channels, num_groups)
        self.conv = Conv3d(channels, channels, kernel_size=3, stride=(2, 1))
        self.mix_factor = _mix_factor(MIX_ADVANCED)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        means = mix_frames(x, num_frames, _means_of_three(num_frames))
        padded = num_frames + 2
        h = take_frames(x, num_frames, _first_thrice(num_frames))
        h = self.attn(self.res(h, padded), padded)
        return mixed(means, self.conv(h, padded), self.mix_factor)


@constexpr
def _first_thrice(num_frames: int) -> tuple[int, ...]:
    return (0, 0, *range(num_frames))


def mixed(resampled: Tensor, learned: Tensor, mix_factor: Tensor) -> Tensor:
    """Return a resampled + (1 - a) learned with a = sigmoid(mix_factor), which is (1,)."""
    share = ops.sigmoid(mix_factor).astype(resampled.dtype)
    return share * resampled + (1 - share) * learned


def _mix_factor(value: float) -> Parameter:
    return Parameter(Tensor(np.full(1, value, np.float32)), name="mix_factor")


class ImageUpsample(nn.Cell):
    """Double H and W of each frame, nearest neighbour, then convolve: `Upsample`."""

    def __init__(self, channels: int, num_groups: int) -> None:
        super().__init__()
        self.conv = DoubledConv2d(channels, channels)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        return self.conv(x)


class SpatialUpsample(nn.Cell):
    """The same with a weight of 1x3x3: `SpatialUpsample2x`."""

    def __init__(self, channels: int, num_groups: int) -> None:
        super().__init__()
        self.conv = CausalConv(channels, channels, kernel_size=(1, 3))
        self.convolve = operations().ConvolveDoubled(channels, channels)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        weight = self.conv.own_weight.astype(x.dtype)
        y = self.convolve(x, weight.reshape(x.shape[1], x.shape[1], 3, 3))
        return self.conv.conv.with_bias(y)


class LinearUpsample(nn.Cell):
    """Double H and W, and T where asked, linearly; then a causal 3x3x3 convolution.

    `Spatial2x3DUpsample` and `Spatial2xTime2x3DUpsample`.
    """

    def __init__(self, channels: int, num_groups: int, *, doubles_time: bool) -> None:
        super().__init__()
        self.doubles_time = doubles_time
        self.conv = CausalConv(channels, channels, kernel_size=3)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        if self.doubles_time:
            x = double_time(x, num_frames)
            num_frames = 2 * num_frames - 1
        return self.conv(resize_linear(x, num_frames, (1, 2, 2)), num_frames)


def double_time(x: Tensor, num_frames: int) -> Tensor:
    """Return folded clips of 2 T - 1 frames: those behind the first one doubled linearly."""
    if num_frames == 1:
        return x
    return mix_frames(x, num_frames, _doubling(num_frames))


@constexpr
def _doubling(num_frames: int) -> Tensor:
    weights = np.zeros((2 * num_frames - 1, num_frames), np.float32)
    weights[0, 0] = 1
    weights[1:, 1:] = linear_weights(num_frames - 1, 2)
    return Tensor(weights)


class TimeUpsample(nn.Cell):
    """Double T linearly: `TimeUpsample2x`."""

    def __init__(self, channels: int, num_groups: int) -> None:
        super().__init__()

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        return double_time(x, num_frames)


class MixedTimeUpsample(nn.Cell):
    """Double T linearly, then mix x with a convolution of x: `TimeUpsampleRes2x`.

    y = a x + (1 - a) conv(x)      a = sigmoid(mix_factor)
    """

    def __init__(self, channels: int, num_groups: int) -> None:
        super().__init__()
        self.conv = CausalConv(channels, channels, kernel_size=3)
        self.mix_factor = _mix_factor(MIX)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        x = double_time(x, num_frames)
        return mixed(x, self.conv(x, 2 * num_frames - 1), self.mix_factor)


class AdvancedTimeUpsample(nn.Cell):
    """The same with a residual block and attention before the convolution.

    `TimeUpsampleResAdv2x`. Its `norm` is among the weights, but nothing passes through it.
    """

    def __init__(self, channels: int, num_groups: int) -> None:
        super().__init__()
        self.res = make_resnet_block("ResnetBlock3D", channels, channels, num_groups)
        self.attn = TemporalAttention(channels, num_groups)
        self.norm = GroupNorm(channels, num_groups)
        self.conv = CausalConv(channels, channels, kernel_size=3)
        self.mix_factor = _mix_factor(MIX_ADVANCED)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        x = double_time(x, num_frames)
        num_frames = 2 * num_frames - 1
        h = self.attn(self.res(x, num_frames), num_frames)
        return mixed(x, self.conv(h, num_frames), self.mix_factor)


SAMPLERS = {
    "Downsample": ImageDownsample,
    "SpatialDownsample2x": functools.partial(ConvDownsample, kernel_size=(1, 3), stride=(1, 2)),
    "Spatial2x3DDownsample": functools.partial(ConvDownsample, kernel_size=(3, 3), stride=(1, 2)),
    "Spatial2xTime2x3DDownsample": functools.partial(
        ConvDownsample, kernel_size=(3, 3), stride=(2, 2)
    ),
    "TimeDownsample2x": TimeDownsample,
    "TimeDownsampleRes2x": MixedTimeDownsample,
    "TimeDownsampleResAdv2x": AdvancedTimeDownsample,
    "Upsample": ImageUpsample,
    "SpatialUpsample2x": SpatialUpsample,
    "Spatial2x3DUpsample": functools.partial(LinearUpsample, doubles_time=False),
    "Spatial2xTime2x3DUpsample": functools.partial(LinearUpsample, doubles_time=True),
    "TimeUpsample2x": TimeUpsample,
    "TimeUpsampleRes2x": MixedTimeUpsample,
    "TimeUpsampleResAdv2x": AdvancedTimeUpsample,
}


def make_sampler(name: str, channels: int, num_groups: int) -> nn.Cell | None:
    """Return the sampler that a config names; None for ""."""
    return SAMPLERS[name](channels, num_groups) if name else None
