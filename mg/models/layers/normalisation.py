"""Normalisation over groups of channels and over channels, in the folded layout."""

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

from mg.models.layers.devices import operations

__all__ = ["GammaGroupNorm", "GroupNorm", "GroupNormOfClips"]

EPSILON = 1e-6


def _filled(size: int, value: float) -> Parameter:
    return Parameter(Tensor(np.full(size, value, np.float32)))


class GroupNormOfClips(nn.Cell):
    """Group normalisation over (C/G, T, H, W) of each clip, computed in fp32, without parameters.

    With `per_frame` over (C/G, H, W) of each frame, as in an image network.
    """

    def __init__(
        self, channels: int, num_groups: int, *, epsilon: float = EPSILON, per_frame: bool = False
    ) -> None:
        super().__init__()
        self.per_frame = per_frame
        self.normalise = operations().NormaliseGroups(channels, num_groups, epsilon)

    def with_weights(self, x: Tensor, num_frames: int, weight: Tensor, bias: Tensor) -> Tensor:
        """Return weight (x - mean) / std + bias for folded x (B*T, C, H, W)."""
        total, channels, height, width = x.shape
        pooled = 1 if self.per_frame else num_frames  # frames that share their statistics
        clips = x.reshape(total // pooled, pooled, channels, height, width)
        y = self.normalise(clips.astype(ms.float32), weight, bias)
        return y.astype(x.dtype).reshape(x.shape)


class GroupNorm(GroupNormOfClips):
    """`GroupNormOfClips` with a learned scale `weight` and shift `bias` of each channel."""

    def __init__(
        self, channels: int, num_groups: int, *, epsilon: float = EPSILON, per_frame: bool = False
    ) -> None:
        super().__init__(channels, num_groups, epsilon=epsilon, per_frame=per_frame)
        self.weight = _filled(channels, 1.0)
        self.bias = _filled(channels, 0.0)

    def construct(self, x: Tensor, num_frames: int = 1) -> Tensor:
        return self.with_weights(x, num_frames, self.weight, self.bias)


class GammaGroupNorm(GroupNormOfClips):
    """`GroupNorm` whose scale and shift are called `gamma` and `beta`, as MindSpore names them."""

    def __init__(
        self, channels: int, num_groups: int, *, epsilon: float = EPSILON, per_frame: bool = False
    ) -> None:
        super().__init__(channels, num_groups, epsilon=epsilon, per_frame=per_frame)
        self.gamma = _filled(channels, 1.0)
        self.beta = _filled(channels, 0.0)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        return self.with_weights(x, num_frames, self.gamma, self.beta)
