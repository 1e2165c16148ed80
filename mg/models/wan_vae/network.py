"""Wan's causal video autoencoders (`AutoencoderKLWan` of diffusers): 2.1 (4x8x8), 2.2 (4x16x16).

Layouts
    video    (B, 3, T, H, W)           in [-1, 1], T = 4k + 1
    latent   (B, C, k + 1, H/8, W/8)   of Wan 2.2 (B, C, k + 1, H/16, W/16)
    folded   (B*T, C, H, W)            inside
All convolutions are causal, with zeros in front. The first frame stands for itself: it passes the
convolutions that halve and double time. Nothing else looks at more than one frame, so a clip
can be coded in pieces, first one frame (of latent), then as many as one likes, with the same
result: each piece hands on what later ones need of it, its `past` (see `layers`).
Names of parameters are diffusers'. Precision: see `mg.models.layers`.

Source: Wan (arXiv 2503.20314) section 4.1.
"""

from collections.abc import Mapping
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.ops import constexpr

from mg.models.autoencoder import Autoencoder
from mg.models.layers.convolution3d import Conv3d
from mg.models.layers.devices import operations
from mg.models.layers.frames import fold_frames, unfold_frames
from mg.models.layers.moments import split_moments
from mg.models.wan_vae.config import WanVAEConfig
from mg.models.wan_vae.layers import (
    CausalConv,
    Downsample,
    MidBlock,
    Past,
    ResidualBlock,
    RMSNorm,
    Upsample,
)
from mg.models.wan_vae.rearranging import AverageShortcut, DuplicateShortcut, patchify, unpatchify
from mg.tiling.pieces import PieceLengths
from mg.weights.wan_names import wan_config_fields

__all__ = ["WanVAE"]

# Frames of video, and of latent, of each piece behind the first frame.
FRAMES_AT_ONCE, LATENTS_AT_ONCE = 4, 1


class Level(nn.Cell):
    """Residual blocks, of which the first changes the number of channels."""

    def __init__(self, num_blocks: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * num_blocks
        blocks = [ResidualBlock(widths[i], widths[i + 1]) for i in range(num_blocks)]
        self.resnets = nn.CellList(blocks)
        self.num_block_pasts = 2 * num_blocks
        self.num_pasts = self.num_block_pasts

    def through_blocks(
        self, x: Tensor, num_clips: int, past: Past, keeps_past: bool
    ) -> tuple[Tensor, Past]:
        kept = ()
        for i, block in enumerate(self.resnets):
            x, frames = block(x, num_clips, past[2 * i : 2 * i + 2], keeps_past)
            kept = kept + frames
        return x, kept


class UpBlock(Level):
    """A level of the decoder of Wan 2.1; the sampler halves the channels."""

    def __init__(
        self, num_blocks: int, in_channels: int, out_channels: int, factors: tuple[int, int]
    ) -> None:
        super().__init__(num_blocks, in_channels, out_channels)
        self.upsamplers = None
        if factors[1] > 1:
            sampler = Upsample(out_channels, out_channels // 2, doubles_time=factors[0] > 1)
            self.upsamplers = nn.CellList([sampler])
            self.num_pasts += sampler.num_pasts

    def construct(
        self, x: Tensor, num_clips: int, past: Past, keeps_past: bool
    ) -> tuple[Tensor, Past]:
        x, kept = self.through_blocks(x, num_clips, past, keeps_past)
        if self.upsamplers is None:
            return x, kept
        own = past[self.num_block_pasts :]
        x, frames = self.upsamplers[0](x, num_clips, own, keeps_past)
        return x, kept + frames


class ResidualDownBlock(Level):
    """A level of the encoder of Wan 2.2, with a shortcut around all of it."""

    def __init__(
        self, num_blocks: int, in_channels: int, out_channels: int, factors: tuple[int, int]
    ) -> None:
        super().__init__(num_blocks, in_channels, out_channels)
        self.shortcut = AverageShortcut(in_channels, out_channels, factors)
        self.downsampler = None
        if factors[1] > 1:
            self.downsampler = Downsample(out_channels, halves_time=factors[0] > 1)
            self.num_pasts += self.downsampler.num_pasts

    def construct(
        self, x: Tensor, num_clips: int, past: Past, keeps_past: bool
    ) -> tuple[Tensor, Past]:
        h, kept = self.through_blocks(x, num_clips, past, keeps_past)
        if self.downsampler is not None:
            own = past[self.num_block_pasts :]
            h, frames = self.downsampler(h, num_clips, own, keeps_past)
            kept = kept + frames
        return h + self.shortcut(x, num_clips), kept


class ResidualUpBlock(Level):
    """A level of the decoder of Wan 2.2, with a shortcut around all of it, but for the last."""

    def __init__(
        self, num_blocks: int, in_channels: int, out_channels: int, factors: tuple[int, int]
    ) -> None:
        super().__init__(num_blocks, in_channels, out_channels)
        self.shortcut, self.upsampler = None, None
        if factors[1] > 1:
            self.shortcut = DuplicateShortcut(in_channels, out_channels, factors)
            self.upsampler = Upsample(out_channels, out_channels, doubles_time=factors[0] > 1)
            self.num_pasts += self.upsampler.num_pasts

    def construct(
        self, x: Tensor, num_clips: int, past: Past, keeps_past: bool
    ) -> tuple[Tensor, Past]:
        h, kept = self.through_blocks(x, num_clips, past, keeps_past)
        if self.upsampler is None:
            return h, kept
        own = past[self.num_block_pasts :]
        h, frames = self.upsampler(h, num_clips, own, keeps_past)
        return h + self.shortcut(x, num_clips, len(past) == 0), kept + frames


def make_down_blocks(config: WanVAEConfig) -> nn.CellList:
    """Return the levels of the encoder; of Wan 2.1 blocks and samplers in one row."""
    widths, cells = config.encoder_widths, []
    for level in range(config.num_levels):
        below, width = widths[level : level + 2]
        factors = config.resampling(level, encodes=True)
        if config.is_residual:
            cells.append(ResidualDownBlock(config.num_res_blocks, below, width, factors))
            continue
        for block in range(config.num_res_blocks):
            cells.append(ResidualBlock(width if block else below, width))
        if factors[1] > 1:
            cells.append(Downsample(width, halves_time=factors[0] > 1))
    return nn.CellList(cells)


def make_up_blocks(config: WanVAEConfig) -> nn.CellList:
    """Return the levels of the decoder."""
    widths, num_blocks, cells = config.decoder_widths, config.num_res_blocks + 1, []
    for level in range(config.num_levels):
        above, width = widths[level : level + 2]
        factors = config.resampling(level, encodes=False)
        if config.is_residual:
            cells.append(ResidualUpBlock(num_blocks, above, width, factors))
        else:
            above = above // 2 if level else above
            cells.append(UpBlock(num_blocks, above, width, factors))
    return nn.CellList(cells)


class Encoder(nn.Cell):
    """A piece of video (B, 3, T, H, W) -> moments (B, 2 C, T', H', W'), mean before logvar."""

    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        self.patch = config.patch
        width = config.encoder_widths[-1]
        self.conv_in = CausalConv(config.in_channels, config.encoder_widths[0])
        self.down_blocks = make_down_blocks(config)
        self.mid_block = MidBlock(width)
        self.norm_out = RMSNorm(width)
        self.silu = operations().SiLU()
        self.conv_out = CausalConv(width, 2 * config.z_dim)

    def construct(self, video: Tensor, keeps_past: bool, *past: Tensor) -> tuple[Tensor, ...]:
        """Return the moments, and what to hand on where `keeps_past`."""
        num_clips = video.shape[0]
        x = patchify(fold_frames(video), self.patch)
        x, kept = self.conv_in(x, num_clips, past[:1], keeps_past)
        start = 1
        for block in self.down_blocks:
            x, frames = block(x, num_clips, past[start : start + block.num_pasts], keeps_past)
            kept, start = kept + frames, start + block.num_pasts
        x, frames = self.mid_block(x, num_clips, past[start : start + 4], keeps_past)
        x = self.silu(self.norm_out(x))
        x, last = self.conv_out(x, num_clips, past[start + 4 :], keeps_past)
        return (unfold_frames(x, x.shape[0] // num_clips), *kept, *frames, *last)


class Decoder(nn.Cell):
    """A piece of latent (B, C, T', H', W') -> video (B, 3, T, H, W)."""

    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        self.patch = config.patch
        widths = config.decoder_widths
        self.conv_in = CausalConv(config.z_dim, widths[0])
        self.mid_block = MidBlock(widths[0])
        self.up_blocks = make_up_blocks(config)
        self.norm_out = RMSNorm(widths[-1])
        self.silu = operations().SiLU()
        self.conv_out = CausalConv(widths[-1], config.out_channels)

    def features(self, latent: Tensor, keeps_past: bool, past: Past) -> tuple[Tensor, Past]:
        """Return what the last convolution sees, (B*T, C, H / patch, W / patch), and the past."""
        num_clips = latent.shape[0]
        x, kept = self.conv_in(fold_frames(latent), num_clips, past[:1], keeps_past)
        x, frames = self.mid_block(x, num_clips, past[1:5], keeps_past)
        kept, start = kept + frames, 5
        for block in self.up_blocks:
            x, frames = block(x, num_clips, past[start : start + block.num_pasts], keeps_past)
            kept, start = kept + frames, start + block.num_pasts
        return self.silu(self.norm_out(x)), kept

    def frames(
        self, features: Tensor, num_frames: int, past: Past, keeps_past: bool, weight: Tensor
    ) -> tuple[Tensor, Past]:
        """Return the video, with `weight` as the last weight, and the past."""
        num_clips = features.shape[0] // num_frames
        x, kept = self.conv_out.of_weight(features, num_clips, past, keeps_past, weight)
        return unfold_frames(unpatchify(x, self.patch), num_frames), kept

    def construct(self, latent: Tensor, keeps_past: bool, *past: Tensor) -> tuple[Tensor, ...]:
        """Return the video, and what to hand on where `keeps_past`."""
        x, kept = self.features(latent, keeps_past, past)
        num_frames = x.shape[0] // latent.shape[0]
        weight = self.conv_out.weight
        video, last = self.frames(x, num_frames, past[len(past) - 1 :], keeps_past, weight)
        return (video, *kept, *last)


class WanVAE(Autoencoder):
    """Wan's autoencoder: clips of 4k + 1 frames, of any length in the memory of a few frames.

    Args:
        config: the structure; None takes Wan 2.1's.
        framewise: whether clips are coded piece after piece, in constant memory, where the network
            is not in training; the result is the same.
        clip_output: whether decoded frames are clipped to [-1, 1] where the network is not in
            training; None takes what the config says.
        options: as of `Autoencoder`.
    """

    family = "wan"
    recomputed = (ResidualBlock,)

    def __init__(
        self,
        config: WanVAEConfig | None = None,
        *,
        framewise: bool = True,
        clip_output: bool | None = None,
        **options: Any,
    ) -> None:
        config = WanVAEConfig() if config is None else config
        super().__init__(config, **options)
        self.framewise = framewise
        self.clip_output = config.clip_output if clip_output is None else clip_output
        channels = config.z_dim
        self.encoder = Encoder(config)
        self.quant_conv = Conv3d(2 * channels, 2 * channels, kernel_size=1)
        self.post_quant_conv = Conv3d(channels, channels, kernel_size=1)
        self.decoder = Decoder(config)

    @property
    def piece_frames(self) -> PieceLengths | None:
        """Lengths of the pieces."""
        return PieceLengths(1, FRAMES_AT_ONCE) if self.framewise else None

    def explain_mismatch(self, tensors: Mapping[str, np.ndarray]) -> list[str]:
        try:
            found = wan_config_fields({name: array.shape for name, array in tensors.items()})
        except ValueError:
            return []  # names of missing tensors say more
        wanted = self.config.to_dict()
        wanted["decoder_base_dim"] = self.config.decoder_widths[-1] // self.config.dim_mult[0]
        found["decoder_base_dim"] = found["decoder_base_dim"] or found["base_dim"]
        return [
            f"{name}: the weights say {value}, the config says {wanted[name]}"
            for name, value in found.items()
            if value != wanted[name]
        ]

    # -- a piece of a clip -----------------------------------------------------------------------

    def encode_piece(
        self, video: Tensor, past: Past = (), *, keeps_past: bool = True
    ) -> tuple[Tensor, Tensor, Past]:
        """Return mean and logvar (B, C, T', H', W') in fp32 of a piece, and the past of the next.

        Args:
            video: (B, 3, T, H, W); T = 4k + 1 in the first piece of a clip, 4k in others.
            past: what the piece before it handed on; () for the first.
            keeps_past: whether anything is handed on.
        """
        results = self.encoder(video.astype(self.encode_dtype), keeps_past, *past)
        h = results[0]
        mean, logvar = split_moments(unfold_frames(self.quant_conv(fold_frames(h)), h.shape[2]))
        return mean, logvar, results[1:]

    def decode_piece(
        self, z: Tensor, past: Past = (), *, keeps_past: bool = True
    ) -> tuple[Tensor, Past]:
        """Return the video (B, 3, T, H, W) in fp32 of a piece of latent, and the past of the next.

        Args:
            z: (B, C, T', H', W'), T' >= 1; T = 4T' - 3 in the first piece of a clip, 4T' in others.
            past: what the piece before it handed on; () for the first.
            keeps_past: whether anything is handed on.
        """
        results = self.decoder(self.post_quantised(z), keeps_past, *past)
        return self.finished(results[0]), results[1:]

    def post_quantised(self, z: Tensor) -> Tensor:
        z = z.astype(self.decode_dtype)
        return unfold_frames(self.post_quant_conv(fold_frames(z)), z.shape[2])

    def finished(self, frames: Tensor) -> Tensor:
        frames = frames.astype(ms.float32)
        if self.clip_output and not self.training:
            return ops.clamp(frames, -1.0, 1.0)
        return frames

    # -- inside compiled graphs: tensors in, tensors out, no checks ------------------------------

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logvar (B, C, k + 1, H', W') in fp32 of a video (B, 3, 4k + 1, H, W)."""
        if self.training or not self.framewise:
            mean, logvar, _ = self.encode_piece(video, keeps_past=False)
            return mean, logvar
        means, logvars, past = [], [], ()
        for start, stop in _pieces(video.shape[2], FRAMES_AT_ONCE):
            mean, logvar, past = self.encode_piece(video[:, :, start:stop], past)
            means.append(mean)
            logvars.append(logvar)
        return ops.concat(means, 2), ops.concat(logvars, 2)

    def frames_from(self, z: Tensor, num_frames: int | None = None) -> Tensor:
        """Return the video (B, 3, 4k + 1, H, W) in fp32 of a latent (B, C, k + 1, H', W')."""
        if self.training or not self.framewise:
            return self.decode_piece(z, keeps_past=False)[0]
        parts, past = [], ()
        for start, stop in _pieces(z.shape[2], LATENTS_AT_ONCE):
            frames, past = self.decode_piece(z[:, :, start:stop], past)
            parts.append(frames)
        return ops.concat(parts, 2)

    def features(self, z: Tensor, num_frames: int | None = None) -> tuple[Tensor, int]:
        """Return what the decoder's last convolution turns into frames, and their number T."""
        x, _ = self.decoder.features(self.post_quantised(z), False, ())
        return x, x.shape[0] // z.shape[0]

    def frames_of_features(self, features: Tensor, num_frames: int, weight: Tensor) -> Tensor:
        """Return the video (B, 3, T, H, W) in fp32, with `weight` as the last weight."""
        return self.finished(self.decoder.frames(features, num_frames, (), False, weight)[0])

    @property
    def last_weight(self) -> Parameter:
        """The weight of the decoder's last convolution, (3 patch_size^2, C, 3, 3, 3)."""
        return self.decoder.conv_out.weight


@constexpr
def _pieces(num_frames: int, frames_at_once: int) -> tuple[tuple[int, int], ...]:
    """Return start and stop of the first frame, and of the pieces behind it."""
    starts = range(1, num_frames, frames_at_once)
    return (0, 1), *((start, min(start + frames_at_once, num_frames)) for start in starts)
