"""Normalisation without broadcasting, with gradients of its own."""

import functools

import numpy as np
from mindspore import Tensor, nn, ops

from mg.models.layers.cpu.values import filled

__all__ = ["NormaliseGroups", "NormaliseWithStatistics", "ScaleByRMS"]


@functools.cache
def _group_average(channels: int, num_groups: int) -> Tensor:
    """Return (C, C): one part in a group between channels of the same group, 0 elsewhere."""
    size = channels // num_groups
    average = np.kron(np.eye(num_groups), np.full((size, size), 1.0 / size))
    return Tensor(average.astype(np.float32))


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
        self.group_average = _group_average(channels, num_groups)
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


class ScaleByRMS(nn.Cell):
    """x gain / sqrt(mean(x^2) + eps) over the last axis, see `plain`."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.matmul = ops.MatMul()
        self.outer = ops.BatchMatMul()

    def construct(self, x: Tensor, gain: Tensor) -> Tensor:
        batch, length, width = x.shape
        squares = (x * x).reshape(-1, width)
        mean = self.matmul(squares, filled(1.0 / width, width, 1))
        inverse_rms = ops.rsqrt(mean + self.eps).reshape(batch, length, 1)
        return x * self.outer(inverse_rms, gain)
