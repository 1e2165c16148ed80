"""The parts of Open-Sora's temporal VAE: causal convolution, residual block, time resampling.

Layouts
    clip     (B, C, T, H, W)   at public borders
    folded   (B*T, C, H, W)    everywhere in here: frames of a clip follow each other
Every cell takes a folded tensor `x` and the number `num_frames` (T) of frames per clip. Each
computes in the dtype of `x` and casts its fp32 weights to it; statistics of normalisation are fp32.

Source: github.com/hpcaitech/Open-Sora, release v1.2.
"""

import math

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Uniform, initializer
from mindspore.ops import constexpr

from mg.models.opensora_vae.config import TemporalVAEConfig
from mg.models.tae.layers import GroupNorm

__all__ = ["CausalConv3d", "ResBlock", "double_time", "make_blocks", "make_norm"]

NORM_EPSILON = 1e-5


@constexpr
def _causal_taps(batch: int, num_frames: int, kernel: int, stride: int) -> Tensor:
    """Return which folded frame each tap of each output frame sees, int32 (num_out * kernel,).

    Output frame t ends its window at input frame stride * t + stride - 1. Frames before the first
    are zeros: the frame number `batch * num_frames`, behind all others.
    """
    ends = np.arange(stride - 1, num_frames, stride)
    frames = ends[:, None] + np.arange(1 - kernel, 1)  # (T', kernel)
    starts = num_frames * np.arange(batch)[:, None, None]
    index = np.where(frames < 0, batch * num_frames, starts + frames)
    return Tensor(index.reshape(-1).astype(np.int32))


class _Conv3dWeights(nn.Cell):
    """Weights of a 3-D convolution under the names `weight` and `bias`."""

    def __init__(self, shape: tuple[int, ...], *, has_bias: bool) -> None:
        super().__init__()
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        self.weight = Parameter(initializer(Uniform(bound), shape), name="weight")
        self.bias = (
            Parameter(Tensor(np.zeros(shape[0], np.float32)), name="bias") if has_bias else None
        )


class CausalConv3d(nn.Cell):
    """3-D convolution that sees this frame and those before it, never those after it.

    All axes are padded with zeros: height and width on both sides, time at the front, by k - 1
    frames (k - 2 at stride 2). The taps in time are stacked along the channels, so that one 2-D
    convolution does them all: devices have it in every precision, and CPUs are not slower with it.

    Args:
        in_channels, out_channels: channels.
        kernel_size: along all three axes, odd.
        stride: along time.
        has_bias: whether a bias is added.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        has_bias: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride
        shape = (out_channels, in_channels, kernel_size, kernel_size, kernel_size)
        self.conv = _Conv3dWeights(shape, has_bias=has_bias)
        self.conv2d = ops.Conv2D(out_channels, kernel_size, pad_mode="pad", pad=kernel_size // 2)
        self.gather = ops.Gather()
        self.bias_add = ops.BiasAdd()

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        total, channels, height, width = x.shape
        size = self.kernel_size
        if size > 1:
            index = _causal_taps(total // num_frames, num_frames, size, self.stride)
            zeros = ops.zeros((1, channels, height, width), x.dtype)
            x = self.gather(ops.concat((x, zeros), 0), index, 0)  # (B*T'*k, C, H, W)
            x = x.reshape(-1, size * channels, height, width)
        # (Cout, Cin, k, k, k) -> (Cout, k*Cin, k, k), taps in time before channels
        weight = self.conv.weight.transpose(0, 2, 1, 3, 4)
        weight = weight.reshape(-1, size * channels, size, size)
        y = self.conv2d(x, weight.astype(x.dtype))
        if self.conv.bias is not None:
            y = self.bias_add(y, self.conv.bias.astype(x.dtype))
        return y


def make_norm(channels: int, config: TemporalVAEConfig) -> GroupNorm:
    """Return GroupNorm over (C/G, T, H, W) of each clip, with the epsilon of this network."""
    return GroupNorm(channels, config.num_groups, epsilon=NORM_EPSILON)


class ResBlock(nn.Cell):
    """x + conv(SiLU(norm(conv(SiLU(norm(x)))))), with a 1x1x1 on x if the channels change."""

    def __init__(self, in_channels: int, out_channels: int, config: TemporalVAEConfig) -> None:
        super().__init__()
        self.norm1 = make_norm(in_channels, config)
        self.conv1 = CausalConv3d(in_channels, out_channels, has_bias=False)
        self.norm2 = make_norm(out_channels, config)
        self.conv2 = CausalConv3d(out_channels, out_channels, has_bias=False)
        self.conv3 = (
            CausalConv3d(in_channels, out_channels, kernel_size=1, has_bias=False)
            if in_channels != out_channels
            else None
        )

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        h = self.conv1(ops.silu(self.norm1(x, num_frames)), num_frames)
        h = self.conv2(ops.silu(self.norm2(h, num_frames)), num_frames)
        if self.conv3 is not None:
            x = self.conv3(x, num_frames)
        return x + h


def make_blocks(in_channels: int, out_channels: int, config: TemporalVAEConfig) -> nn.CellList:
    """Return `num_res_blocks` residual blocks; the first changes the number of channels."""
    widths = [in_channels] + [out_channels] * config.num_res_blocks
    return nn.CellList(
        [ResBlock(widths[i], widths[i + 1], config) for i in range(config.num_res_blocks)]
    )


def double_time(x: Tensor) -> Tensor:
    """Return (B*T, 2C, H, W) as (B*2T, C, H, W): channel 2c + s becomes c of the s-th new frame."""
    total, channels, height, width = x.shape
    x = x.reshape(total, channels // 2, 2, height, width)
    return x.transpose(0, 2, 1, 3, 4).reshape(2 * total, channels // 2, height, width)
