"""The parts of the TAE: Conv2.5d, residual block, attention.

Layouts
    video   (B, C, T, H, W)   at public borders
    folded  (B*T, C, H, W)    everywhere in here: frames of a clip follow each other
Every cell takes a folded tensor `x` and the number `num_frames` (T) of frames per clip.
Precision: each cell computes in the dtype of `x` and casts its fp32 weights to it; statistics of
normalisation and softmax are always fp32.

Source: Movie Gen (arXiv 2410.13720) section 3.1.1.
"""

import math

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Uniform, initializer
from mindspore.ops import constexpr

from mg.device import runs_on_cpu
from mg.models.tae.activation import SiLU
from mg.models.tae.convolution import ChannelBias, SameSizeConv2d
from mg.models.tae.normalisation import GroupNorm

__all__ = [
    "Conv2_5d",
    "ResnetBlock",
    "SpatialAttention",
    "SpatialConv",
    "TemporalAttention",
    "TemporalConv",
    "centric_kernel",
    "channel_rows",
    "fold_frames",
    "folded_frames",
    "make_attention",
    "unfold_frames",
]


def fold_frames(video: Tensor) -> Tensor:
    """Return (B, C, T, H, W) as (B*T, C, H, W)."""
    batch, channels, frames, height, width = video.shape
    if frames == 1:
        return video.reshape(batch, channels, height, width)
    return video.transpose(0, 2, 1, 3, 4).reshape(batch * frames, channels, height, width)


def unfold_frames(x: Tensor, num_frames: int) -> Tensor:
    """Return (B*T, C, H, W) as (B, C, T, H, W); the inverse of `fold_frames`."""
    total, channels, height, width = x.shape
    if num_frames == 1:
        return x.reshape(total, channels, 1, height, width)
    x = x.reshape(total // num_frames, num_frames, channels, height, width)
    return x.transpose(0, 2, 1, 3, 4)


def centric_kernel(channels: int, kernel_size: int) -> np.ndarray:
    """Return (C, C, 1, k) temporal weights that hand each frame through unchanged."""
    weight = np.zeros((channels, channels, 1, kernel_size), np.float32)
    weight[np.arange(channels), np.arange(channels), 0, kernel_size // 2] = 1.0
    return weight


def _weight(shape: tuple[int, ...], *, starts_at_zero: bool) -> Parameter:
    # Uniform with variance 1 / fan_in: the output is as large as the input, so that the signal
    # survives the layers between pixels and latent that have no residual connection.
    fan_in = math.prod(shape[1:])
    weight = Parameter(initializer(Uniform(math.sqrt(3.0 / fan_in)), shape), name="weight")
    if starts_at_zero:  # after the draw, so that a seed gives all other weights the same values
        weight.set_data(ops.zeros_like(weight))
    return weight


def _bias(size: int) -> Parameter:
    return Parameter(Tensor(np.zeros(size, np.float32)), name="bias")


class SpatialConv(nn.Cell):
    """2-D convolution of each frame, kernel 1 or 3, computing in the dtype of its input."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        stride: int = 1,
        padding: int | tuple[int, int, int, int] = 0,  # (top, bottom, left, right)
        starts_at_zero: bool = False,
    ) -> None:
        super().__init__()
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.weight = _weight(shape, starts_at_zero=starts_at_zero)
        self.bias = _bias(out_channels)
        self.conv2d = ops.Conv2D(
            out_channels, kernel_size, pad_mode="pad", pad=padding, stride=stride
        )
        keeps_size = kernel_size > 1 and stride == 1 and padding == kernel_size // 2
        self.conv2d_on_cpu = (
            SameSizeConv2d(in_channels, out_channels, kernel_size) if keeps_size else None
        )
        self.on_cpu = runs_on_cpu()
        self.bias_add = ChannelBias()

    def with_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the convolution, without bias, with `weight` in the place of the cell's own."""
        weight = weight.astype(x.dtype)
        if self.on_cpu and self.conv2d_on_cpu is not None:
            return self.conv2d_on_cpu(x, weight)
        return self.conv2d(x, weight)

    def construct(self, x: Tensor) -> Tensor:
        return self.bias_add(self.with_weight(x, self.weight), self.bias.astype(x.dtype))


class TemporalConv(nn.Cell):
    """1-D convolution over time, kernel k in {1, 3}, as many channels out as in, centric start.

    y_t = b + sum_k W_k x_{t+k-1}: each tap is a 1x1 convolution, so three frame-shifted copies of
    the input are interleaved along the channels, in the order of the weights in memory, and one 1x1
    convolution does all taps.
    """

    def __init__(self, channels: int, *, kernel_size: int = 3) -> None:
        super().__init__()
        self.channels = channels
        self.kernel_size = kernel_size
        self.ones = Tensor(np.ones((kernel_size, 1), np.float32))
        # (Cout, Cin, 1, k), the shape that published weights have
        self.weight = Parameter(Tensor(centric_kernel(channels, kernel_size)), name="weight")
        self.bias = Parameter(Tensor(np.zeros(channels, np.float32)), name="bias")
        self.conv1x1 = ops.Conv2D(channels, 1, pad_mode="valid")
        self.gather = ops.Gather()
        self.bias_add = ChannelBias()
        # The primitive: the gradient of `ops.matmul` copies its operands to transpose them.
        self.matmul = ops.MatMul()

    def add_bias(self, x: Tensor) -> Tensor:
        return self.bias_add(x, self.bias.astype(x.dtype))

    def taps_sum(self) -> Tensor:
        """Return sum_k W_k (Cout, Cin): all that counts where all taps see the same frame."""
        # As a product with ones: on CPU a sum over a last axis this short takes five times longer.
        taps = self.weight.reshape(self.channels**2, self.kernel_size)
        return self.matmul(taps, self.ones).reshape(self.channels, self.channels)

    def of_constant(self, values: Tensor) -> Tensor:
        """Return sum_k W_k v, without bias, for one value v (C,) per channel."""
        # (sum_k W_k) v = [W_1 W_2 W_3] [v v v], which needs no sum of weights.
        values = self.matmul(values.reshape(-1, 1), self.ones.reshape(1, -1))  # (Cin, k)
        weight = self.weight.reshape(self.channels, -1)
        return self.matmul(weight, values.reshape(-1, 1)).reshape(-1)

    def on_equal_frames(self, x: Tensor) -> Tensor:
        """Return the result, without bias, where all taps see the same frame (T = 1)."""
        weight = self.taps_sum().reshape(self.channels, self.channels, 1, 1)
        return self.conv1x1(x, weight.astype(x.dtype))

    def on_taps(self, x: Tensor, rows: Tensor) -> Tensor:
        """Return the result, without bias, for output frames that see given input frames.

        Args:
            x: all input frames (N, C, H, W).
            rows: `channel_rows` of which of them each output frame sees, int32 (num_out * C * 3,).
        """
        _, channels, height, width = x.shape
        taps = self.gather(x.reshape(-1, height, width), rows, 0)  # (num_out * C * 3, H, W)
        taps = taps.reshape(-1, 3 * channels, height, width)
        # In this order of the channels the weight need not be transposed.
        weight = self.weight.reshape(self.channels, 3 * self.channels, 1, 1)
        return self.conv1x1(taps, weight.astype(x.dtype))


# Which frames of a folded batch the taps of each output frame see is settled while the graph is
# compiled; one gather with such an index is the shift, the padding and the stride.


def folded_frames(batch: int, num_frames: int, frames: np.ndarray) -> np.ndarray:
    """Return frame numbers (num_out, taps) of a clip as positions in a folded batch of clips.

    The result has the shape (batch * num_out, taps).
    """
    starts = num_frames * np.arange(batch)[:, None, None]
    return (starts + frames).reshape(-1, frames.shape[1])


def channel_rows(frames: np.ndarray, channels: int) -> Tensor:
    """Return the rows of (N * C, H, W) that put the taps of each channel next to each other.

    Args:
        frames: which of N frames each output frame sees, (num_out, taps).
        channels: C.

    Returns:
        int32 (num_out * C * taps,).
    """
    rows = channels * frames[:, None, :] + np.arange(channels)[:, None]  # (num_out, C, taps)
    return Tensor(rows.reshape(-1).astype(np.int32))


@constexpr
def _taps_at_stride_1(batch: int, num_frames: int, channels: int) -> Tensor:
    """Taps t-1, t, t+1, the end frames repeated."""
    frames = np.arange(num_frames)[:, None] + np.array([-1, 0, 1])
    frames = folded_frames(batch, num_frames, np.clip(frames, 0, num_frames - 1))
    return channel_rows(frames, channels)


class Conv2_5d(nn.Cell):
    """Movie Gen's Conv2.5d: a 2-D convolution over space, then a 1-D convolution over time.

    Kernel 3 in space goes with kernel 3 in time, 1 with 1; time is padded by repetition.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        starts_at_zero: bool = False,
    ) -> None:
        super().__init__()
        self.conv_spat = SpatialConv(
            in_channels,
            out_channels,
            kernel_size=kernel_size,
            padding=kernel_size // 2,
            starts_at_zero=starts_at_zero,
        )
        self.kernel_size = kernel_size
        self.conv_temp = TemporalConv(out_channels, kernel_size=kernel_size)
        self.bias_add = ChannelBias()
        self.matmul = ops.MatMul()  # the primitive, as in `TemporalConv`

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        return self.with_spatial_weight(x, num_frames, self.conv_spat.weight)

    def with_spatial_weight(self, x: Tensor, num_frames: int, spatial: Tensor) -> Tensor:
        """Return the result with another spatial weight, one to differentiate by for instance.

        Args:
            x: folded frames (B*T, Cin, H, W).
            num_frames: T.
            spatial: (Cout, Cin, k, k), in the place of `conv_spat.weight`.
        """
        channels = self.conv_temp.channels
        total, in_channels, height, width = x.shape
        pixels = total * height * width
        taps_see_one_frame = num_frames == 1 or self.kernel_size == 1
        num_weights = in_channels * self.kernel_size * self.kernel_size  # of one output channel
        if taps_see_one_frame and pixels > num_weights:
            # Both convolutions are one, (sum_k W_k) W_s: worth it where pixels outnumber weights.
            merged = self.matmul(self.conv_temp.taps_sum(), spatial.reshape(channels, -1))
            y = self.conv_spat.with_weight(x, merged.reshape(spatial.shape))
            return self.bias_add(y, self.merged_bias().astype(y.dtype))
        y = self.conv_spat.with_weight(x, spatial)
        # In the same way one bias instead of two is worth it only where pixels are many.
        has_one_bias = pixels > self.kernel_size * channels
        if not has_one_bias:
            y = self.bias_add(y, self.conv_spat.bias.astype(y.dtype))
        if taps_see_one_frame:
            y = self.conv_temp.on_equal_frames(y)
        else:
            rows = _taps_at_stride_1(total // num_frames, num_frames, channels)
            y = self.conv_temp.on_taps(y, rows)
        bias = self.merged_bias() if has_one_bias else self.conv_temp.bias
        return self.bias_add(y, bias.astype(y.dtype))

    def merged_bias(self) -> Tensor:
        """Return both biases as one (Cout,), (sum_k W_k) b_s + b_t.

        With repeated end frames every tap sees the spatial bias b_s.
        """
        return self.conv_temp.of_constant(self.conv_spat.bias) + self.conv_temp.bias


class ResnetBlock(nn.Cell):
    """x + Conv2.5d(dropout(SiLU(norm(Conv2.5d(SiLU(norm(x))))))), 1x1 on x if channels change.

    The last convolution starts at zero: a new network begins as its residual path alone.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        norm_groups: int,
        norm_per_frame: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = GroupNorm(in_channels, norm_groups, per_frame=norm_per_frame)
        self.conv1 = Conv2_5d(in_channels, out_channels)
        self.norm2 = GroupNorm(out_channels, norm_groups, per_frame=norm_per_frame)
        self.conv2 = Conv2_5d(out_channels, out_channels, starts_at_zero=True)
        self.silu = SiLU()
        self.dropout = nn.Dropout(p=dropout) if dropout > 0 else None
        self.nin_shortcut = (
            Conv2_5d(in_channels, out_channels, kernel_size=1)
            if in_channels != out_channels
            else None
        )

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        h = self.conv1(self.silu(self.norm1(x, num_frames)), num_frames)
        h = self.silu(self.norm2(h, num_frames))
        if self.dropout is not None:
            h = self.dropout(h)
        h = self.conv2(h, num_frames)
        if self.nin_shortcut is not None:
            x = self.nin_shortcut(x, num_frames)
        return x + h


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(C)) v for (N, L, C) tensors, with the softmax in fp32."""
    channels = query.shape[-1]
    # Scaling q instead of the product keeps fp16 products in range.
    logits = ops.bmm(query * channels**-0.5, key.transpose(0, 2, 1))  # (N, L, L)
    weights = ops.softmax(logits.astype(ms.float32), axis=-1).astype(value.dtype)
    return ops.bmm(weights, value)


class SpatialAttention(nn.Cell):
    """x plus single-head attention over the pixels of each frame."""

    def __init__(self, channels: int, *, norm_groups: int, norm_per_frame: bool = False) -> None:
        super().__init__()
        self.norm = GroupNorm(channels, norm_groups, per_frame=norm_per_frame)
        self.q = SpatialConv(channels, channels, kernel_size=1)
        self.k = SpatialConv(channels, channels, kernel_size=1)
        self.v = SpatialConv(channels, channels, kernel_size=1)
        self.proj_out = SpatialConv(channels, channels, kernel_size=1, starts_at_zero=True)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        total, channels, _, _ = x.shape
        h = self.norm(x, num_frames)
        # (B*T, C, H, W) -> (B*T, H*W, C)
        query = self.q(h).reshape(total, channels, -1).transpose(0, 2, 1)
        key = self.k(h).reshape(total, channels, -1).transpose(0, 2, 1)
        value = self.v(h).reshape(total, channels, -1).transpose(0, 2, 1)
        h = _attend(query, key, value).transpose(0, 2, 1).reshape(x.shape)
        return x + self.proj_out(h)


class Projection(nn.Cell):
    """A dense layer over the last axis, computing in the dtype of its input."""

    def __init__(self, channels: int, *, starts_at_zero: bool = False) -> None:
        super().__init__()
        self.weight = _weight((channels, channels), starts_at_zero=starts_at_zero)
        self.bias = _bias(channels)
        self.matmul = ops.MatMul(transpose_b=True)  # the primitive, as in `TemporalConv`

    def construct(self, x: Tensor) -> Tensor:
        tokens = x.reshape(-1, x.shape[-1])
        y = self.matmul(tokens, self.weight.astype(x.dtype))
        return (y + self.bias.astype(x.dtype)).reshape(x.shape)


class TemporalAttention(nn.Cell):
    """x plus single-head attention over the frames at each pixel."""

    def __init__(self, channels: int, *, norm_groups: int, norm_per_frame: bool = False) -> None:
        super().__init__()
        self.norm = GroupNorm(channels, norm_groups, per_frame=norm_per_frame)
        self.to_q = Projection(channels)
        self.to_k = Projection(channels)
        self.to_v = Projection(channels)
        self.proj_out = Projection(channels, starts_at_zero=True)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        total, channels, height, width = x.shape
        batch = total // num_frames
        h = self.norm(x, num_frames).reshape(batch, num_frames, channels, height * width)
        # (B, T, C, H*W) -> (B, H*W, T, C) -> (B*H*W, T, C)
        tokens = h.transpose(0, 3, 1, 2).reshape(-1, num_frames, channels)
        # One frame attends to itself alone: the softmax of a single logit is 1.
        h = self.to_v(tokens)
        if num_frames > 1:
            h = _attend(self.to_q(tokens), self.to_k(tokens), h)
        h = self.proj_out(h).reshape(batch, height * width, num_frames, channels)
        return x + h.transpose(0, 2, 3, 1).reshape(x.shape)


def make_attention(
    channels: int, attn_type: str, *, norm_groups: int, norm_per_frame: bool = False
) -> nn.CellList:
    """Return the attention cells of one place: spatial, then (for "vanilla") temporal."""
    kinds = [SpatialAttention, TemporalAttention] if attn_type == "vanilla" else [SpatialAttention]
    return nn.CellList(
        [kind(channels, norm_groups=norm_groups, norm_per_frame=norm_per_frame) for kind in kinds]
    )
