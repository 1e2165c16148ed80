"""A 2-D convolution and a bias whose gradients take little memory and time on CPU."""

import functools

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops.operations._grad_ops import Conv2DBackpropFilter

from mg.device import runs_on_cpu

__all__ = ["ChannelBias", "SameSizeConv2d", "SwapChannels"]


class SwapChannels(nn.Cell):
    """Swap the first two axes of a weight (Cout, Cin, h, w): its transposition, channel-wise."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.on_cpu = runs_on_cpu()
        self.rows = _swapped_rows(in_channels, out_channels)
        self.gather = ops.Gather()

    def construct(self, weight: Tensor) -> Tensor:
        if not self.on_cpu:
            return weight.transpose(1, 0, 2, 3)
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


class _TurnKernel(nn.Cell):
    """The weight (Cin, Cout, k, k) of the transposition of a convolution, from (Cout, Cin, k, k).

    Channels are swapped, and each kernel is turned by 180 degrees.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.swap = SwapChannels(in_channels, out_channels)
        self.matmul = ops.MatMul()
        # (k*k, k*k): turns the last place of a kernel into the first; as a product it takes a
        # sixth of the time of `ops.ReverseV2`.
        self.size = kernel_size**2
        self.reversal = Tensor(np.ascontiguousarray(np.eye(self.size, dtype=np.float32)[::-1]))

    def construct(self, weight: Tensor) -> Tensor:
        swapped = self.swap(weight)
        kernels = ops.reshape(swapped, (-1, self.size))
        return ops.reshape(self.matmul(kernels, self.reversal.astype(weight.dtype)), swapped.shape)


class SameSizeConv2d(nn.Cell):
    """Conv2D of x (N, Cin, H, W) with a weight (Cout, Cin, k, k), k odd, to the same H and W.

    The same as `ops.Conv2D`, apart from its gradients. With y_p = sum_d W_d x_{p+d},

        dx_p = sum_d W_d^T dy_{p-d}        dW_d^T = sum_p x_p dy_{p-d}^T

    the first is a convolution with the transposed, turned weight, and computed as one: the kernel
    that MindSpore has for it on CPU copies each pixel's k*k neighbours for each thread, slower, and
    every layer keeps the room for that as long as the graph lives. The second is also the gradient
    by the weight of the convolution from y to x. It copies the neighbours of each pixel of what
    the convolution goes from, so it is computed in this form where y has fewer channels than x.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_shape = (kernel_size, kernel_size)
        pad = kernel_size // 2
        self.conv2d = ops.Conv2D(out_channels, kernel_size, pad_mode="pad", pad=pad)
        self.backward = ops.Conv2D(in_channels, kernel_size, pad_mode="pad", pad=pad)
        gradient = {"pad_mode": "pad", "pad": pad, "pad_list": (pad,) * 4}
        self.by_input = ops.Conv2DBackpropInput(out_channels, kernel_size, **gradient)
        self.by_weight = Conv2DBackpropFilter(out_channels, self.kernel_shape, **gradient)
        self.by_turned_weight = Conv2DBackpropFilter(in_channels, self.kernel_shape, **gradient)
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
