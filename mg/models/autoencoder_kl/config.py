"""The config of diffusers' `AutoencoderKL`, under its own field names."""

import dataclasses
from typing import ClassVar

from mg.models.diffusers_config import DiffusersConfig

__all__ = ["AutoencoderKLConfig"]


@dataclasses.dataclass(frozen=True)
class AutoencoderKLConfig(DiffusersConfig):
    """The structure of a 2-D autoencoder; the defaults are diffusers'.

    Raises:
        ValueError: a value that no network can be built from, with what was expected.
    """

    FIXED: ClassVar = {"act_fn": ("silu", "swish")}
    IGNORED: ClassVar = ("force_upcast",)
    DOWN: ClassVar = "DownEncoderBlock2D"
    UP: ClassVar = "UpDecoderBlock2D"

    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    sample_size: int = 32  # pixels of a tile, see `mg.vaes`
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
