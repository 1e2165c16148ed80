"""Convolutions in space, in time, and in both.

Layouts and precision: see `mg.models.layers`.
"""

import math

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Uniform, initializer

from mg.models.layers.devices import operations

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
    """y_i = b + sum_k W_k x_{s i + k - 1}: 1-D convolution over time, past the ends the end frames.

    Kernel 3 or 1, stride s, as many channels out as in; it begins as the centre frame unchanged.
    """

    def __init__(self, channels: int, *, kernel_size: int = 3, stride: int = 1) -> None:
        super().__init__()
        # (Cout, Cin, 1, k), the shape that published weights have
        self.weight = Parameter(Tensor(centric_kernel(channels, kernel_size)), name="weight")
        self.bias = zero_bias(channels)
        self.convolve = operations().ConvolveTime(channels, kernel_size, stride=stride)
        self.bias_add = operations().ChannelBias()

    def add_bias(self, x: Tensor) -> Tensor:
        return self.bias_add(x, self.bias.astype(x.dtype))

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        """Return (B*ceil(T/s), C, H, W) of folded frames x (B*T, C, H, W), with T `num_frames`."""
        return self.add_bias(self.convolve(x, num_frames, self.weight))


class Conv2_5d(nn.Cell):
    """Movie Gen's Conv2.5d: a 2-D convolution over space, then a 1-D convolution over time.

        u_t = b_s + W_s * x_t                  y_t = b_t + sum_k W_k u_{t+k-1}

    Kernel 3 in space goes with kernel 3 in time, 1 with 1; time is padded by repetition.

    Source: Movie Gen (arXiv 2410.13720) section 3.1.1.
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
        self.conv_temp = TemporalConv(out_channels, kernel_size=kernel_size)
        self.convolve = operations().ConvolveSpaceThenTime(in_channels, out_channels, kernel_size)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        return self.with_spatial_weight(x, num_frames, self.conv_spat.weight)

    def with_spatial_weight(self, x: Tensor, num_frames: int, spatial: Tensor) -> Tensor:
        """Return the result with another spatial weight, one to differentiate by for instance.

        Args:
            x: folded frames (B*T, Cin, H, W).
            num_frames: T.
            spatial: (Cout, Cin, k, k), in the place of `conv_spat.weight`.
        """
        temporal = self.conv_temp
        return self.convolve(
            x, num_frames, spatial, self.conv_spat.bias, temporal.weight, temporal.bias
        )
