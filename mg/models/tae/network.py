"""The two halves of the TAE: video to the moments of the latent's distribution, latent to video.

Layouts and precision: see `mg.models.layers`.

Source: Movie Gen (arXiv 2410.13720) section 3.1.1. Patches larger than one pixel of one frame
(`patch_size`, `patch_size_t`) and the linear path are not in the paper.
"""

from mindspore import Tensor, nn, ops

from mg.models.layers.convolution import Conv2_5d, Conv2d
from mg.models.layers.devices import operations
from mg.models.layers.frames import fold_frames, unfold_frames
from mg.models.layers.normalisation import GammaGroupNorm
from mg.models.layers.patches import fold_patches, unfold_patches
from mg.models.layers.time_resampling import TemporalDownsample, TemporalUpsample
from mg.models.tae.config import TAEConfig
from mg.models.tae.layers import (
    ResnetBlock,
    SpatialDownsample,
    SpatialUpsample,
    make_attention,
)

__all__ = ["Decoder", "Encoder"]


def norm_options(config: TAEConfig) -> dict:
    """Return what the config says of normalisation, as keyword arguments of a block."""
    return {"norm_groups": config.norm_groups, "norm_per_frame": config.norm_per_frame}


class Level(nn.Cell):
    """The residual blocks of one level, each followed by attention if the config asks for it."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        num_blocks: int,
        level: int,
        config: TAEConfig,
    ) -> None:
        super().__init__()
        self.num_blocks = num_blocks
        norm = norm_options(config)
        widths = [in_channels] + [out_channels] * num_blocks
        self.block = nn.CellList(
            [
                ResnetBlock(widths[i], widths[i + 1], dropout=config.dropout, **norm)
                for i in range(num_blocks)
            ]
        )
        self.attn = None
        if config.resolution // 2**level in config.attn_resolutions:
            self.attn = nn.CellList(
                [make_attention(out_channels, config.attn_type, **norm) for _ in range(num_blocks)]
            )

    def through_blocks(self, x: Tensor, num_frames: int) -> Tensor:
        for i in range(self.num_blocks):
            x = self.block[i](x, num_frames)
            if self.attn is not None:
                for attention in self.attn[i]:
                    x = attention(x, num_frames)
        return x


class Middle(nn.Cell):
    """Block, attention over space and time, block; in the middle of encoder and decoder."""

    def __init__(self, channels: int, *, config: TAEConfig) -> None:
        super().__init__()
        norm = norm_options(config)
        self.block_1 = ResnetBlock(channels, channels, dropout=config.dropout, **norm)
        self.attn_1 = make_attention(channels, config.attn_type, **norm)
        self.block_2 = ResnetBlock(channels, channels, dropout=config.dropout, **norm)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        x = self.block_1(x, num_frames)
        for attention in self.attn_1:
            x = attention(x, num_frames)
        return self.block_2(x, num_frames)


class EncoderLevel(Level):
    """Residual blocks (with attention where asked), then spatial and temporal downsampling."""

    def __init__(
        self, in_channels: int, out_channels: int, *, level: int, config: TAEConfig
    ) -> None:
        super().__init__(
            in_channels, out_channels, num_blocks=config.num_res_blocks, level=level, config=config
        )
        self.downsample_spat = (
            SpatialDownsample(out_channels) if level < config.num_levels - 1 else None
        )
        self.downsample_temp = (
            TemporalDownsample(out_channels) if level in config.temporal_downsample_level else None
        )

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        x = self.through_blocks(x, num_frames)
        if self.downsample_spat is not None:
            x = self.downsample_spat(x)
        if self.downsample_temp is not None:
            x = self.downsample_temp(x, num_frames)
        return x


class Encoder(nn.Cell):
    """Video (B, 3, T, H, W) -> moments (B, 2*z_channels, T', H', W'), mean before logvar."""

    def __init__(self, config: TAEConfig) -> None:
        super().__init__()
        widths = [config.ch * multiple for multiple in (1, *config.ch_mult)]
        self.num_levels = config.num_levels
        self.halves_time = tuple(
            level in config.temporal_downsample_level for level in range(config.num_levels)
        )
        self.patch = (config.patch_size_t, config.patch_size)
        self.conv_in = Conv2_5d(config.in_channels * config.patch_volume, config.ch)
        self.down = nn.CellList(
            [
                EncoderLevel(widths[level], widths[level + 1], level=level, config=config)
                for level in range(config.num_levels)
            ]
        )
        self.mid = Middle(widths[-1], config=config)
        self.silu = operations().SiLU()
        self.norm_out = GammaGroupNorm(
            widths[-1], config.norm_groups, per_frame=config.norm_per_frame
        )
        num_moments = 2 if config.double_z else 1
        self.conv_out = Conv2_5d(widths[-1], num_moments * config.z_channels)
        self.block = (config.temporal_compression, config.spatial_compression)
        # The path's weights act on the mean over a block: a sum over so many values would change
        # with every step of a learning rate that suits the other layers.
        self.share = 1.0 / (config.in_channels * config.block_volume)
        self.linear = (
            Conv2d(
                config.in_channels * config.block_volume,
                num_moments * config.z_channels,
                kernel_size=1,
                starts_at_zero=True,
            )
            if config.linear_path
            else None
        )

    def construct(self, video: Tensor) -> Tensor:
        x, num_frames = fold_patches(video, *self.patch)
        x = self.conv_in(x, num_frames)  # (B*T, ch, H, W), of the patches' T, H, W
        for level in range(self.num_levels):
            x = self.down[level](x, num_frames)
            if self.halves_time[level]:
                num_frames = (num_frames + 1) // 2
        x = self.mid(x, num_frames)  # (B*T', C, H', W')
        x = self.conv_out(self.silu(self.norm_out(x, num_frames)), num_frames)
        if self.linear is not None:
            blocks, _ = fold_patches(video, *self.block)  # (B*T', 3 * block_volume, H', W')
            x = x + self.linear(blocks * self.share)
        return unfold_frames(x, num_frames)


class DecoderLevel(Level):
    """Residual blocks (with attention where asked), then spatial and temporal upsampling."""

    def __init__(
        self, in_channels: int, out_channels: int, *, level: int, config: TAEConfig
    ) -> None:
        num_blocks = config.num_res_blocks + 1
        super().__init__(
            in_channels, out_channels, num_blocks=num_blocks, level=level, config=config
        )
        self.upsample_spat = SpatialUpsample(out_channels) if level > 0 else None
        self.upsample_temp = (
            TemporalUpsample(out_channels, temporal_padding=config.temporal_padding)
            if level in config.temporal_upsample_level
            else None
        )

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        x = self.through_blocks(x, num_frames)
        if self.upsample_spat is not None:
            x = self.upsample_spat(x)
        if self.upsample_temp is not None:
            x = self.upsample_temp(x, num_frames)
        return x


class Decoder(nn.Cell):
    """Latent (B, z_channels, T', H', W') -> video (B, 3, 8T', 8H', 8W').

    Levels are numbered from the output side: `up[0]` is the last one and has full resolution.
    """

    def __init__(self, config: TAEConfig) -> None:
        super().__init__()
        widths = [
            config.decoder_width * multiple for multiple in (*config.ch_mult, config.ch_mult[-1])
        ]
        self.num_levels = config.num_levels
        self.doubles_time = tuple(
            level in config.temporal_upsample_level for level in range(config.num_levels)
        )
        self.conv_in = Conv2_5d(config.z_channels, widths[-1])
        self.mid = Middle(widths[-1], config=config)
        self.up = nn.CellList(
            [
                DecoderLevel(widths[level + 1], widths[level], level=level, config=config)
                for level in range(config.num_levels)
            ]
        )
        self.silu = operations().SiLU()
        self.norm_out = GammaGroupNorm(
            widths[0], config.norm_groups, per_frame=config.norm_per_frame
        )
        self.conv_out = Conv2_5d(widths[0], config.out_ch * config.patch_volume)
        self.patch = (config.patch_size_t, config.patch_size)
        self.width = widths[0]
        # What the patches of one pixel of latent are, in time and along each side.
        self.block = (
            config.temporal_compression // config.patch_size_t,
            config.spatial_compression // config.patch_size,
        )
        self.linear = (
            Conv2d(
                config.z_channels,
                config.out_ch * config.block_volume,
                kernel_size=1,
                starts_at_zero=True,
            )
            if config.linear_path
            else None
        )

    def features(self, z: Tensor) -> tuple[Tensor, int]:
        """Return features (B*T, ch, H, W), what `frames` takes, and T, the number of frames.

        With a linear path its frames lie beside the features, as 3 * patch_volume more channels.
        """
        num_latents = num_frames = z.shape[2]
        x = self.conv_in(fold_frames(z), num_frames)  # (B*T', C, H', W')
        x = self.mid(x, num_frames)
        for i in range(self.num_levels):
            level = self.num_levels - 1 - i
            x = self.up[level](x, num_frames)
            if self.doubles_time[level]:
                num_frames = 2 * num_frames
        x = self.silu(self.norm_out(x, num_frames))
        if self.linear is not None:
            blocks = self.linear(fold_frames(z))  # (B*T', 3 * block_volume, H', W')
            patches = unfold_patches(blocks, num_latents, *self.block)
            x = ops.concat((x, fold_frames(patches)), 1)
        return x, num_frames

    def frames(self, features: Tensor, num_frames: int, weight: Tensor) -> Tensor:
        """Return the video (B, 3, T, H, W) of `features`, with `weight` as the last spatial one."""
        x = self.conv_out.with_spatial_weight(features[:, : self.width], num_frames, weight)
        if self.linear is not None:
            x = x + features[:, self.width :]
        return unfold_patches(x, num_frames, *self.patch)

    def construct(self, z: Tensor) -> Tensor:
        return self.frames(*self.features(z), self.conv_out.conv_spat.weight)
