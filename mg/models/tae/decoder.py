"""The decoder half of the TAE: latent to video."""

from mindspore import Tensor, nn, ops

from mg.models.layers.convolution import Conv2_5d, Conv2d
from mg.models.layers.devices import operations
from mg.models.layers.frames import fold_frames
from mg.models.tae.config import TAEConfig
from mg.models.tae.layers import GroupNorm
from mg.models.tae.levels import Level, Middle
from mg.models.tae.patches import unfold_patches
from mg.models.tae.resampling import SpatialUpsample, TemporalUpsample

__all__ = ["Decoder"]


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
        self.norm_out = GroupNorm(widths[0], config.norm_groups, per_frame=config.norm_per_frame)
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
