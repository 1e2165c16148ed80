"""Stable Diffusion's image autoencoder (`AutoencoderKL` of diffusers), frame by frame.

Layouts
    video    (B, 3, T, H, W)         in [-1, 1]; each frame is an image by itself
    latent   (B, C, T, H/8, W/8)
    folded   (B*T, C, H, W)          inside
Names of parameters are diffusers'. Precision: see `mg.models.layers`.

Source: "High-Resolution Image Synthesis with Latent Diffusion Models" (arXiv 2112.10752).
"""

from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from mg.models.autoencoder import Autoencoder
from mg.models.autoencoder_kl.config import AutoencoderKLConfig
from mg.models.layers.attention import PixelAttention
from mg.models.layers.convolution import Conv2d
from mg.models.layers.devices import operations
from mg.models.layers.frames import fold_frames, unfold_frames
from mg.models.layers.moments import split_moments
from mg.models.layers.normalisation import GroupNorm
from mg.models.layers.resampling import DoubledConv2d

__all__ = ["AutoencoderKL"]

# Frames that go through the network together: more cost memory and gain nothing.
FRAMES_AT_ONCE = 8


def make_norm(channels: int, config: AutoencoderKLConfig) -> GroupNorm:
    """Return the normalisation of each image over groups of channels."""
    return GroupNorm(channels, config.norm_num_groups, per_frame=True)


class ResnetBlock(nn.Cell):
    """x + conv(SiLU(norm(conv(SiLU(norm(x)))))), with a 1x1 convolution on x if channels change."""

    def __init__(self, in_channels: int, out_channels: int, config: AutoencoderKLConfig) -> None:
        super().__init__()
        self.norm1 = make_norm(in_channels, config)
        self.conv1 = Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.norm2 = make_norm(out_channels, config)
        self.conv2 = Conv2d(out_channels, out_channels, kernel_size=3, padding=1)
        self.silu = operations().SiLU()
        self.conv_shortcut = None
        if in_channels != out_channels:
            self.conv_shortcut = Conv2d(in_channels, out_channels, kernel_size=1)

    def construct(self, x: Tensor) -> Tensor:
        h = self.conv1(self.silu(self.norm1(x)))
        h = self.conv2(self.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


def make_blocks(
    num_blocks: int, in_channels: int, out_channels: int, config: AutoencoderKLConfig
) -> nn.CellList:
    """Return residual blocks, of which the first changes the number of channels."""
    widths = [in_channels] + [out_channels] * num_blocks
    return nn.CellList([ResnetBlock(widths[i], widths[i + 1], config) for i in range(num_blocks)])


class Downsample(nn.Cell):
    """Halve H and W: one zero right and below, 3x3 convolution with stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, kernel_size=3, stride=2, padding=(0, 1, 0, 1))

    def construct(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Cell):
    """Double H and W: nearest neighbour, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = DoubledConv2d(channels, channels)

    def construct(self, x: Tensor) -> Tensor:
        return self.conv(x)


class DownBlock(nn.Cell):
    """A level of the encoder: residual blocks, then half the size."""

    def __init__(
        self, in_channels: int, out_channels: int, config: AutoencoderKLConfig, *, halves: bool
    ) -> None:
        super().__init__()
        self.resnets = make_blocks(config.layers_per_block, in_channels, out_channels, config)
        self.downsamplers = nn.CellList([Downsample(out_channels)]) if halves else None

    def construct(self, x: Tensor) -> Tensor:
        for block in self.resnets:
            x = block(x)
        return x if self.downsamplers is None else self.downsamplers[0](x)


class UpBlock(nn.Cell):
    """A level of the decoder: residual blocks, then twice the size."""

    def __init__(
        self, in_channels: int, out_channels: int, config: AutoencoderKLConfig, *, doubles: bool
    ) -> None:
        super().__init__()
        num_blocks = config.layers_per_block + 1
        self.resnets = make_blocks(num_blocks, in_channels, out_channels, config)
        self.upsamplers = nn.CellList([Upsample(out_channels)]) if doubles else None

    def construct(self, x: Tensor) -> Tensor:
        for block in self.resnets:
            x = block(x)
        return x if self.upsamplers is None else self.upsamplers[0](x)


class MidBlock(nn.Cell):
    """Block, attention over the pixels of an image, block."""

    def __init__(self, channels: int, config: AutoencoderKLConfig) -> None:
        super().__init__()
        self.attentions = None
        if config.mid_block_add_attention:
            attention = PixelAttention(channels, norm_groups=config.norm_num_groups)
            self.attentions = nn.CellList([attention])
        self.resnets = make_blocks(2, channels, channels, config)

    def construct(self, x: Tensor) -> Tensor:
        x = self.resnets[0](x)
        if self.attentions is not None:
            x = self.attentions[0](x)
        return self.resnets[1](x)


class Encoder(nn.Cell):
    """Images (N, 3, H, W) -> moments (N, 2 C, H/8, W/8), mean before logvar."""

    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__()
        widths = config.block_out_channels
        self.conv_in = Conv2d(config.in_channels, widths[0], kernel_size=3, padding=1)
        self.down_blocks = nn.CellList(
            [
                DownBlock(below, width, config, halves=level < config.num_levels - 1)
                for level, (below, width) in enumerate(
                    zip((widths[0], *widths), widths, strict=False)
                )
            ]
        )
        self.mid_block = MidBlock(widths[-1], config)
        self.conv_norm_out = make_norm(widths[-1], config)
        self.silu = operations().SiLU()
        self.conv_out = Conv2d(widths[-1], 2 * config.latent_channels, kernel_size=3, padding=1)

    def construct(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        x = self.mid_block(x)
        return self.conv_out(self.silu(self.conv_norm_out(x)))


class Decoder(nn.Cell):
    """Latents (N, C, H/8, W/8) -> images (N, 3, H, W)."""

    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__()
        widths = config.block_out_channels[::-1]
        self.conv_in = Conv2d(config.latent_channels, widths[0], kernel_size=3, padding=1)
        self.up_blocks = nn.CellList(
            [
                UpBlock(above, width, config, doubles=level < config.num_levels - 1)
                for level, (above, width) in enumerate(
                    zip((widths[0], *widths), widths, strict=False)
                )
            ]
        )
        self.mid_block = MidBlock(widths[0], config)
        self.conv_norm_out = make_norm(widths[-1], config)
        self.silu = operations().SiLU()
        self.conv_out = Conv2d(widths[-1], config.out_channels, kernel_size=3, padding=1)

    def features(self, z: Tensor) -> Tensor:
        """Return what the last convolution takes, (N, C, H, W)."""
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        return self.silu(self.conv_norm_out(x))

    def frames(self, features: Tensor, weight: Tensor) -> Tensor:
        """Return images, with `weight` as the last convolution's."""
        conv = self.conv_out
        return conv.with_bias(conv.with_weight(features, weight))

    def construct(self, z: Tensor) -> Tensor:
        return self.conv_out(self.features(z))


class AutoencoderKL(Autoencoder):
    """Stable Diffusion's autoencoder; videos go through it frame by frame.

    Args:
        config: the structure.
        options: as of `Autoencoder`.
    """

    family = "sd"
    recomputed = (ResnetBlock,)

    def __init__(self, config: AutoencoderKLConfig, **options: Any) -> None:
        super().__init__(config, **options)
        channels = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = self.post_quant_conv = None
        if config.use_quant_conv:
            self.quant_conv = Conv2d(2 * channels, 2 * channels, kernel_size=1)
        if config.use_post_quant_conv:
            self.post_quant_conv = Conv2d(channels, channels, kernel_size=1)

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logvar (B, C, T, H', W') in fp32 of a video (B, 3, T, H, W)."""
        images = fold_frames(video.astype(self.encode_dtype))
        parts = []
        for start in range(0, images.shape[0], FRAMES_AT_ONCE):
            h = self.encoder(images[start : start + FRAMES_AT_ONCE])
            parts.append(h if self.quant_conv is None else self.quant_conv(h))
        moments = parts[0] if len(parts) == 1 else ops.concat(parts)
        return split_moments(unfold_frames(moments, video.shape[2]))

    def frames_from(self, latent: Tensor, num_frames: int | None = None) -> Tensor:
        """Return the video (B, 3, T, H, W) in fp32 of an unscaled latent (B, C, T, H', W')."""
        parts = [self.decoder(z) for z in self._images(latent)]
        frames = parts[0] if len(parts) == 1 else ops.concat(parts)
        return unfold_frames(frames, latent.shape[2]).astype(ms.float32)

    def features(self, z: Tensor, num_frames: int | None = None) -> tuple[Tensor, int]:
        """Return what the decoder's last convolution takes, (B*T, C, H, W), and T."""
        parts = [self.decoder.features(images) for images in self._images(z)]
        return parts[0] if len(parts) == 1 else ops.concat(parts), z.shape[2]

    def frames_of_features(self, features: Tensor, num_frames: int, weight: Tensor) -> Tensor:
        """Return the video (B, 3, T, H, W) in fp32, with `weight` as the last convolution's."""
        frames = self.decoder.frames(features, weight)
        return unfold_frames(frames, num_frames).astype(ms.float32)

    @property
    def last_weight(self) -> Parameter:
        """The weight of the decoder's last convolution, (3, C, 3, 3)."""
        return self.decoder.conv_out.weight

    def _images(self, latent: Tensor) -> list[Tensor]:
        """Return what the decoder takes: the frames of a latent, a few at a time."""
        images = fold_frames(latent.astype(self.decode_dtype))
        parts = []
        for start in range(0, images.shape[0], FRAMES_AT_ONCE):
            z = images[start : start + FRAMES_AT_ONCE]
            parts.append(z if self.post_quant_conv is None else self.post_quant_conv(z))
        return parts
