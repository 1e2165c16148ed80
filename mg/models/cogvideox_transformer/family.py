"""CogVideoX's video transformer as a family of denoisers."""

import dataclasses
import math

from mg.models.cogvideox_transformer.config import PRESETS, CogVideoXConfig
from mg.models.families import DenoiserFamily, Shapes, built_shapes, with_conditions

__all__ = ["FAMILY"]

NETWORK = "mg.models.cogvideox_transformer.transformer:CogVideoXTransformer"


def _published_configs(shapes: Shapes) -> list[CogVideoXConfig]:
    """Return the published sizes, with the inputs that tensors of these shapes have."""
    channels = math.prod(shapes["patch_embed.proj.weight"][1:]) / shapes["proj_out.weight"][0]
    has_offset = "ofs_embedding.linear_1.weight" in shapes
    return [
        dataclasses.replace(
            config,
            in_channels=int(channels * config.out_channels),
            ofs_embed_dim=config.time_embed_dim if has_offset else None,
        )
        for config in PRESETS.values()
    ]


FAMILY = DenoiserFamily(
    name="cogvideox",
    class_name="CogVideoXTransformer3DModel",
    network=NETWORK,
    from_fields=CogVideoXConfig.from_mapping,
    shapes=built_shapes(NETWORK),
    default_fields={"preset": "tiny"},
    grow=with_conditions("patch_embed.proj.weight"),
    prediction="v",
    frames_first=True,
    published_configs=_published_configs,
)
