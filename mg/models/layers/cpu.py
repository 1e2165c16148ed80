"""The arithmetic of layers in the form that takes the least time and memory on CPU.

The names are those of `plain`, the numbers too (to rounding); gradients are written by hand where
MindSpore's own take more.
"""

import functools

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops.operations._grad_ops import Conv2DBackpropFilter, SigmoidGrad

from mg.models.layers.plain import Padding, StackRows
from mg.models.layers.plain import convolution as plain_convolution

__all__ = [
    "ChannelBias",
    "ConvolveDoubled",
    "DenseConv2d",
    "NormaliseGroups",
    "NormaliseWithStatistics",
    "SiLU",
    "StackRows",
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
    if kernel_size > 1 and stride == groups == 1 and padding in (0, kernel_size // 2):
        return DenseConv2d(in_channels, out_channels, kernel_size, padding)
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


class NormaliseGroups(nn.Cell):
    """y = gamma (x - mean) / std + beta with the statistics of each group, see `plain`."""

    def __init__(self, channels: int, num_groups: int, epsilon: float) -> None:
        super().__init__()
        self.with_statistics = NormaliseWithStatistics(channels, num_groups, epsilon)

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return self.with_statistics(x, gamma, beta)[0]


class NormaliseWithStatistics(nn.Cell):
    """The same, and the statistics, which its gradient needs.

    With the statistics of a group over its N = T * C/G * H * W values,

        y = gamma (x - mean) / std + beta

    and, from a = sum(gamma dy) / N and b = sum(gamma dy (x - mean) / std) / N,

        dx = (gamma dy - a - b (x - mean) / std) / std

    so both directions are affine maps per frame and channel: per row, where a row is one channel of
    one frame. `ops.BatchNorm` with given statistics is the one kernel that applies such a map in
    one pass, and `ops.BiasAdd` is the quickest for a shift alone; with broadcasting each takes
    longer and, on CPU, keeps a workspace as large as the tensor for every layer.
    """

    def __init__(self, channels: int, num_groups: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        size = channels // num_groups
        # (C, C): 1 / size between channels of the same group, 0 elsewhere
        average = np.kron(np.eye(num_groups), np.full((size, size), 1.0 / size))
        self.group_average = Tensor(average.astype(np.float32))
        self.affine = ops.BatchNorm(is_training=False, epsilon=1e-30)
        self.shift = ops.BiasAdd()
        self.dot = ops.BatchMatMul(transpose_b=True)
        self.mean = ops.ReduceMean()
        self.sum = ops.ReduceSum()

    def per_row(self, values: Tensor, num_frames: int) -> Tensor:
        """Return values (B, C) repeated for each frame, (B*T*C,)."""
        batch, channels = values.shape
        values = ops.reshape(values, (batch, 1, channels))
        return ops.reshape(ops.broadcast_to(values, (batch, num_frames, channels)), (-1,))

    def row_images(self, x: Tensor) -> Tensor:
        """Return x (B, T, C, H, W) as one image whose channels are the rows, (1, B*T*C, H, W)."""
        return ops.reshape(x, (1, -1, x.shape[3], x.shape[4]))

    def apply_per_channel(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Return scale x + shift for x (B, T, C, H, W); scale and shift (B, C) in fp32."""
        scale, shift = self.per_row(scale, x.shape[1]), self.per_row(shift, x.shape[1])
        # Statistics 0 and 1 leave the affine map alone. The real ones would do, but have no
        # gradient, and where gradients are nested the compiler differentiates this line itself.
        zeros = scale * 0.0
        rows = self.affine(self.row_images(x), scale, shift, zeros, zeros + 1.0)[0]
        return ops.reshape(rows, x.shape)

    def centred(self, x: Tensor, mean: Tensor) -> Tensor:
        """Return x - mean (B, T, C, H, W) for mean (B, C)."""
        rows = self.shift(self.row_images(x), self.per_row(-mean, x.shape[1]))
        return ops.reshape(rows, x.shape)

    def channel_means(self, x: Tensor) -> Tensor:
        """Return the mean (B, C) over T, H, W of each channel of each clip (B, T, C, H, W)."""
        batch, num_frames, channels, _, _ = x.shape
        # Reducing the last axis first is several times faster than reducing two axes at once.
        rows = self.mean(ops.reshape(x, (batch * num_frames * channels, -1)), -1)
        return self.mean(ops.reshape(rows, (batch, num_frames, channels)), 1)

    def channel_means_of_product(self, x: Tensor, y: Tensor) -> Tensor:
        """Return `channel_means(x * y)`, as a scalar product of each row: no tensor of products."""
        batch, num_frames, channels, height, width = x.shape
        rows = (batch * num_frames * channels, 1, height * width)
        products = self.dot(ops.reshape(x, rows), ops.reshape(y, rows))  # (B*T*C, 1, 1)
        products = ops.reshape(products, (batch, num_frames, channels))
        return self.mean(products, 1) * (1.0 / (height * width))

    def group_means(self, values: Tensor) -> Tensor:
        """Return values (B, C) with each replaced by the mean of its group."""
        return ops.matmul(values, self.group_average)

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return y (B, T, C, H, W), and mean and 1 / std (B, C) of each channel's group."""
        mean = self.group_means(self.channel_means(x))
        centred = self.centred(x, mean)
        # E[(x - mean)^2], not E[x^2] - mean^2, which cancels where the mean is large.
        variance = self.group_means(self.channel_means_of_product(centred, centred))
        inverse_std = ops.rsqrt(variance + self.epsilon)
        scale = ops.reshape(gamma, (1, -1)) * inverse_std
        y = self.apply_per_channel(centred, scale, ops.broadcast_to(beta, scale.shape))
        return y, mean, inverse_std

    def bprop(self, x, gamma, beta, out, dout):
        _, mean, inverse_std = out
        # The last two are zero but for second derivatives, which come back through the statistics:
        # d mean / dx = 1 / N and d (1 / std) / dx = -(x - mean) / (N std^3).
        dout, dmean, dinverse_std = dout
        num_values = x.shape[1] * x.shape[3] * x.shape[4]  # of a channel
        gamma = ops.reshape(gamma, (1, -1))
        dy_mean = self.channel_means(dout)  # (B, C)
        dy_xhat_mean = (self.channel_means_of_product(dout, x) - mean * dy_mean) * inverse_std
        a = self.group_means(gamma * dy_mean)
        b = self.group_means(gamma * dy_xhat_mean)
        slope = b + self.group_means(dinverse_std) * inverse_std / num_values
        slope = -slope * ops.square(inverse_std)
        shift = self.group_means(dmean) / num_values - a * inverse_std
        # As two such maps: gamma dy / std, and slope (x - mean) + shift.
        dx = self.apply_per_channel(dout, gamma * inverse_std, a * 0.0)
        dx = dx + self.apply_per_channel(x, slope, shift - slope * mean)
        return dx, num_values * self.sum(dy_xhat_mean, 0), num_values * self.sum(dy_mean, 0)
