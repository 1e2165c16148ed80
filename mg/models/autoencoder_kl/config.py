"""The config of diffusers' `AutoencoderKL`, under its own field names."""

import dataclasses
from typing import ClassVar

from mg.models.diffusers_config import DiffusersConfig

__all__ = ["AutoencoderKLConfig"]


@dataclasses.dataclass(frozen=True)
class AutoencoderKLConfig(DiffusersConfig):
    """The structure of a 2-D autoencoder; the defaults are diffusers'.

    Attributes:
        sample_size: side of a tile, in pixels, see `mg.vaes`.
        shift_factor: what is subtracted from a latent before it is scaled for a generator; null
            for nothing.
        latents_mean, latents_std: mean and deviation of each channel of the latent, to scale it
            for a generator; null for none.
        use_quant_conv: whether a 1x1 convolution follows the encoder.
        use_post_quant_conv: whether a 1x1 convolution stands before the decoder.
        mid_block_add_attention: whether the middle of encoder and decoder has attention.
        down_block_types, up_block_types: kinds of blocks of the encoder and the decoder; fixed.
        act_fn: activation function; fixed.

    Raises:
        ValueError: a value that no network can be built from, with what was expected.
    """

    FIXED: ClassVar = {"act_fn": ("silu", "swish")}
    IGNORED: ClassVar = ("force_upcast",)
    DOWN: ClassVar = "DownEncoderBlock2D"
    UP: ClassVar = "UpDecoderBlock2D"

    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    sample_size: int = 32
    scaling_factor: float = 0.18215
    shift_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    @property
    def spatial_compression(self) -> int:
        """Pixels per latent pixel, along height and along width."""
        return 2 ** (self.num_levels - 1)
