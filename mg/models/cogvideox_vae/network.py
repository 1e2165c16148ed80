"""CogVideoX's causal video autoencoder (`AutoencoderKLCogVideoX` of diffusers).

Layouts
    video    (B, 3, T, H, W)           in [-1, 1], T = 8k + 1, or 1
    latent   (B, C, 2k + 1, H/8, W/8)
    folded   (B*T, C, H, W)            inside
Videos are coded in chunks of 8 frames (2 of latent), the first with one more. Normalisation sees
its chunk alone; convolutions see the end of the chunk before: each hands the last 2 frames that
went into it on to the next chunk, its `past`.
A chunk with an odd number of frames has a first frame that stands for itself: it is never merged
with others on the way down, nor doubled on the way up.
Names of parameters are diffusers'. Precision: see `mg.models.layers`.

Source: CogVideoX (arXiv 2408.06072) section 2.1.
"""

from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops
from mindspore.ops import constexpr

from mg.models.autoencoder import Autoencoder
from mg.models.cogvideox_vae.config import CogVideoXVAEConfig, chunk_lengths
from mg.models.cogvideox_vae.layers import CausalConv, Past, PlainNorm, ResnetBlock, SpatialNorm
from mg.models.cogvideox_vae.resampling import Downsample, Upsample
from mg.models.layers.devices import operations
from mg.models.layers.frames import fold_frames, unfold_frames
from mg.models.layers.moments import split_moments
from mg.tiling.pieces import PieceLengths

__all__ = ["CogVideoXVAE"]

# Frames of video, and of latent, that are coded together.
FRAMES_AT_ONCE, LATENTS_AT_ONCE = 8, 2


class Blocks(nn.Cell):
    """Residual blocks, of which the first changes the number of channels, then resampling."""

    def __init__(
        self,
        num_blocks: int,
        in_channels: int,
        out_channels: int,
        config: CogVideoXVAEConfig,
        *,
        decodes: bool,
        downsampler: Downsample | None = None,
        upsampler: Upsample | None = None,
    ) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * num_blocks
        self.resnets = nn.CellList(
            [
                ResnetBlock(widths[i], widths[i + 1], config, decodes=decodes)
                for i in range(num_blocks)
            ]
        )
        self.downsamplers = None if downsampler is None else nn.CellList([downsampler])
        self.upsamplers = None if upsampler is None else nn.CellList([upsampler])

    def construct(
        self, x: Tensor, num_frames: int, latent: Tensor | None, past: Past, keeps_past: bool
    ) -> tuple[Tensor, Past]:
        kept = ()
        for i, block in enumerate(self.resnets):
            x, frames = block(x, num_frames, latent, past[2 * i : 2 * i + 2], keeps_past)
            kept = kept + frames
        if self.downsamplers is not None:
            x = self.downsamplers[0](x, num_frames)
        if self.upsamplers is not None:
            x = self.upsamplers[0](x, num_frames)
        return x, kept


class Encoder(nn.Cell):
    """A chunk of video (B, 3, T, H, W) -> moments (B, 2 C, T', H/8, W/8), mean before logvar."""

    def __init__(self, config: CogVideoXVAEConfig) -> None:
        super().__init__()
        widths, num_blocks = config.block_out_channels, config.layers_per_block
        self.halves_time = config.resamples_time
        self.conv_in = CausalConv(config.in_channels, widths[0])
        blocks = []
        for level, width in enumerate(widths):
            is_last = level == config.num_levels - 1
            sampler = None if is_last else Downsample(width, halves_time=self.halves_time[level])
            below = widths[max(level - 1, 0)]
            blocks.append(
                Blocks(num_blocks, below, width, config, decodes=False, downsampler=sampler)
            )
        self.down_blocks = nn.CellList(blocks)
        self.mid_block = Blocks(2, widths[-1], widths[-1], config, decodes=False)
        self.norm_out = PlainNorm(widths[-1], config.norm_num_groups)
        self.silu = operations().SiLU()
        self.conv_out = CausalConv(widths[-1], 2 * config.latent_channels)
        self.per_level = 2 * num_blocks  # convolutions with a past

    def construct(self, video: Tensor, keeps_past: bool, *past: Tensor) -> tuple[Tensor, ...]:
        """Return the moments, and what the convolutions hand on where `keeps_past`."""
        num_frames = video.shape[2]
        x, kept = self.conv_in(fold_frames(video), num_frames, past[:1], keeps_past)
        start = 1
        for level, block in enumerate(self.down_blocks):
            own = past[start : start + self.per_level]
            x, frames = block(x, num_frames, None, own, keeps_past)
            kept, start = kept + frames, start + self.per_level
            if self.halves_time[level]:
                num_frames = (num_frames + 1) // 2
        x, frames = self.mid_block(x, num_frames, None, past[start : start + 4], keeps_past)
        x = self.silu(self.norm_out(x, num_frames, None))
        x, last = self.conv_out(x, num_frames, past[start + 4 :], keeps_past)
        return (unfold_frames(x, num_frames), *kept, *frames, *last)


class Decoder(nn.Cell):
    """A chunk of latent (B, C, T', H/8, W/8) -> video (B, 3, T, H, W)."""

    def __init__(self, config: CogVideoXVAEConfig) -> None:
        super().__init__()
        widths, num_blocks = config.block_out_channels[::-1], config.layers_per_block + 1
        self.doubles_time = config.resamples_time
        self.conv_in = CausalConv(config.latent_channels, widths[0])
        self.mid_block = Blocks(2, widths[0], widths[0], config, decodes=True)
        blocks = []
        for level, width in enumerate(widths):
            is_last = level == config.num_levels - 1
            sampler = None if is_last else Upsample(width, doubles_time=self.doubles_time[level])
            above = widths[max(level - 1, 0)]
            blocks.append(Blocks(num_blocks, above, width, config, decodes=True, upsampler=sampler))
        self.up_blocks = nn.CellList(blocks)
        self.norm_out = SpatialNorm(widths[-1], config)
        self.silu = operations().SiLU()
        self.conv_out = CausalConv(widths[-1], config.out_channels)
        self.per_level = 2 * num_blocks  # convolutions with a past

    def features(self, latent: Tensor, keeps_past: bool, past: Past) -> tuple[Tensor, int, Past]:
        """Return what the last convolution takes, (B*T, C, H, W), T, and what is handed on."""
        num_frames = latent.shape[2]
        x, kept = self.conv_in(fold_frames(latent), num_frames, past[:1], keeps_past)
        x, frames = self.mid_block(x, num_frames, latent, past[1:5], keeps_past)
        kept, start = kept + frames, 5
        for level, block in enumerate(self.up_blocks):
            own = past[start : start + self.per_level]
            x, frames = block(x, num_frames, latent, own, keeps_past)
            kept, start = kept + frames, start + self.per_level
            if self.doubles_time[level] and num_frames > 1:
                num_frames = 2 * num_frames - num_frames % 2
        return self.silu(self.norm_out(x, num_frames, latent)), num_frames, kept

    def frames(self, features: Tensor, num_frames: int, weight: Tensor) -> Tensor:
        """Return the video (B, 3, T, H, W) of a whole clip, with `weight` as the last weight."""
        x, _ = self.conv_out(features, num_frames, (), False, weight)
        return unfold_frames(x, num_frames)

    def construct(self, latent: Tensor, keeps_past: bool, *past: Tensor) -> tuple[Tensor, ...]:
        """Return the video, and what the convolutions hand on where `keeps_past`."""
        x, num_frames, kept = self.features(latent, keeps_past, past)
        x, last = self.conv_out(x, num_frames, past[len(past) - 1 :], keeps_past)
        return (unfold_frames(x, num_frames), *kept, *last)


class CogVideoXVAE(Autoencoder):
    """CogVideoX's autoencoder: 4x8x8, coded chunk after chunk.

    A latent of an odd number of frames decodes to 4k + 1, one of an even number to 4k: clips of
    8k + 1 frames come back as long as they were.

    Args:
        config: the structure; None takes the published network's.
        framewise: whether chunks of 8 frames are coded one by one, as the weights were trained and
            diffusers codes; else all frames together, whose normalisation then sees all of them.
        options: as of `Autoencoder`.
    """

    family = "cogvideox"
    recomputed = (ResnetBlock,)

    def __init__(
        self, config: CogVideoXVAEConfig | None = None, *, framewise: bool = True, **options: Any
    ) -> None:
        config = CogVideoXVAEConfig() if config is None else config
        super().__init__(config, **options)
        self.framewise = framewise
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    @property
    def piece_frames(self) -> PieceLengths | None:
        """Lengths of the chunks; the first takes what is over: of 8k + 1 frames, one."""
        return PieceLengths(FRAMES_AT_ONCE + 1, FRAMES_AT_ONCE) if self.framewise else None

    def encode_piece(self, video: Tensor, past: Past = ()) -> tuple[Tensor, Tensor, Past]:
        results = self.encoder(video.astype(self.encode_dtype), True, *past)
        return *split_moments(results[0]), results[1:]

    def decode_piece(self, z: Tensor, past: Past = ()) -> tuple[Tensor, Past]:
        results = self.decoder(z.astype(self.decode_dtype), True, *past)
        return results[0].astype(ms.float32), results[1:]

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logvar (B, C, T', H', W') in fp32 of a video (B, 3, T, H, W)."""
        lengths = _lengths(video.shape[2], FRAMES_AT_ONCE if self.framewise else None)
        return split_moments(_in_chunks(self.encoder, video.astype(self.encode_dtype), lengths))

    def frames_from(self, latent: Tensor, num_frames: int | None = None) -> Tensor:
        """Return the video (B, 3, T, H, W) in fp32 of an unscaled latent (B, C, T', H', W')."""
        lengths = _lengths(latent.shape[2], LATENTS_AT_ONCE if self.framewise else None)
        frames = _in_chunks(self.decoder, latent.astype(self.decode_dtype), lengths)
        return frames.astype(ms.float32)

    def features(self, z: Tensor, num_frames: int | None = None) -> tuple[Tensor, int]:
        """Return what the decoder's last convolution takes, (B*T, C, H, W), and T."""
        z = z.astype(self.decode_dtype)
        parts, past, start, total = [], (), 0, 0
        for length in _lengths(z.shape[2], LATENTS_AT_ONCE if self.framewise else None):
            x, decoded, past = self.decoder.features(z[:, :, start : start + length], True, past)
            parts.append(unfold_frames(x, decoded))
            start, total = start + length, total + decoded
        return fold_frames(ops.concat(parts, 2)), total

    def frames_of_features(self, features: Tensor, num_frames: int, weight: Tensor) -> Tensor:
        """Return the video (B, 3, T, H, W) in fp32, with `weight` as the last convolution's."""
        # Over all chunks at once: the convolution sees the end of the chunk before either way.
        return self.decoder.frames(features, num_frames, weight).astype(ms.float32)

    @property
    def last_weight(self) -> Parameter:
        """The weight of the decoder's last convolution, (3, C, 3, 3, 3)."""
        return self.decoder.conv_out.conv.weight


@constexpr
def _lengths(num_frames: int, frames_at_once: int | None) -> tuple[int, ...]:
    return chunk_lengths(num_frames, frames_at_once)


def _in_chunks(coder: nn.Cell, x: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Return what `coder` makes of the chunks of x (B, C, T, H, W), one after the other."""
    if len(lengths) == 1:
        return coder(x, False)[0]
    parts, past, start = [], (), 0
    for length in lengths:
        results = coder(x[:, :, start : start + length], True, *past)
        parts.append(results[0])
        past = results[1:]
        start = start + length
    return ops.concat(parts, 2)
