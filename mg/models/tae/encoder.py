"""The encoder half of the TAE: video to the moments of the latent's distribution."""

from mindspore import Tensor, nn

from mg.models.layers.convolution import Conv2_5d, Conv2d
from mg.models.layers.devices import operations
from mg.models.layers.frames import unfold_frames
from mg.models.tae.config import TAEConfig
from mg.models.tae.layers import GroupNorm
from mg.models.tae.levels import Level, Middle
from mg.models.tae.patches import fold_patches
from mg.models.tae.resampling import SpatialDownsample, TemporalDownsample

__all__ = ["Encoder"]


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
        self.norm_out = GroupNorm(widths[-1], config.norm_groups, per_frame=config.norm_per_frame)
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
