"""The arithmetic of layers as the papers define it, for every device; `cpu` has the same names."""

from mindspore import Tensor, nn, ops

__all__ = [
    "ChannelBias",
    "ConvolveDoubled",
    "NormaliseGroups",
    "PerClip",
    "PerToken",
    "ResizeNearest",
    "ScaleByRMS",
    "SiLU",
    "StackRows",
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
