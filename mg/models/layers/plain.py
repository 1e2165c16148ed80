"""The arithmetic of layers as the papers define it, for every device; `cpu` has the same names."""

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import constexpr

from mg.models.layers.frames import channel_rows, folded_frames

__all__ = [
    "ChannelBias",
    "ConvolveDoubled",
    "ConvolveSpaceThenTime",
    "ConvolveTime",
    "GeLU",
    "NormaliseGroups",
    "PerClip",
    "PerToken",
    "ResizeNearest",
    "ScaleByRMS",
    "ScaleChannelsAndPixels",
    "SiLU",
    "StackRows",
    "SumChannels",
    "SwapChannels",
    "convolution",
]


Padding = int | tuple[int, int, int, int]  # of all sides, or (top, bottom, left, right)


def convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    padding: Padding = 0,
    groups: int = 1,
) -> ops.Conv2D:
    """Return the 2-D convolution of x (N, Cin, H, W) with a weight (Cout, Cin / groups, k, k)."""
    return ops.Conv2D(
        out_channels, kernel_size, pad_mode="pad", pad=padding, stride=stride, group=groups
    )


ChannelBias = ops.BiasAdd  # x + b for x (N, C, H, W) and b (C,)


class SiLU(nn.Cell):
    """x sigmoid(x), of any shape, in the dtype of x (arXiv 1702.03118)."""

    def construct(self, x: Tensor) -> Tensor:
        return ops.silu(x)


class GeLU(nn.Cell):
    """x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), of any shape (arXiv 1606.08415)."""

    def construct(self, x: Tensor) -> Tensor:
        return ops.gelu(x, approximate="tanh")


class SwapChannels(nn.Cell):
    """Swap the first two axes of a weight (Cout, Cin, h, w): its transposition, channel-wise."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()

    def construct(self, weight: Tensor) -> Tensor:
        return weight.transpose(1, 0, 2, 3)


class StackRows(nn.Cell):
    """Return rows (R', H, W) of (R, H, W) by their numbers, each as often as it is named."""

    def __init__(self) -> None:
        super().__init__()
        self.gather = ops.Gather()

    def construct(self, x: Tensor, rows: Tensor) -> Tensor:
        return self.gather(x, rows, 0)


class ResizeNearest(nn.Cell):
    """Repeat each pixel of x (N, C, H, W): (N, C, H * factor, W * factor)."""

    def construct(self, x: Tensor, factor: int) -> Tensor:
        return ops.ResizeNearestNeighbor((x.shape[2] * factor, x.shape[3] * factor))(x)


class ConvolveDoubled(nn.Cell):
    """Double H and W of x (N, Cin, H, W), nearest neighbour; then a 3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.resize = ResizeNearest()
        self.conv2d = convolution(in_channels, out_channels, 3, padding=1)

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the convolution (N, Cout, 2H, 2W) with a weight (Cout, Cin, 3, 3)."""
        return self.conv2d(self.resize(x, 2), weight)


class ConvolveTime(nn.Cell):
    """y_i = sum_k W_k x_{s i + k - 1} for folded clips, kernel 3 or 1, stride s.

    Past the ends the end frames are repeated. Each tap is a 1x1 convolution, so copies of the
    input, shifted by a frame each, are interleaved along the channels, in the order of the weights
    in memory, and one 1x1 convolution does all taps.
    """

    def __init__(self, channels: int, kernel_size: int, *, stride: int = 1) -> None:
        super().__init__()
        self.channels, self.kernel_size, self.stride = channels, kernel_size, stride
        self.conv1x1 = ops.Conv2D(channels, 1, pad_mode="valid")
        self.gather = ops.Gather()
        self.ones = Tensor(np.ones((kernel_size, 1), np.float32))
        # The primitive: the gradient of `ops.matmul` copies its operands to transpose them.
        self.matmul = ops.MatMul()

    def sees_one_frame(self, num_frames: int) -> bool:
        """Return whether all taps of an output frame see the same input frame."""
        return num_frames == 1 or self.kernel_size == 1

    def taps_sum(self, weight: Tensor) -> Tensor:
        """Return sum_k W_k (Cout, Cin): all that counts where all taps see the same frame."""
        # As a product with ones: on CPU a sum over a last axis this short takes five times longer.
        taps = weight.reshape(self.channels**2, self.kernel_size)
        return self.matmul(taps, self.ones).reshape(self.channels, self.channels)

    def construct(self, x: Tensor, num_frames: int, weight: Tensor) -> Tensor:
        """Return (B*ceil(T/s), C, H, W) of x (B*T, C, H, W) and a weight (C, C, 1, k)."""
        total, channels, height, width = x.shape
        if self.sees_one_frame(num_frames):
            weight = self.taps_sum(weight).reshape(channels, channels, 1, 1)
            return self.conv1x1(x, weight.astype(x.dtype))
        rows = _rows_of_taps(total // num_frames, num_frames, channels, self.stride)
        taps = self.gather(x.reshape(-1, height, width), rows, 0)  # (num_out * C * 3, H, W)
        taps = taps.reshape(-1, 3 * channels, height, width)
        # In this order of the channels the weight need not be transposed.
        return self.conv1x1(taps, weight.reshape(channels, -1, 1, 1).astype(x.dtype))


@constexpr
def _rows_of_taps(batch: int, num_frames: int, channels: int, stride: int) -> Tensor:
    """Return the `channel_rows` of the frames s i - 1, s i, s i + 1."""
    frames = np.arange(0, num_frames, stride)[:, None] + np.array([-1, 0, 1])
    frames = folded_frames(batch, num_frames, np.clip(frames, 0, num_frames - 1))
    return channel_rows(frames, channels)


class ConvolveSpaceThenTime(nn.Cell):
    """u_t = b_s + W_s * x_t, then y_t = b_t + sum_k W_k u_{t+k-1}, for folded clips."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.convolve_space = convolution(in_channels, out_channels, kernel_size, padding=padding)
        self.convolve_time = ConvolveTime(out_channels, kernel_size)
        self.bias_add = ChannelBias()

    def construct(
        self,
        x: Tensor,
        num_frames: int,
        spatial: Tensor,
        spatial_bias: Tensor,
        temporal: Tensor,
        temporal_bias: Tensor,
    ) -> Tensor:
        """Return (B*T, Cout, H, W) of x (B*T, Cin, H, W).

        Args:
            x: folded frames.
            num_frames: T.
            spatial: W_s (Cout, Cin, k, k).
            spatial_bias: b_s (Cout,).
            temporal: W_1 ... W_k as (Cout, Cout, 1, k).
            temporal_bias: b_t (Cout,).
        """
        u = self.convolve_space(x, spatial.astype(x.dtype))
        u = self.bias_add(u, spatial_bias.astype(x.dtype))
        y = self.convolve_time(u, num_frames, temporal)
        return self.bias_add(y, temporal_bias.astype(x.dtype))


class NormaliseGroups(nn.Cell):
    """y = weight (x - mean) / sqrt(variance + epsilon) + bias, with the statistics of each group.

    A group is C/G channels of all frames of a clip (B, T, C, H, W), in float32 (arXiv 1803.08494).
    """

    def __init__(self, channels: int, num_groups: int, epsilon: float) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.epsilon = epsilon
        self.mean = ops.ReduceMean(keep_dims=True)

    def construct(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        batch, num_frames = x.shape[:2]
        groups = x.reshape(batch, num_frames, self.num_groups, -1)
        centred = groups - self.mean(groups, (1, 3))
        variance = self.mean(ops.square(centred), (1, 3))
        y = (centred * ops.rsqrt(variance + self.epsilon)).reshape(x.shape)
        return y * weight.reshape(-1, 1, 1) + bias.reshape(-1, 1, 1)


class ScaleByRMS(nn.Cell):
    """x gain / sqrt(mean(x^2) + eps) over the last axis (arXiv 1910.07467)."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.mean = ops.ReduceMean(keep_dims=True)

    def construct(self, x: Tensor, gain: Tensor) -> Tensor:
        """Return it for x (B, L, D) and a gain (B, 1, D), both float32."""
        return x * ops.rsqrt(self.mean(x * x, -1) + self.eps) * gain


class SumChannels(nn.Cell):
    """sum_c a_c x_c over the channels of each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.sum = ops.ReduceSum(keep_dims=True)

    def construct(self, x: Tensor, weights: Tensor) -> Tensor:
        """Return it (N, 1, H, W) for x (N, C, H, W) and weights (C,), both float32."""
        return self.sum(x * weights.reshape(-1, 1, 1), 1)


class ScaleChannelsAndPixels(nn.Cell):
    """x_c a_c b with one factor per channel and one per pixel."""

    def construct(self, x: Tensor, of_channels: Tensor, of_pixels: Tensor) -> Tensor:
        """Return it for x (N, C, H, W) and factors (C,) and (N, 1, H, W), all float32."""
        return x * of_pixels * of_channels.reshape(-1, 1, 1)


class PerClip(nn.Cell):
    """Values per clip in a shape to multiply tokens with or to add to them."""

    def construct(self, values: Tensor, num_tokens: int) -> Tensor:
        """Return values (B, D) in a shape that goes with (B, L, D)."""
        return values.reshape(values.shape[0], 1, values.shape[1])


class PerToken(nn.Cell):
    """Values per token, the same for all clips, in a shape to add to tokens."""

    def construct(self, values: Tensor, batch_size: int) -> Tensor:
        """Return values (1, L, D) in a shape that goes with (B, L, D)."""
        return values
