"""Convolutions, residual blocks and attention of CausalVideoVAE, by the names in its config.

Layouts
    folded   (B*T, C, H, W)   everywhere in here: frames of a clip follow each other
Every cell takes a folded tensor `x` and the number `num_frames` (T) of frames per clip. Names of
parameters are Open-Sora-Plan's. Precision: see `mg.models.layers`.
"""

from mindspore import Tensor, nn

from mg.models.layers.attention import attend
from mg.models.layers.convolution import Conv2d
from mg.models.layers.convolution3d import CausalConv3d, Conv3d
from mg.models.layers.devices import operations
from mg.models.layers.normalisation import GroupNorm

__all__ = ["CausalConv", "TemporalAttention", "make_attention", "make_conv", "make_resnet_block"]


class FrameConv(Conv2d):
    """2-D convolution of each frame: `Conv2d` in a config."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size=kernel_size, padding=kernel_size // 2
        )

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        return self.convolved_with(x, num_frames, self.weight)

    def convolved_with(self, x: Tensor, num_frames: int, weight: Tensor) -> Tensor:
        """Return the convolution with `weight` in the place of the cell's own."""
        return self.bias_add(self.with_weight(x, weight), self.bias.astype(x.dtype))

    @property
    def own_weight(self) -> Tensor:
        return self.weight


class CausalConv(nn.Cell):
    """Convolution in space and time: `CausalConv3d`. The first frame is repeated in front."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel_size: int | tuple[int, int], **options
    ) -> None:
        super().__init__()
        self.conv = CausalConv3d(in_channels, out_channels, kernel_size=kernel_size, **options)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        return self.conv(x, num_frames)

    def convolved_with(self, x: Tensor, num_frames: int, weight: Tensor) -> Tensor:
        """Return the convolution with `weight` in the place of the cell's own."""
        return self.conv.with_bias(self.conv.with_weight(x, num_frames, weight))

    @property
    def own_weight(self) -> Tensor:
        return self.conv.weight


def make_conv(name: str, in_channels: int, out_channels: int, *, kernel_size: int) -> nn.Cell:
    """Return the convolution that a config names, padded so that H, W and T stay."""
    kind = FrameConv if name == "Conv2d" else CausalConv
    return kind(in_channels, out_channels, kernel_size=kernel_size)


class ResnetBlock(nn.Cell):
    """x + conv(SiLU(norm(conv(SiLU(norm(x)))))), with a 1x1x1 on x if the channels change.

    Args:
        conv: "CausalConv3d", or "Conv2d" for a block that sees each frame as an image.
        in_channels, out_channels: channels.
        num_groups: of the normalisation.
    """

    def __init__(self, conv: str, in_channels: int, out_channels: int, num_groups: int) -> None:
        super().__init__()
        per_frame = conv == "Conv2d"
        self.norm1 = GroupNorm(in_channels, num_groups, per_frame=per_frame)
        self.conv1 = make_conv(conv, in_channels, out_channels, kernel_size=3)
        self.norm2 = GroupNorm(out_channels, num_groups, per_frame=per_frame)
        self.conv2 = make_conv(conv, out_channels, out_channels, kernel_size=3)
        self.silu = operations().SiLU()
        self.nin_shortcut = None
        if in_channels != out_channels:
            self.nin_shortcut = make_conv(conv, in_channels, out_channels, kernel_size=1)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        h = self.conv1(self.silu(self.norm1(x, num_frames)), num_frames)
        h = self.conv2(self.silu(self.norm2(h, num_frames)), num_frames)
        return h + (x if self.nin_shortcut is None else self.nin_shortcut(x, num_frames))


RESNET_CONVS = {"ResnetBlock2D": "Conv2d", "ResnetBlock3D": "CausalConv3d"}


def make_resnet_block(
    name: str, in_channels: int, out_channels: int, num_groups: int
) -> ResnetBlock:
    """Return the residual block that a config names."""
    return ResnetBlock(RESNET_CONVS[name], in_channels, out_channels, num_groups)


class FrameAttention(nn.Cell):
    """x plus single-head attention over the pixels of each frame: `AttnBlock3DFix`."""

    per_frame = False  # whether normalisation sees each frame by itself

    def __init__(self, channels: int, num_groups: int) -> None:
        super().__init__()
        self.norm = GroupNorm(channels, num_groups, per_frame=self.per_frame)
        self.q = self.pointwise(channels)
        self.k = self.pointwise(channels)
        self.v = self.pointwise(channels)
        self.proj_out = self.pointwise(channels)

    def pointwise(self, channels: int) -> nn.Cell:
        """Return a 1x1x1 convolution."""
        return CausalConv(channels, channels, kernel_size=1)

    def tokens(self, x: Tensor, num_frames: int) -> Tensor:
        """Return what attends to each other, (N, L, C)."""
        total, channels, _, _ = x.shape
        return x.reshape(total, channels, -1).transpose(0, 2, 1)

    def frames(self, tokens: Tensor, num_frames: int, height: int, width: int) -> Tensor:
        """Return tokens as frames (B*T, C, H, W); the inverse of `tokens`."""
        total, _, channels = tokens.shape
        return tokens.transpose(0, 2, 1).reshape(total, channels, height, width)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        h = self.norm(x, num_frames)
        query = self.tokens(self.q(h, num_frames), num_frames)
        key = self.tokens(self.k(h, num_frames), num_frames)
        value = self.tokens(self.v(h, num_frames), num_frames)
        h = attend(query, key, value)
        h = self.frames(h, num_frames, x.shape[2], x.shape[3])
        return x + self.proj_out(h, num_frames)


class ImageAttention(FrameAttention):
    """The same as an image network has it: `AttnBlock`."""

    per_frame = True

    def pointwise(self, channels: int) -> nn.Cell:
        return FrameConv(channels, channels, kernel_size=1)


class ReshapedAttention(FrameAttention):
    """`AttnBlock3D` of v1.0, on which its weights rely.

    It reads (B, C, T, H, W) as (B*T, C, H*W) without moving T, so that the channels of a token are
    those of several frames. With one frame it is `FrameAttention`.
    """

    def tokens(self, x: Tensor, num_frames: int) -> Tensor:
        total, channels, _, _ = x.shape
        if num_frames > 1:
            x = x.reshape(total // num_frames, num_frames, channels, -1).transpose(0, 2, 1, 3)
        return x.reshape(total, channels, -1).transpose(0, 2, 1)

    def frames(self, tokens: Tensor, num_frames: int, height: int, width: int) -> Tensor:
        total, length, channels = tokens.shape
        x = tokens.transpose(0, 2, 1)
        if num_frames > 1:
            x = x.reshape(total // num_frames, channels, num_frames, length).transpose(0, 2, 1, 3)
        return x.reshape(total, channels, height, width)


class TemporalAttention(FrameAttention):
    """x plus single-head attention of each pixel over all frames: `TemporalAttnBlock`."""

    def pointwise(self, channels: int) -> nn.Cell:
        return Conv3d(channels, channels, kernel_size=1)

    def tokens(self, x: Tensor, num_frames: int) -> Tensor:
        total, channels, height, width = x.shape
        x = x.reshape(total // num_frames, num_frames, channels, height * width)
        return x.transpose(0, 3, 1, 2).reshape(-1, num_frames, channels)

    def frames(self, tokens: Tensor, num_frames: int, height: int, width: int) -> Tensor:
        channels = tokens.shape[2]
        x = tokens.reshape(-1, height * width, num_frames, channels)
        return x.transpose(0, 2, 3, 1).reshape(-1, channels, height, width)


ATTENTIONS = {
    "AttnBlock": ImageAttention,
    "AttnBlock3D": ReshapedAttention,
    "AttnBlock3DFix": FrameAttention,
    "TemporalAttnBlock": TemporalAttention,
}


def make_attention(name: str, channels: int, num_groups: int) -> FrameAttention:
    """Return the attention that a config names."""
    return ATTENTIONS[name](channels, num_groups)
