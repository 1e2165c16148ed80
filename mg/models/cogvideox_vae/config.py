"""The config of diffusers' `AutoencoderKLCogVideoX`, under its own field names."""

import dataclasses
from typing import ClassVar

from mg.models.diffusers_config import DiffusersConfig

__all__ = ["CogVideoXVAEConfig", "chunk_lengths"]


@dataclasses.dataclass(frozen=True)
class CogVideoXVAEConfig(DiffusersConfig):
    """The structure of a CogVideoX VAE; the defaults are the published network's.

    Attributes:
        norm_eps: epsilon of every GroupNorm.
        temporal_compression_ratio: frames of video per frame of the latent.
        sample_height, sample_width: twice the size of a tile, in pixels, see `mg.vaes`.
        scaling_factor: what a latent is multiplied by for a generator: 1.15258426 in
            CogVideoX-2b, 0.7 in CogVideoX-5b.
        shift_factor: what is subtracted from a latent before it is scaled for a generator; null
            for nothing.
        latents_mean, latents_std: mean and deviation of each channel of the latent, to scale it
            for a generator; null for none.
        invert_scale_latents: whether a generator of CogVideoX divides by `scaling_factor` the
            latent of the image that it animates.
        use_quant_conv, use_post_quant_conv: whether 1x1 convolutions follow the encoder and
            stand before the decoder; fixed.
        down_block_types, up_block_types: kinds of blocks of the encoder and the decoder; fixed.
        act_fn: activation function; fixed.

    Raises:
        ValueError: a value that no network can be built from, with what was expected.
    """

    FIXED: ClassVar = {
        "act_fn": ("silu", "swish"),
        # The convolutions that these ask for fit no network but one of 3 latent channels.
        "use_quant_conv": (False,),
        "use_post_quant_conv": (False,),
    }
    IGNORED: ClassVar = ("force_upcast",)
    DOWN: ClassVar = "CogVideoXDownBlock3D"
    UP: ClassVar = "CogVideoXUpBlock3D"

    latent_channels: int = 16
    block_out_channels: tuple[int, ...] = (128, 256, 256, 512)
    layers_per_block: int = 3
    norm_eps: float = 1e-6
    temporal_compression_ratio: int = 4
    sample_height: int = 480
    sample_width: int = 720
    scaling_factor: float = 1.15258426
    shift_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    invert_scale_latents: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        ratios = [2**level for level in range(self.num_levels)]
        if self.temporal_compression_ratio not in ratios:
            raise ValueError(
                f"temporal_compression_ratio={self.temporal_compression_ratio}; with "
                f"{self.num_levels} levels expected one of {ratios}"
            )

    @property
    def frame_rule(self) -> dict[str, int]:
        # Other numbers of frames have latents too, but these decode to more frames than went in.
        t = self.temporal_compression_ratio
        return {"t": t, "head": 1, "step": 2 * t}

    @property
    def resamples_time(self) -> tuple[bool, ...]:
        """Whether each level halves (encoder) or doubles (decoder) time, with its resampling."""
        num_levels = self.temporal_compression_ratio.bit_length() - 1
        return tuple(level < num_levels for level in range(self.num_levels))


def chunk_lengths(num_frames: int, frames_at_once: int | None) -> tuple[int, ...]:
    """Return the lengths of the pieces in which frames are coded: the first takes what is over.

    Args:
        num_frames: of the clip, or of its latent.
        frames_at_once: of a piece; None codes all in one.
    """
    if frames_at_once is None or num_frames < frames_at_once:
        return (num_frames,)
    num_chunks, rest = divmod(num_frames, frames_at_once)
    return (frames_at_once + rest, *(frames_at_once,) * (num_chunks - 1))
