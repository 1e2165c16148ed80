"""Convolutions in space, in time, and in both.

Layouts and precision: see `mg.models.layers`.
"""

import math

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Uniform, initializer
from mindspore.ops import constexpr

from mg.models.layers.devices import operations
from mg.models.layers.frames import channel_rows, folded_frames

__all__ = ["Conv2_5d", "Conv2d", "TemporalConv", "centric_kernel", "drawn_weight", "zero_bias"]


def centric_kernel(channels: int, kernel_size: int) -> np.ndarray:
    """Return (C, C, 1, k) temporal weights that hand each frame through unchanged."""
    weight = np.zeros((channels, channels, 1, kernel_size), np.float32)
    weight[np.arange(channels), np.arange(channels), 0, kernel_size // 2] = 1.0
    return weight


def drawn_weight(shape: tuple[int, ...], *, starts_at_zero: bool = False) -> Parameter:
    """Return a parameter of random values, or of zeros."""
    # Uniform with variance 1 / fan_in: the output is as large as the input, so that the signal
    # survives the layers between pixels and latent that have no residual connection.
    fan_in = math.prod(shape[1:])
    weight = Parameter(initializer(Uniform(math.sqrt(3.0 / fan_in)), shape), name="weight")
    if starts_at_zero:  # after the draw, so that a seed gives all other weights the same values
        weight.set_data(ops.zeros_like(weight))
    return weight


def zero_bias(size: int) -> Parameter:
    """Return a parameter of zeros."""
    return Parameter(Tensor(np.zeros(size, np.float32)), name="bias")


class Conv2d(nn.Cell):
    """2-D convolution of each frame, computing in the dtype of its input."""

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
        self.weight = drawn_weight(shape, starts_at_zero=starts_at_zero)
        self.bias = zero_bias(out_channels)
        self.conv2d = operations().convolution(
            in_channels, out_channels, kernel_size, stride=stride, padding=padding
        )
        self.bias_add = operations().ChannelBias()

    def with_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the convolution, without bias, with `weight` in the place of the cell's own."""
        return self.conv2d(x, weight.astype(x.dtype))

    def with_bias(self, y: Tensor) -> Tensor:
        return self.bias_add(y, self.bias.astype(y.dtype))

    def construct(self, x: Tensor) -> Tensor:
        return self.with_bias(self.with_weight(x, self.weight))


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
        self.bias_add = operations().ChannelBias()
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
        self.conv_spat = Conv2d(
            in_channels,
            out_channels,
            kernel_size=kernel_size,
            padding=kernel_size // 2,
            starts_at_zero=starts_at_zero,
        )
        self.kernel_size = kernel_size
        self.conv_temp = TemporalConv(out_channels, kernel_size=kernel_size)
        self.bias_add = operations().ChannelBias()
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
