"""Operations on single values, and values repeated.

Multiplying with broadcasting keeps four times the tensor as a workspace here, and a sum over an
axis of more than two takes eight times longer. Products of matrices do neither, nor do their
gradients.
"""

import math

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import constexpr
from mindspore.ops.operations._grad_ops import SigmoidGrad

__all__ = [
    "GeLU",
    "PerClip",
    "PerToken",
    "ResizeNearest",
    "ScaleChannelsAndPixels",
    "SiLU",
    "SumChannels",
    "filled",
]


@constexpr
def filled(value: float, *shape: int) -> Tensor:
    """Return a constant of a shape."""
    return Tensor(np.full(shape, value, np.float32))


class SiLU(nn.Cell):
    """x sigmoid(x), which has no kernel of its own on CPU, with one operation less in its gradient.

    With s = sigmoid(x),

        dx = dy (s + x s (1 - s))
    """

    def __init__(self) -> None:
        super().__init__()
        self.sigmoid = ops.Sigmoid()
        self.sigmoid_grad = SigmoidGrad()

    def construct(self, x: Tensor) -> Tensor:
        return x * self.sigmoid(x)

    def bprop(self, x, out, dout):
        # Once dout is there, not before: otherwise s of the forward pass is kept until now.
        s = self.sigmoid(ops.depend(x, dout))
        return (dout * (s + self.sigmoid_grad(s, x)),)


class GeLU(nn.Cell):
    """x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), in a quarter of the time of its kernel on CPU.

    As (1 + tanh(u/2)) / 2 = sigmoid(u), it is x s with

        s = sigmoid(x (a + b x^2))        a = 2 sqrt(2/pi), b = 0.044715 a
        dx = dy (s + x s (1 - s) (a + 3 b x^2))

    in fp32, since x^2 leaves the range of fp16.
    """

    def __init__(self) -> None:
        super().__init__()
        self.a = 2 * math.sqrt(2 / math.pi)
        self.b = 0.044715 * self.a
        self.sigmoid = ops.Sigmoid()
        self.sigmoid_grad = SigmoidGrad()

    def construct(self, x: Tensor) -> Tensor:
        values = x.astype(ms.float32)
        return (values * self.gate(values)).astype(x.dtype)

    def gate(self, x: Tensor) -> Tensor:
        """Return s."""
        return self.sigmoid(x * (self.a + self.b * (x * x)))

    def bprop(self, x, out, dout):
        # Once dout is there, not before: otherwise s of the forward pass is kept until now.
        values = ops.depend(x, dout).astype(ms.float32)
        s = self.gate(values)
        slope = values * (self.a + 3 * self.b * (values * values))
        dx = dout.astype(ms.float32) * (s + self.sigmoid_grad(s, slope))
        return (dx.astype(x.dtype),)


class ResizeNearest(nn.Cell):
    """Repeat each pixel of x (N, C, H, W): (N, C, H * factor, W * factor).

    Along W as products with ones, along H as a gather of rows: a fifteenth of the time that the
    kernel for it takes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.matmul = ops.MatMul()
        self.gather = ops.Gather()

    def construct(self, x: Tensor, factor: int) -> Tensor:
        total, channels, height, width = x.shape
        pixels = _pixels_at_once(width)
        repeats = _repeats(pixels, factor).astype(x.dtype)
        rows = self.matmul(x.reshape(-1, pixels), repeats).reshape(-1, width * factor)
        rows = self.gather(rows, _each_repeated(total * channels * height, factor), 0)
        return rows.reshape(total, channels, height * factor, width * factor)


@constexpr
def _pixels_at_once(width: int) -> int:
    return math.gcd(width, 8)


@constexpr
def _repeats(size: int, factor: int) -> Tensor:
    """Return (size, size * factor), the product with which repeats each of `size` values."""
    return Tensor(np.repeat(np.eye(size, dtype=np.float32), factor, axis=1))


@constexpr
def _each_repeated(size: int, factor: int) -> Tensor:
    return Tensor(np.repeat(np.arange(size, dtype=np.int32), factor))


class SumChannels(nn.Cell):
    """sum_c a_c x_c over the channels of each pixel, a row times a matrix for each image.

    A tenth of the time that a sum over this axis takes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.repeat = ops.MatMul()
        self.matmul = ops.BatchMatMul()

    def construct(self, x: Tensor, weights: Tensor) -> Tensor:
        total, channels, height, width = x.shape
        rows = self.repeat(filled(1.0, total, 1), weights.reshape(1, channels))
        rows = rows.reshape(total, 1, channels)
        sums = self.matmul(rows, x.reshape(total, channels, height * width))
        return sums.reshape(total, 1, height, width)


class ScaleChannelsAndPixels(nn.Cell):
    """x_c a_c b with one factor per channel and one per pixel, whose products are made first."""

    def __init__(self) -> None:
        super().__init__()
        self.repeat = ops.MatMul()
        self.matmul = ops.BatchMatMul()

    def construct(self, x: Tensor, of_channels: Tensor, of_pixels: Tensor) -> Tensor:
        total, channels, height, width = x.shape
        columns = self.repeat(filled(1.0, total, 1), of_channels.reshape(1, channels))
        columns = columns.reshape(total, channels, 1)
        factors = self.matmul(columns, of_pixels.reshape(total, 1, height * width))
        return x * factors.reshape(x.shape)


class PerClip(nn.Cell):
    """Values per clip, repeated for its tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.matmul = ops.BatchMatMul()

    def construct(self, values: Tensor, num_tokens: int) -> Tensor:
        """Return values (B, D) as (B, L, D)."""
        values = values.reshape(values.shape[0], 1, values.shape[1])
        return self.matmul(filled(1.0, values.shape[0], num_tokens, 1), values)


class PerToken(nn.Cell):
    """Values per token, repeated for all clips."""

    def __init__(self) -> None:
        super().__init__()
        self.matmul = ops.MatMul()

    def construct(self, values: Tensor, batch_size: int) -> Tensor:
        """Return values (1, L, D) as (B, L, D)."""
        repeated = self.matmul(filled(1.0, batch_size, 1), values.reshape(1, -1))
        return repeated.reshape(batch_size, values.shape[1], values.shape[2])
