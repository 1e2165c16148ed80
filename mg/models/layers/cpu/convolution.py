"""Convolutions and their bias, with gradients that take little memory and time on CPU."""

import functools

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops.operations._grad_ops import Conv2DBackpropFilter

from mg.models.layers.plain import Padding
from mg.models.layers.plain import convolution as plain_convolution

__all__ = [
    "ChannelBias",
    "ConvolveDoubled",
    "DenseConv2d",
    "DepthwiseConv2d",
    "SwapChannels",
    "convolution",
]


def convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    padding: Padding = 0,
    groups: int = 1,
) -> nn.Cell | ops.Conv2D:
    """Return the 2-D convolution of x (N, Cin, H, W) with a weight (Cout, Cin / groups, k, k)."""
    if kernel_size > 1 and stride == 1 and padding in (0, kernel_size // 2):
        if groups == 1:
            return DenseConv2d(in_channels, out_channels, kernel_size, padding)
        if groups == out_channels:
            return DepthwiseConv2d(in_channels, out_channels, kernel_size, padding)
    options = {"stride": stride, "padding": padding, "groups": groups}
    return plain_convolution(in_channels, out_channels, kernel_size, **options)


class SwapChannels(nn.Cell):
    """Swap the first two axes of a weight (Cout, Cin, h, w): its transposition, channel-wise."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.rows = _swapped_rows(in_channels, out_channels)
        self.gather = ops.Gather()

    def construct(self, weight: Tensor) -> Tensor:
        # Each transposition of a graph keeps a list of positions there that is at least twice as
        # large as the tensor. This index is half as large as a list, and there is one of a size.
        out_channels, in_channels, height, width = weight.shape
        rows = weight.reshape(out_channels * in_channels, height * width)
        rows = self.gather(rows, self.rows, 0)
        return rows.reshape(in_channels, out_channels, height, width)


@functools.cache
def _swapped_rows(in_channels: int, out_channels: int) -> Tensor:
    """Return the numbers of the rows of (Cout * Cin, ...) in the order of (Cin * Cout, ...)."""
    rows = np.arange(out_channels * in_channels).reshape(out_channels, in_channels)
    return Tensor(np.ascontiguousarray(rows.T).reshape(-1).astype(np.int32))


def _reversal(kernel_size: int) -> Tensor:
    """Return (k*k, k*k), which turns kernels (..., k*k) by 180 degrees.

    As a product it takes a sixth of the time of `ops.ReverseV2`.
    """
    return Tensor(np.ascontiguousarray(np.eye(kernel_size**2, dtype=np.float32)[::-1]))


class _TurnKernel(nn.Cell):
    """The weight (Cin, Cout, k, k) of the transposition of a convolution, from (Cout, Cin, k, k).

    Channels are swapped, and each kernel is turned by 180 degrees.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.swap = SwapChannels(in_channels, out_channels)
        self.matmul = ops.MatMul()
        self.size = kernel_size**2
        self.reversal = _reversal(kernel_size)

    def construct(self, weight: Tensor) -> Tensor:
        swapped = self.swap(weight)
        kernels = ops.reshape(swapped, (-1, self.size))
        return ops.reshape(self.matmul(kernels, self.reversal.astype(weight.dtype)), swapped.shape)


class DenseConv2d(nn.Cell):
    """Conv2D of x (N, Cin, H, W) with a weight (Cout, Cin, k, k) at stride 1.

    The same as `ops.Conv2D`, apart from its gradients. With y_p = sum_d W_d x_{p+d},

        dx_p = sum_d W_d^T dy_{p-d}        dW_d^T = sum_p x_p dy_{p-d}^T

    the first is a convolution with the transposed, turned weight, and computed as one: the kernel
    that MindSpore has for it on CPU copies each pixel's k*k neighbours for each thread, slower, and
    every layer keeps the room for that as long as the graph lives. The second is also the gradient
    by the weight of the convolution from y to x. It copies the neighbours of each pixel of what
    the convolution goes from, so it is computed in this form where y has fewer channels than x.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, padding: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_shape = (kernel_size, kernel_size)
        self.conv2d = ops.Conv2D(out_channels, kernel_size, pad_mode="pad", pad=padding)
        transposed = kernel_size - 1 - padding
        self.backward = ops.Conv2D(in_channels, kernel_size, pad_mode="pad", pad=transposed)
        gradient = {"pad_mode": "pad", "pad": padding, "pad_list": (padding,) * 4}
        turned = {"pad_mode": "pad", "pad": transposed, "pad_list": (transposed,) * 4}
        self.by_input = ops.Conv2DBackpropInput(out_channels, kernel_size, **gradient)
        self.by_weight = Conv2DBackpropFilter(out_channels, self.kernel_shape, **gradient)
        self.by_turned_weight = Conv2DBackpropFilter(in_channels, self.kernel_shape, **turned)
        self.turn = _TurnKernel(in_channels, out_channels, kernel_size)
        self.turn_back = _TurnKernel(out_channels, in_channels, kernel_size)

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.conv2d(x, weight)

    def bprop(self, x, weight, out, dout):
        total, _, height, width = dout.shape
        if total * height * width >= self.out_channels:
            # Once dout is there, not before: the compiler could turn all weights at the start.
            dx = self.backward(dout, self.turn(ops.depend(weight, dout)))
        else:  # with so few pixels the weight is more work than the convolution
            dx = self.by_input(dout, weight, x.shape)
        return dx, self.weight_gradient(x, dout)

    def weight_gradient(self, x: Tensor, dout: Tensor) -> Tensor:
        """Return dW (Cout, Cin, k, k)."""
        if self.out_channels < self.in_channels:
            shape = (self.in_channels, self.out_channels, *self.kernel_shape)
            return self.turn_back(self.by_turned_weight(x, dout, shape))
        shape = (self.out_channels, self.in_channels, *self.kernel_shape)
        return self.by_weight(dout, x, shape)


class DepthwiseConv2d(nn.Cell):
    """Conv2D of x (N, C m, H, W) with a weight (C, m, k, k) at stride 1: m channels give one.

    The same as `ops.Conv2D` with C groups, apart from its gradients, which take it 15 to 40 times
    as long on CPU. With y_cp = sum_{j,d} w_cjd x_{cj,p+d},

        dx_{cj,p} = sum_d w_cjd dy_{c,p-d}        dw_cjd = sum_{n,p} dy_cp x_{cj,p+d}

    both are convolutions with C groups themselves: of dy with the turned weight, and of x with dy
    as the kernel, over the clips as channels.
    """

    def __init__(self, in_channels: int, channels: int, kernel_size: int, padding: int) -> None:
        super().__init__()
        self.channels, self.each = channels, in_channels // channels
        self.size, self.padding = kernel_size, padding
        self.conv2d = ops.Conv2D(channels, kernel_size, pad_mode="pad", pad=padding, group=channels)
        turned = {"pad_mode": "pad", "pad": kernel_size - 1 - padding, "group": channels}
        self.backward = ops.Conv2D(in_channels, kernel_size, **turned)
        self.reversal = _reversal(kernel_size)
        self.matmul = ops.MatMul()

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.conv2d(x, weight)

    def bprop(self, x, weight, out, dout):
        kernels = ops.reshape(ops.depend(weight, dout), (-1, self.size**2))
        turned = self.matmul(kernels, self.reversal.astype(weight.dtype))
        dx = self.backward(dout, turned.reshape(-1, 1, self.size, self.size))
        return dx, self.weight_gradient(x, dout)

    def weight_gradient(self, x: Tensor, dout: Tensor) -> Tensor:
        """Return dW (C, m, k, k)."""
        total, _, height, width = x.shape
        x = x.reshape(total, self.channels, self.each, height, width).transpose(2, 1, 0, 3, 4)
        x = x.reshape(self.each, self.channels * total, height, width)
        kernel = dout.transpose(1, 0, 2, 3)  # (C, N, H', W')
        convolve = ops.Conv2D(
            self.channels, kernel.shape[2:], pad_mode="pad", pad=self.padding, group=self.channels
        )
        return convolve(x, kernel).transpose(1, 0, 2, 3)


class ConvolveDoubled(nn.Cell):
    """Double H and W, nearest neighbour, then convolve, as one transposed convolution.

    Along one axis, with pixels doubled and taps w0, w1, w2,

        y_2i = w0 x_{i-1} + (w1 + w2) x_i        y_2i+1 = (w0 + w1) x_i + w2 x_{i+1}

    which is a transposed convolution with stride 2, padding 1 and kernel (w2, w1+w2, w0+w1, w0):
    per pixel of x it takes 4 * 4 products instead of 4 * 3 * 3, and no doubled copy of x.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        # (4, 3): the kernel above from (w0, w1, w2); over both axes (9, 16)
        spread = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], np.float32)
        self.spread = Tensor(np.ascontiguousarray(np.kron(spread, spread).T))
        # What goes in here is what came out of the convolution that this one is the gradient of.
        self.transposed = ops.Conv2DTranspose(in_channels, 4, pad_mode="pad", pad=1, stride=2)
        self.swap = SwapChannels(in_channels, out_channels)
        self.matmul = ops.MatMul()

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the convolution (N, Cout, 2H, 2W) with a weight (Cout, Cin, 3, 3)."""
        total, _, height, width = x.shape
        # (Cout, Cin, 3, 3) -> (Cin * Cout, 9) -> (Cin, Cout, 4, 4)
        weight = self.swap(weight).reshape(-1, 9)
        weight = self.matmul(weight, self.spread.astype(weight.dtype))
        weight = weight.reshape(self.in_channels, self.out_channels, 4, 4)
        return self.transposed(x, weight, (total, self.out_channels, 2 * height, 2 * width))


class ChannelBias(nn.Cell):
    """x + b for x (N, C, H, W) and b (C,): `ops.BiasAdd`, apart from its gradient by b.

        db_c = sum_{n,h,w} dy_nchw

    is summed over each image first, which takes a third of the time of the kernel that MindSpore
    has for it on CPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bias_add = ops.BiasAdd()
        self.sum = ops.ReduceSum()

    def construct(self, x: Tensor, bias: Tensor) -> Tensor:
        return self.bias_add(x, bias)

    def bprop(self, x, bias, out, dout):
        total, channels, _, _ = dout.shape
        images = ops.reshape(dout.astype(ms.float32), (total * channels, -1))
        sums = ops.reshape(self.sum(images, -1), (total, channels))
        return dout, self.sum(sums, 0).astype(bias.dtype)
