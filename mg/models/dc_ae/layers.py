"""What a Video DC-AE is made of: convolutions with RMS norm, shortcuts by shuffling, attention.

Layouts: folded frames (B*T, C, H, W), see `mg.models.layers`. Convolutions see zeros around the
clip, in time as in space; none is causal.
"""

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from mg.models.dc_ae.config import HEAD_WIDTH
from mg.models.layers.convolution3d import Conv3d, tap_of
from mg.models.layers.devices import operations
from mg.models.layers.frames import take_frames

__all__ = [
    "ChannelRMSNorm",
    "ConvLayer",
    "DoublingConv",
    "GatedConv",
    "LinearAttention",
    "ResBlock",
    "averaged_down",
    "repeated_up",
]

NORM_EPSILON = 1e-5
ATTENTION_EPSILON = 1e-15
EXPANSION = 4  # of the gated convolution's inside
AGGREGATION_KERNEL = 5


class ChannelRMSNorm(nn.Cell):
    """y = weight x / sqrt(mean(x^2) + eps) + bias with the mean over channels, in fp32."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = Parameter(Tensor(np.ones(channels, np.float32)), name="weight")
        self.bias = Parameter(Tensor(np.zeros(channels, np.float32)), name="bias")
        self.shares = Tensor(np.full(channels, 1 / channels, np.float32))
        self.sum = operations().SumChannels()
        self.scale = operations().ScaleChannelsAndPixels()
        self.bias_add = operations().ChannelBias()

    def construct(self, x: Tensor) -> Tensor:
        values = x.astype(ms.float32)
        mean_square = self.sum(values * values, self.shares)  # (N, 1, H, W)
        y = self.scale(values, self.weight, ops.rsqrt(mean_square + NORM_EPSILON))
        return self.bias_add(y, self.bias).astype(x.dtype)


def zero_padded(in_channels: int, out_channels: int, *, kernel_size: int, **options) -> Conv3d:
    """Return a 3-D convolution that keeps the size, between zeros in time and in space."""
    half = kernel_size // 2
    return Conv3d(
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        time_padding=(half, half),
        pad_time_with="zeros",
        **options,
    )


class ConvLayer(nn.Cell):
    """Convolution; RMS norm if asked for, in which case the convolution has no bias.

    Args:
        in_channels, out_channels: channels.
        kernel_size: in time and in space.
        has_norm: whether a norm follows.
        options: as of `Conv3d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        has_norm: bool = False,
        **options,
    ) -> None:
        super().__init__()
        options = {"has_bias": not has_norm, **options}
        self.conv = zero_padded(in_channels, out_channels, kernel_size=kernel_size, **options)
        self.norm = ChannelRMSNorm(out_channels) if has_norm else None

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        x = self.conv(x, num_frames)
        return x if self.norm is None else self.norm(x)


class DoublingConv(nn.Cell):
    """Repeat each pixel, and each frame if asked to; then a 3x3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = ConvLayer(in_channels, out_channels)
        self.convolve = operations().ConvolveDoubled(3 * in_channels, out_channels)
        self.convolve_one = operations().ConvolveDoubled(in_channels, out_channels)

    def construct(self, x: Tensor, num_frames: int, *, doubles_time: bool) -> Tensor:
        """Return (B*T', Cout, 2H, 2W), T' = 2T or T, of x (B*T, Cin, H, W)."""
        conv = self.conv.conv
        weight = conv.weight.astype(x.dtype)  # (Cout, Cin, 3, 3, 3)
        if doubles_time:
            frames = tuple(frame // 2 for frame in range(2 * num_frames))
            x, num_frames = take_frames(x, num_frames, frames), 2 * num_frames
        if num_frames == 1:
            return conv.with_bias(self.convolve_one(x, tap_of(weight, 1)))
        # Frames are stacked before their pixels are doubled, which the convolution does by itself.
        stack = conv.stacked(x, num_frames, None)  # (B*T', 3 Cin, H, W)
        return conv.with_bias(self.convolve(stack, weight.reshape(weight.shape[0], -1, 3, 3)))


class ResBlock(nn.Cell):
    """norm(conv(SiLU(conv(x)))), without the x that is added to it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvLayer(channels, channels)
        self.conv2 = ConvLayer(channels, channels, has_norm=True)
        self.silu = operations().SiLU()

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        return self.conv2(self.silu(self.conv1(x, num_frames)), num_frames)


class GatedConv(nn.Cell):
    """norm(W_3 (u SiLU(g))) with (u, g) = depthwise(SiLU(W_1 x)): `GLUMBConv`.

    Source: SANA (arXiv 2410.10629) section 2.2, Mix-FFN.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inside = inside = EXPANSION * channels
        self.inverted_conv = ConvLayer(channels, 2 * inside, kernel_size=1)
        self.depth_conv = ConvLayer(2 * inside, 2 * inside, groups=2 * inside)
        self.point_conv = ConvLayer(inside, channels, kernel_size=1, has_norm=True)
        self.silu = operations().SiLU()

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        x = self.depth_conv(self.silu(self.inverted_conv(x, num_frames)), num_frames)
        value, gate = ops.split(x, self.inside, axis=1)
        return self.point_conv(value * self.silu(gate), num_frames)


class LinearAttention(nn.Cell):
    """Attention of all pixels of a clip to each other, in linear time: `LiteMLA`.

        o_i = (sum_j v_j relu(k_j)^T) relu(q_i) / (sum_j relu(k_j)^T relu(q_i) + eps)

    in fp32, with one set of heads on q, k, v and one on what a 5x5x5 neighbourhood makes of them.

    Source: EfficientViT (arXiv 2205.14756) section 3.1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 3 * channels
        self.qkv = ConvLayer(channels, wide, kernel_size=1, has_bias=False)
        options = {"has_bias": False}
        near = zero_padded(wide, wide, kernel_size=AGGREGATION_KERNEL, groups=wide, **options)
        mixed = zero_padded(wide, wide, kernel_size=1, groups=wide // HEAD_WIDTH, **options)
        self.aggreg = nn.CellList([nn.CellList([near, mixed])])
        self.proj = ConvLayer(2 * channels, channels, kernel_size=1, has_norm=True)
        self.relu = ops.ReLU()
        self.sum = ops.ReduceSum(keep_dims=True)
        self.multiply = ops.BatchMatMul()
        self.multiply_transposed = ops.BatchMatMul(transpose_b=True)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        total, _, height, width = x.shape
        qkv = self.qkv(x, num_frames)
        near = self.aggreg[0][1](self.aggreg[0][0](qkv, num_frames), num_frames)
        heads = ops.concat((qkv, near), 1).astype(ms.float32)
        heads = heads.reshape(-1, 3 * HEAD_WIDTH, height * width)  # (B*T*heads, 3 d, H W)
        query, key, value = ops.split(heads, HEAD_WIDTH, axis=1)
        query, key = self.relu(query), self.relu(key)
        num_clips = total // num_frames
        values = self.over_clip(self.multiply_transposed(value, key), num_clips)  # (..., d, d)
        weights = self.over_clip(self.sum(key, 2).reshape(-1, 1, HEAD_WIDTH), num_clips)
        y = self.multiply(values, query)
        y = y / (self.multiply(weights, query) + ATTENTION_EPSILON)
        return self.proj(y.reshape(total, -1, height, width).astype(x.dtype), num_frames)

    def over_clip(self, x: Tensor, num_clips: int) -> Tensor:
        """Return x (B*T*heads, m, n) summed over the frames of its clip, for each of them."""
        num_heads = self.proj.conv.in_channels // HEAD_WIDTH
        frames = x.reshape(num_clips, -1, num_heads * x.shape[1] * x.shape[2])
        return ops.broadcast_to(self.sum(frames, 1), frames.shape).reshape(x.shape)


def averaged_down(x: Tensor, out_channels: int, factors: tuple[int, int]) -> Tensor:
    """Return blocks of frames and pixels as channels, averaged in groups of neighbours.

    Args:
        x: (B*T, C, H, W).
        out_channels: how many groups there are; a divisor of C t s s.
        factors: t and s of the blocks, t x s x s.

    Returns:
        (B*T/t, out_channels, H/s, W/s).
    """
    t, s = factors
    total, channels, height, width = x.shape
    x = x.reshape(total // t, t, channels, height // s, s, width // s, s)
    x = x.transpose(0, 2, 1, 4, 6, 3, 5)  # (B*T/t, C, t, s, s, H/s, W/s)
    return x.reshape(total // t, out_channels, -1, height // s, width // s).mean(2)


def repeated_up(x: Tensor, out_channels: int, factors: tuple[int, int]) -> Tensor:
    """Return channels, repeated to as many as it takes, as blocks of frames and pixels.

    Args:
        x: (B*T, C, H, W).
        out_channels: of the result; out_channels t s s is a multiple of C.
        factors: t and s of the blocks, t x s x s.

    Returns:
        (B*T*t, out_channels, H*s, W*s).
    """
    t, s = factors
    total, channels, height, width = x.shape
    times = out_channels * t * s * s // channels
    x = x.reshape(total, channels, 1, height, width)
    x = ops.broadcast_to(x, (total, channels, times, height, width))
    x = x.reshape(total, out_channels, t, s, s, height, width)
    x = x.transpose(0, 2, 1, 5, 3, 6, 4)  # (B*T, t, C', H, s, W, s)
    return x.reshape(total * t, out_channels, height * s, width * s)
