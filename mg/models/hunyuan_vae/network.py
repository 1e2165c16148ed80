"""HunyuanVideo's causal video autoencoder (`AutoencoderKLHunyuanVideo` of diffusers).

Layouts
    video    (B, 3, T, H, W)           in [-1, 1], T = 4k + 1
    latent   (B, C, k + 1, H/8, W/8)
    folded   (B*T, C, H, W)            inside
All convolutions are causal and repeat edges on every side. The first frame stands for itself: it is
never merged with others on the way down, nor doubled on the way up.
Names of parameters are diffusers'. Precision: see `mg.models.layers`.

Source: HunyuanVideo (arXiv 2412.03603) section 4.1.
"""

from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, nn
from mindspore.ops import constexpr

from mg.models.autoencoder import Autoencoder
from mg.models.hunyuan_vae.config import HunyuanVideoVAEConfig
from mg.models.layers.attention import PixelAttention
from mg.models.layers.convolution3d import CausalConv3d, Conv3d
from mg.models.layers.devices import operations
from mg.models.layers.frames import fold_frames, take_frames, unfold_frames
from mg.models.layers.moments import split_moments
from mg.models.layers.normalisation import GroupNorm
from mg.tiling.frame_tiles import FrameTiles

__all__ = ["HunyuanVideoVAE"]


def make_norm(channels: int, config: HunyuanVideoVAEConfig) -> GroupNorm:
    """Return the normalisation of each clip over groups of channels."""
    return GroupNorm(channels, config.norm_num_groups)


class CausalConv(nn.Cell):
    """Causal convolution whose padding repeats edges in time and in space."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel_size: int = 3, stride=1
    ) -> None:
        super().__init__()
        self.conv = CausalConv3d(
            in_channels,
            out_channels,
            kernel_size=kernel_size,
            stride=stride,
            pad_space_with="edges",
        )

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        return self.conv(x, num_frames)


class ResnetBlock(nn.Cell):
    """x + conv(SiLU(norm(conv(SiLU(norm(x)))))), with a 1x1x1 on x if the channels change."""

    def __init__(self, in_channels: int, out_channels: int, config: HunyuanVideoVAEConfig) -> None:
        super().__init__()
        self.norm1 = make_norm(in_channels, config)
        self.conv1 = CausalConv(in_channels, out_channels)
        self.norm2 = make_norm(out_channels, config)
        self.conv2 = CausalConv(out_channels, out_channels)
        self.silu = operations().SiLU()
        self.conv_shortcut = None
        if in_channels != out_channels:
            self.conv_shortcut = CausalConv(in_channels, out_channels, kernel_size=1)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        h = self.conv1(self.silu(self.norm1(x, num_frames)), num_frames)
        h = self.conv2(self.silu(self.norm2(h, num_frames)), num_frames)
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x, num_frames))


def make_blocks(
    num_blocks: int, in_channels: int, out_channels: int, config: HunyuanVideoVAEConfig
) -> nn.CellList:
    """Return residual blocks, of which the first changes the number of channels."""
    widths = [in_channels] + [out_channels] * num_blocks
    return nn.CellList([ResnetBlock(widths[i], widths[i + 1], config) for i in range(num_blocks)])


class Downsample(nn.Cell):
    """Shrink by factors in time and in space: the stride of a causal convolution."""

    def __init__(self, channels: int, factors: tuple[int, int]) -> None:
        super().__init__()
        self.conv = CausalConv(channels, channels, stride=factors)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        return self.conv(x, num_frames)


class Upsample(nn.Cell):
    """Repeat pixels, and frames but the first, by factors; then a causal convolution."""

    def __init__(self, channels: int, factors: tuple[int, int]) -> None:
        super().__init__()
        self.factors = factors
        self.resize = operations().ResizeNearest()
        self.conv = CausalConv(channels, channels)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        in_time, in_space = self.factors
        if in_time > 1 and num_frames > 1:
            repeated = _first_once(num_frames, in_time)
            x, num_frames = take_frames(x, num_frames, repeated), len(repeated)
        return self.conv(self.resize(x, in_space), num_frames)


@constexpr
def _first_once(num_frames: int, factor: int) -> tuple[int, ...]:
    """Return the numbers of frames, each but the first `factor` times."""
    return (0, *(frame for frame in range(1, num_frames) for _ in range(factor)))


class DownBlock(nn.Cell):
    """A level of the encoder: residual blocks, then `Downsample`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        config: HunyuanVideoVAEConfig,
        factors: tuple[int, int] | None,
    ) -> None:
        super().__init__()
        self.resnets = make_blocks(config.layers_per_block, in_channels, out_channels, config)
        self.downsamplers = nn.CellList([Downsample(out_channels, factors)]) if factors else None

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        for block in self.resnets:
            x = block(x, num_frames)
        return x if self.downsamplers is None else self.downsamplers[0](x, num_frames)


class UpBlock(nn.Cell):
    """A level of the decoder: residual blocks, then `Upsample`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        config: HunyuanVideoVAEConfig,
        factors: tuple[int, int] | None,
    ) -> None:
        super().__init__()
        self.resnets = make_blocks(config.layers_per_block + 1, in_channels, out_channels, config)
        self.upsamplers = nn.CellList([Upsample(out_channels, factors)]) if factors else None

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        for block in self.resnets:
            x = block(x, num_frames)
        return x if self.upsamplers is None else self.upsamplers[0](x, num_frames)


class MidBlock(nn.Cell):
    """Block, attention to the pixels of this frame and those before it, block."""

    def __init__(self, channels: int, config: HunyuanVideoVAEConfig) -> None:
        super().__init__()
        self.attentions = None
        if config.mid_block_add_attention:
            groups = config.norm_num_groups
            attention = PixelAttention(channels, norm_groups=groups, sees_past=True)
            self.attentions = nn.CellList([attention])
        self.resnets = make_blocks(2, channels, channels, config)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        x = self.resnets[0](x, num_frames)
        if self.attentions is not None:
            x = self.attentions[0](x, num_frames)
        return self.resnets[1](x, num_frames)


class Encoder(nn.Cell):
    """Video (B, 3, 4k+1, H, W) -> moments (B, 2 C, k+1, H/8, W/8), mean before logvar."""

    def __init__(self, config: HunyuanVideoVAEConfig) -> None:
        super().__init__()
        widths, factors = config.block_out_channels, config.resampling
        self.in_time = tuple(factor[0] if factor else 1 for factor in factors)
        self.conv_in = CausalConv(config.in_channels, widths[0])
        self.down_blocks = nn.CellList(
            [
                DownBlock(below, width, config, factor)
                for below, width, factor in zip((widths[0], *widths), widths, factors, strict=False)
            ]
        )
        self.mid_block = MidBlock(widths[-1], config)
        self.conv_norm_out = make_norm(widths[-1], config)
        self.silu = operations().SiLU()
        self.conv_out = CausalConv(widths[-1], 2 * config.latent_channels)

    def construct(self, video: Tensor) -> Tensor:
        num_frames = video.shape[2]
        x = self.conv_in(fold_frames(video), num_frames)
        for level, block in enumerate(self.down_blocks):
            x = block(x, num_frames)
            num_frames = (num_frames - 1) // self.in_time[level] + 1
        x = self.mid_block(x, num_frames)
        x = self.conv_out(self.silu(self.conv_norm_out(x, num_frames)), num_frames)
        return unfold_frames(x, num_frames)


class Decoder(nn.Cell):
    """Latent (B, C, k+1, H/8, W/8) -> video (B, 3, 4k+1, H, W)."""

    def __init__(self, config: HunyuanVideoVAEConfig) -> None:
        super().__init__()
        widths, factors = config.block_out_channels[::-1], config.resampling
        self.in_time = tuple(factor[0] if factor else 1 for factor in factors)
        self.conv_in = CausalConv(config.latent_channels, widths[0])
        self.up_blocks = nn.CellList(
            [
                UpBlock(above, width, config, factor)
                for above, width, factor in zip((widths[0], *widths), widths, factors, strict=False)
            ]
        )
        self.mid_block = MidBlock(widths[0], config)
        self.conv_norm_out = make_norm(widths[-1], config)
        self.silu = operations().SiLU()
        self.conv_out = CausalConv(widths[-1], config.out_channels)

    def features(self, latent: Tensor) -> tuple[Tensor, int]:
        """Return what the last convolution takes, (B*T, C, H, W), and T."""
        num_frames = latent.shape[2]
        x = self.conv_in(fold_frames(latent), num_frames)
        x = self.mid_block(x, num_frames)
        for level, block in enumerate(self.up_blocks):
            x = block(x, num_frames)
            num_frames = (num_frames - 1) * self.in_time[level] + 1
        return self.silu(self.conv_norm_out(x, num_frames)), num_frames

    def frames(self, features: Tensor, num_frames: int, weight: Tensor) -> Tensor:
        """Return the video (B, 3, T, H, W), with `weight` as the last convolution's."""
        conv = self.conv_out.conv
        x = conv.with_bias(conv.with_weight(features, num_frames, weight))
        return unfold_frames(x, num_frames)


class HunyuanVideoVAE(Autoencoder):
    """HunyuanVideo's autoencoder: 4x8x8, clips of 4k + 1 frames.

    `encode` and `decode` take clips of more than 16 frames in tiles of 17 that overlap, as
    diffusers does; within a graph (`moments`, `frames_from`) a clip is in one piece.

    Args:
        config: the structure; None takes the published network's.
        framewise: whether there are such tiles.
        options: as of `Autoencoder`.
    """

    family = "hunyuan"
    recomputed = (ResnetBlock,)

    def __init__(
        self,
        config: HunyuanVideoVAEConfig | None = None,
        *,
        framewise: bool = True,
        **options: Any,
    ) -> None:
        config = HunyuanVideoVAEConfig() if config is None else config
        super().__init__(config, **options)
        channels = config.latent_channels
        self.framewise, self.sizes_of_tiles = framewise, FrameTiles(16, 12)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = Conv3d(2 * channels, 2 * channels, kernel_size=1)
        self.post_quant_conv = Conv3d(channels, channels, kernel_size=1)

    @property
    def frame_tiles(self) -> FrameTiles | None:
        """Tiles in time, in frames of video."""
        return self.sizes_of_tiles if self.framewise else None

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logvar (B, C, k+1, H', W') in fp32 of a video (B, 3, 4k+1, H, W)."""
        h = self.encoder(video.astype(self.encode_dtype))
        num_frames = h.shape[2]
        return split_moments(unfold_frames(self.quant_conv(fold_frames(h)), num_frames))

    def features(self, z: Tensor, num_frames: int | None = None) -> tuple[Tensor, int]:
        """Return what the decoder's last convolution takes, (B*T, C, H, W), and T = 4k + 1."""
        x = self.post_quant_conv(fold_frames(z.astype(self.decode_dtype)))
        return self.decoder.features(unfold_frames(x, z.shape[2]))

    def frames_of_features(self, features: Tensor, num_frames: int, weight: Tensor) -> Tensor:
        """Return the video (B, 3, T, H, W) in fp32, with `weight` as the last convolution's."""
        return self.decoder.frames(features, num_frames, weight).astype(ms.float32)

    @property
    def last_weight(self) -> Parameter:
        """The weight of the decoder's last convolution, (3, C, 3, 3, 3)."""
        return self.decoder.conv_out.conv.weight
