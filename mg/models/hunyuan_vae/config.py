"""The config of diffusers' `AutoencoderKLHunyuanVideo`, under its own field names."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from mg.models.diffusers_config import DiffusersConfig

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["HunyuanVideoVAEConfig"]

# Fields and values of the original config.json -> those of diffusers. The tensors have the same
# names. The original's other fields are sizes of tiles.
ORIGINAL_CLASS = "AutoencoderKLCausal3D"
ORIGINAL_FIELDS = {"time_compression_ratio": "temporal_compression_ratio"}
ORIGINAL_BLOCKS = {
    "DownEncoderBlockCausal3D": "HunyuanVideoDownBlock3D",
    "UpDecoderBlockCausal3D": "HunyuanVideoUpBlock3D",
}
DROPPED_FIELDS = ("sample_size", "sample_tsize")


@dataclasses.dataclass(frozen=True)
class HunyuanVideoVAEConfig(DiffusersConfig):
    """The structure of a HunyuanVideo VAE; the defaults are the published network's.

    Attributes:
        mid_block_add_attention: whether the middle of encoder and decoder has attention.
        spatial_compression_ratio: pixels per latent pixel along height and width; fixed.
        temporal_compression_ratio: frames of video per frame of the latent; fixed.
        down_block_types, up_block_types: kinds of blocks of the encoder and the decoder; fixed.
        act_fn: activation function; fixed.

    Raises:
        ValueError: a value that no network can be built from, with what was expected.
    """

    FIXED: ClassVar = {
        "act_fn": ("silu", "swish"),
        "spatial_compression_ratio": (8,),
        "temporal_compression_ratio": (4,),
    }
    DOWN: ClassVar = "HunyuanVideoDownBlock3D"
    UP: ClassVar = "HunyuanVideoUpBlock3D"

    latent_channels: int = 16
    scaling_factor: float = 0.476986
    mid_block_add_attention: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_levels != 4:
            raise ValueError(
                f"block_out_channels={list(self.block_out_channels)}; a compression of 4x8x8 has "
                "4 levels"
            )

    @property
    def frame_rule(self) -> dict[str, int]:
        return {"t": 4, "head": 1, "step": 4}

    @property
    def resampling(self) -> tuple[tuple[int, int] | None, ...]:
        """Factors in time and in space between the levels, of encoder and decoder alike."""
        return (1, 2), (2, 2), (2, 2), None

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "Self":
        """Return the config that the fields of a config.json describe, the original's too."""
        if not isinstance(mapping, cls):
            mapping = in_the_terms_of_diffusers(mapping)
        return super().from_mapping(mapping)


def in_the_terms_of_diffusers(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config as diffusers writes it; `config` may be the original network's."""
    if config.get("_class_name") != ORIGINAL_CLASS:
        return dict(config)
    translated = {
        ORIGINAL_FIELDS.get(key, key): value
        for key, value in config.items()
        if key not in DROPPED_FIELDS
    }
    for key in ("down_block_types", "up_block_types"):
        if key in translated:
            translated[key] = [ORIGINAL_BLOCKS.get(name, name) for name in translated[key]]
    return {**translated, "_class_name": "AutoencoderKLHunyuanVideo"}
