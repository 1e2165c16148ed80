"""Open-Sora-Plan's causal video autoencoder (`CausalVAEModel`, v1.0 to v1.2).

Layouts
    video    (B, 3, T, H, W)           in [-1, 1], T = 4k + 1
    latent   (B, C, k + 1, H/8, W/8)
    folded   (B*T, C, H, W)            inside
The sizes are those of the published networks; the config names the module at every place. 3-D
modules are causal and repeat the first frame; 2-D ones see each frame as an image. The first frame
stands for itself: it is never merged with others on the way down, nor doubled on the way up.
Names of parameters are Open-Sora-Plan's. Precision: see `mg.models.layers`.

Source: Open-Sora Plan (arXiv 2412.00131) section 2.1; github.com/PKU-YuanGroup/Open-Sora-Plan.
"""

from collections.abc import Mapping
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

from mg.models.autoencoder import Autoencoder
from mg.models.causal_vae.blocks import ResnetBlock, make_attention, make_conv, make_resnet_block
from mg.models.causal_vae.config import DOWNSAMPLERS, UPSAMPLERS, CausalVAEConfig
from mg.models.causal_vae.names import completed, explain_names
from mg.models.causal_vae.samplers import make_sampler
from mg.models.layers.devices import operations
from mg.models.layers.frames import fold_frames, unfold_frames
from mg.models.layers.moments import split_moments
from mg.models.layers.normalisation import GroupNorm

__all__ = ["CausalVideoVAE"]


class Level(nn.Cell):
    """Residual blocks, each followed by attention where asked; samplers are set by subclasses.

    Args:
        block: the name of the blocks.
        widths: channels before, between and behind the blocks.
        attention: the name of the attention behind each block; None for none.
        num_groups: of the normalisation.
    """

    def __init__(
        self, block: str, widths: list[int], attention: str | None, num_groups: int
    ) -> None:
        super().__init__()
        self.block = nn.CellList(
            [
                make_resnet_block(block, widths[i], widths[i + 1], num_groups)
                for i in range(len(widths) - 1)
            ]
        )
        self.attn = None
        if attention is not None:
            self.attn = nn.CellList(
                [make_attention(attention, width, num_groups) for width in widths[1:]]
            )

    def through_blocks(self, x: Tensor, num_frames: int) -> Tensor:
        for i in range(len(self.block)):
            x = self.block[i](x, num_frames)
            if self.attn is not None:
                x = self.attn[i](x, num_frames)
        return x


class EncoderLevel(Level):
    """Blocks, then downsampling in space, then in time. The last level's samplers are not used."""

    def __init__(self, level: int, config: CausalVAEConfig) -> None:
        widths, groups = config.widths, config.norm_num_groups
        below, width = (config.hidden_size, *widths)[level], widths[level]
        attends = config.attends[0][level]
        super().__init__(
            config.encoder_resnet_blocks[level],
            [below] + [width] * config.num_res_blocks,
            config.encoder_attention if attends else None,
            groups,
        )
        in_space = config.encoder_spatial_downsample[level]
        self.downsample = make_sampler(in_space, width, groups)
        self.time_downsample = make_sampler(
            config.encoder_temporal_downsample[level], width, groups
        )
        self.in_time = DOWNSAMPLERS[in_space][0]  # what `downsample` divides time by
        self.is_last = level == config.num_levels - 1

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        x = self.through_blocks(x, num_frames)
        if self.is_last:
            return x
        if self.downsample is not None:
            x = self.downsample(x, num_frames)
        if self.time_downsample is not None:
            x = self.time_downsample(x, (num_frames - 1) // self.in_time + 1)
        return x


class DecoderLevel(Level):
    """Blocks, then upsampling in space, then in time."""

    def __init__(self, level: int, config: CausalVAEConfig) -> None:
        widths, groups = config.widths, config.norm_num_groups
        above, width = (*widths[1:], widths[-1])[level], widths[level]
        attends = config.attends[1][level]
        super().__init__(
            config.decoder_resnet_blocks[level],
            [above] + [width] * (config.num_res_blocks + 1),
            config.decoder_attention if attends else None,
            groups,
        )
        in_space = config.decoder_spatial_upsample[level]
        self.upsample = make_sampler(in_space, width, groups)
        self.time_upsample = make_sampler(config.decoder_temporal_upsample[level], width, groups)
        self.in_time = UPSAMPLERS[in_space][0]

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        x = self.through_blocks(x, num_frames)
        if self.upsample is not None:
            x = self.upsample(x, num_frames)
        if self.time_upsample is not None:
            x = self.time_upsample(x, (num_frames - 1) * self.in_time + 1)
        return x


class Middle(nn.Cell):
    """Block, attention, block."""

    def __init__(self, block: str, attention: str, channels: int, num_groups: int) -> None:
        super().__init__()
        self.block_1 = make_resnet_block(block, channels, channels, num_groups)
        self.attn_1 = make_attention(attention, channels, num_groups)
        self.block_2 = make_resnet_block(block, channels, channels, num_groups)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        x = self.attn_1(self.block_1(x, num_frames), num_frames)
        return self.block_2(x, num_frames)


class Encoder(nn.Cell):
    """Video (B, 3, 4k+1, H, W) -> features (B, 2 C, k+1, H/8, W/8)."""

    def __init__(self, config: CausalVAEConfig) -> None:
        super().__init__()
        width, groups = config.widths[-1], config.norm_num_groups
        self.conv_in = make_conv(config.encoder_conv_in, 3, config.hidden_size, kernel_size=3)
        self.down = nn.CellList([EncoderLevel(level, config) for level in range(config.num_levels)])
        self.mid = Middle(config.encoder_mid_resnet, config.encoder_attention, width, groups)
        self.norm_out = GroupNorm(width, groups)
        self.silu = operations().SiLU()
        self.conv_out = make_conv(
            config.encoder_conv_out, width, 2 * config.z_channels, kernel_size=3
        )
        self.in_time = tuple(time for time, _ in config.downsampling)

    def construct(self, video: Tensor) -> Tensor:
        num_frames = video.shape[2]
        x = self.conv_in(fold_frames(video), num_frames)
        for level in range(len(self.down)):
            x = self.down[level](x, num_frames)
            num_frames = (num_frames - 1) // self.in_time[level] + 1
        x = self.silu(self.norm_out(self.mid(x, num_frames), num_frames))
        return unfold_frames(self.conv_out(x, num_frames), num_frames)


class Decoder(nn.Cell):
    """Features (B, C, k+1, H/8, W/8) -> video (B, 3, 4k+1, H, W).

    Levels are numbered from the output side: `up[0]` is the last one.
    """

    def __init__(self, config: CausalVAEConfig) -> None:
        super().__init__()
        widths, groups = config.widths, config.norm_num_groups
        self.conv_in = make_conv(
            config.decoder_conv_in, config.z_channels, widths[-1], kernel_size=3
        )
        self.mid = Middle(config.decoder_mid_resnet, config.decoder_attention, widths[-1], groups)
        self.up = nn.CellList([DecoderLevel(level, config) for level in range(config.num_levels)])
        self.norm_out = GroupNorm(widths[0], groups)
        self.silu = operations().SiLU()
        self.conv_out = make_conv(config.decoder_conv_out, widths[0], 3, kernel_size=3)
        self.in_time = tuple(time for time, _ in config.upsampling)

    def features(self, z: Tensor) -> tuple[Tensor, int]:
        """Return what `conv_out` takes, (B*T, C, H, W), and T."""
        num_frames = z.shape[2]
        x = self.mid(self.conv_in(fold_frames(z), num_frames), num_frames)
        for i in range(len(self.up)):
            level = len(self.up) - 1 - i
            x = self.up[level](x, num_frames)
            num_frames = (num_frames - 1) * self.in_time[level] + 1
        return self.silu(self.norm_out(x, num_frames)), num_frames


class CausalVideoVAE(Autoencoder):
    """CausalVideoVAE: 4x8x8, clips of 4k + 1 frames in one piece.

    Args:
        config: the structure, or the fields of a config.json; None takes the class's defaults.
        options: as of `Autoencoder`.
    """

    family = "causal_vae"
    recomputed = (ResnetBlock,)

    def __init__(
        self, config: CausalVAEConfig | Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        super().__init__(CausalVAEConfig.from_mapping({} if config is None else config), **options)
        config = self.config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = self.post_quant_conv = None
        if config.use_quant_layer:
            channels, inner = config.embed_dim, config.z_channels
            self.quant_conv = make_conv(config.q_conv, 2 * inner, 2 * channels, kernel_size=1)
            self.post_quant_conv = make_conv(config.q_conv, channels, inner, kernel_size=1)

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logvar (B, C, k+1, H', W') in fp32 of a video (B, 3, 4k+1, H, W)."""
        h = self.encoder(video.astype(self.encode_dtype))
        if self.quant_conv is not None:
            num_frames = h.shape[2]
            h = unfold_frames(self.quant_conv(fold_frames(h), num_frames), num_frames)
        return split_moments(h)

    def features(self, z: Tensor, num_frames: int | None = None) -> tuple[Tensor, int]:
        """Return what the decoder's last convolution takes, (B*T, C, H, W), and T = 4k + 1."""
        z = z.astype(self.decode_dtype)
        if self.post_quant_conv is not None:
            num_latents = z.shape[2]
            z = unfold_frames(self.post_quant_conv(fold_frames(z), num_latents), num_latents)
        return self.decoder.features(z)

    def frames_of_features(self, features: Tensor, num_frames: int, weight: Tensor) -> Tensor:
        """Return the video (B, 3, T, H, W) in fp32, with `weight` as the last convolution's."""
        x = self.decoder.conv_out.convolved_with(features, num_frames, weight)
        return unfold_frames(x, num_frames).astype(ms.float32)

    @property
    def last_weight(self) -> Parameter:
        """The weight of the decoder's last convolution, (3, C, 3, 3) or (3, C, 3, 3, 3)."""
        return self.decoder.conv_out.own_weight

    def load_tensors(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Set all parameters; see `Autoencoder.load_tensors`.

        Weights of v1.0's `Time*ResAdv2x` have no `mix_factor`: there nothing is mixed in.
        """
        super().load_tensors(completed(tensors, self.config))

    def explain_mismatch(self, tensors: Mapping[str, np.ndarray]) -> list[str]:
        own = {name: tuple(p.shape) for name, p in self.parameters_and_names()}
        return explain_names(own, tensors, self.config)
