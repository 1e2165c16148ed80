"""Group normalisation over the frames of a clip, in the folded layout, with its own gradient."""

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

__all__ = ["GroupNorm"]


class _NormaliseGroups(nn.Cell):
    """The arithmetic of `GroupNorm`, with its own gradient.

    With the statistics of a group over its N = T * C/G * H * W values,

        y = gamma (x - mean) / std + beta = scale x + shift    (one scale and shift per channel)

    and, from a = sum(gamma dy) / N and b = sum(gamma dy (x - mean) / std) / N,

        dx = (gamma dy - a - b (x - mean) / std) / std

    so both directions are affine maps per frame and channel. `ops.BatchNorm` with fixed statistics
    is the one kernel that applies such a map in one pass; multiplying and adding with broadcasting
    takes two and, on CPU, keeps a workspace as large as the tensor for every layer.
    """

    def __init__(self, channels: int, num_groups: int) -> None:
        super().__init__()
        size = channels // num_groups
        # (C, C): 1 / size between channels of the same group, 0 elsewhere
        average = np.kron(np.eye(num_groups), np.full((size, size), 1.0 / size))
        self.group_average = Tensor(average.astype(np.float32))
        self.affine = ops.BatchNorm(is_training=False, epsilon=1e-30)
        self.mean = ops.ReduceMean()
        self.sum = ops.ReduceSum()

    def apply_per_channel(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Return scale x + shift for x (B, T, C, H, W); scale and shift (B, C) in fp32."""
        batch, num_frames, channels, height, width = x.shape
        scale = ops.broadcast_to(
            ops.reshape(scale, (batch, 1, channels)), (batch, num_frames, channels)
        )
        shift = ops.broadcast_to(
            ops.reshape(shift, (batch, 1, channels)), (batch, num_frames, channels)
        )
        scale, shift = ops.reshape(scale, (-1,)), ops.reshape(shift, (-1,))
        rows = ops.reshape(x, (1, batch * num_frames * channels, height, width))
        # Fixed statistics 0 and 1 leave the affine map alone.
        zeros = scale * 0.0
        return ops.reshape(self.affine(rows, scale, shift, zeros, zeros + 1.0)[0], x.shape)

    def channel_means(self, x: Tensor) -> Tensor:
        """Return the mean (B, C) over T, H, W of each channel of each clip (B, T, C, H, W)."""
        batch, num_frames, channels, _, _ = x.shape
        # Reducing the last axis first is several times faster than reducing two axes at once.
        rows = self.mean(ops.reshape(x, (batch * num_frames * channels, -1)), -1)
        return self.mean(ops.reshape(rows, (batch, num_frames, channels)), 1)

    def group_means(self, values: Tensor) -> Tensor:
        """Return values (B, C) with each replaced by the mean of its group."""
        return ops.matmul(values, self.group_average)

    def centred(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return x - mean (B, T, C, H, W) and 1 / std (B, C) of each channel's group."""
        mean = self.group_means(self.channel_means(x))
        centred = self.apply_per_channel(x, mean * 0.0 + 1.0, -mean)
        # E[(x - mean)^2], not E[x^2] - mean^2, which cancels where the mean is large.
        variance = self.group_means(self.channel_means(ops.square(centred)))
        return centred, ops.rsqrt(variance + 1e-6)

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        centred, inverse_std = self.centred(x)
        scale = ops.reshape(gamma, (1, -1)) * inverse_std
        return self.apply_per_channel(
            centred, scale, inverse_std * 0.0 + ops.reshape(beta, (1, -1))
        )

    def bprop(self, x, gamma, beta, out, dout):
        centred, inverse_std = self.centred(x)
        gamma = ops.reshape(gamma, (1, -1))
        dy_mean = self.channel_means(dout)  # (B, C)
        dy_xhat_mean = self.channel_means(dout * centred) * inverse_std
        a = self.group_means(gamma * dy_mean)
        b = self.group_means(gamma * dy_xhat_mean)
        dx = self.apply_per_channel(dout, gamma * inverse_std, -a * inverse_std)
        dx = dx + self.apply_per_channel(centred, -b * ops.square(inverse_std), b * 0.0)
        num_values = x.shape[1] * x.shape[3] * x.shape[4]  # behind each mean
        return dx, num_values * self.sum(dy_xhat_mean, 0), num_values * self.sum(dy_mean, 0)


class GroupNorm(nn.Cell):
    """Group normalisation over (C/G, T, H, W) of each clip, eps 1e-6, computed in fp32."""

    def __init__(self, channels: int, num_groups: int) -> None:
        super().__init__()
        self.gamma = Parameter(Tensor(np.ones(channels, np.float32)), name="gamma")
        self.beta = Parameter(Tensor(np.zeros(channels, np.float32)), name="beta")
        self.normalise = _NormaliseGroups(channels, num_groups)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        total, channels, height, width = x.shape
        clips = x.reshape(total // num_frames, num_frames, channels, height, width)
        y = self.normalise(clips.astype(ms.float32), self.gamma, self.beta)
        return y.astype(x.dtype).reshape(x.shape)
