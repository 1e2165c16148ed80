"""The parts of the TAE: residual block, attention over space and over time, sampling in space.

Layouts and precision: see `mg.models.layers`.

Source: Movie Gen (arXiv 2410.13720) section 3.1.1.
"""

from mindspore import Tensor, nn

from mg.models.layers.attention import attend
from mg.models.layers.convolution import Conv2_5d, Conv2d
from mg.models.layers.devices import operations
from mg.models.layers.linear import Linear
from mg.models.layers.normalisation import GammaGroupNorm
from mg.models.layers.resampling import DoubledConv2d

__all__ = [
    "ResnetBlock",
    "SpatialAttention",
    "SpatialDownsample",
    "SpatialUpsample",
    "TemporalAttention",
    "make_attention",
]


class ResnetBlock(nn.Cell):
    """x + Conv2.5d(dropout(SiLU(norm(Conv2.5d(SiLU(norm(x))))))), 1x1 on x if channels change.

    The last convolution starts at zero: a new network begins as its residual path alone.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        norm_groups: int,
        norm_per_frame: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = GammaGroupNorm(in_channels, norm_groups, per_frame=norm_per_frame)
        self.conv1 = Conv2_5d(in_channels, out_channels)
        self.norm2 = GammaGroupNorm(out_channels, norm_groups, per_frame=norm_per_frame)
        self.conv2 = Conv2_5d(out_channels, out_channels, starts_at_zero=True)
        self.silu = operations().SiLU()
        self.dropout = nn.Dropout(p=dropout) if dropout > 0 else None
        self.nin_shortcut = (
            Conv2_5d(in_channels, out_channels, kernel_size=1)
            if in_channels != out_channels
            else None
        )

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        h = self.conv1(self.silu(self.norm1(x, num_frames)), num_frames)
        h = self.silu(self.norm2(h, num_frames))
        if self.dropout is not None:
            h = self.dropout(h)
        h = self.conv2(h, num_frames)
        if self.nin_shortcut is not None:
            x = self.nin_shortcut(x, num_frames)
        return x + h


class SpatialAttention(nn.Cell):
    """x plus single-head attention over the pixels of each frame."""

    def __init__(self, channels: int, *, norm_groups: int, norm_per_frame: bool = False) -> None:
        super().__init__()
        self.norm = GammaGroupNorm(channels, norm_groups, per_frame=norm_per_frame)
        self.q = Conv2d(channels, channels, kernel_size=1)
        self.k = Conv2d(channels, channels, kernel_size=1)
        self.v = Conv2d(channels, channels, kernel_size=1)
        self.proj_out = Conv2d(channels, channels, kernel_size=1, starts_at_zero=True)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        total, channels, _, _ = x.shape
        h = self.norm(x, num_frames)
        # (B*T, C, H, W) -> (B*T, H*W, C)
        query = self.q(h).reshape(total, channels, -1).transpose(0, 2, 1)
        key = self.k(h).reshape(total, channels, -1).transpose(0, 2, 1)
        value = self.v(h).reshape(total, channels, -1).transpose(0, 2, 1)
        h = attend(query, key, value).transpose(0, 2, 1).reshape(x.shape)
        return x + self.proj_out(h)


class TemporalAttention(nn.Cell):
    """x plus single-head attention over the frames at each pixel."""

    def __init__(self, channels: int, *, norm_groups: int, norm_per_frame: bool = False) -> None:
        super().__init__()
        self.norm = GammaGroupNorm(channels, norm_groups, per_frame=norm_per_frame)
        self.to_q = Linear(channels, channels)
        self.to_k = Linear(channels, channels)
        self.to_v = Linear(channels, channels)
        self.proj_out = Linear(channels, channels, starts_at_zero=True)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        total, channels, height, width = x.shape
        batch = total // num_frames
        h = self.norm(x, num_frames).reshape(batch, num_frames, channels, height * width)
        # (B, T, C, H*W) -> (B, H*W, T, C) -> (B*H*W, T, C)
        tokens = h.transpose(0, 3, 1, 2).reshape(-1, num_frames, channels)
        # One frame attends to itself alone: the softmax of a single logit is 1.
        h = self.to_v(tokens)
        if num_frames > 1:
            h = attend(self.to_q(tokens), self.to_k(tokens), h)
        h = self.proj_out(h).reshape(batch, height * width, num_frames, channels)
        return x + h.transpose(0, 2, 3, 1).reshape(x.shape)


def make_attention(
    channels: int, attn_type: str, *, norm_groups: int, norm_per_frame: bool = False
) -> nn.CellList:
    """Return the attention cells of one place: spatial, then (for "vanilla") temporal."""
    kinds = [SpatialAttention, TemporalAttention] if attn_type == "vanilla" else [SpatialAttention]
    return nn.CellList(
        [kind(channels, norm_groups=norm_groups, norm_per_frame=norm_per_frame) for kind in kinds]
    )


class SpatialDownsample(nn.Cell):
    """Halve H and W: pad one zero right and bottom, 3x3 convolution with stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, kernel_size=3, stride=2, padding=(0, 1, 0, 1))

    def construct(self, x: Tensor) -> Tensor:
        return self.conv(x)  # (B*T, C, H/2, W/2)


class SpatialUpsample(nn.Cell):
    """Double H and W: nearest neighbour, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = DoubledConv2d(channels, channels)

    def construct(self, x: Tensor) -> Tensor:
        return self.conv(x)  # (B*T, C, 2H, 2W)
