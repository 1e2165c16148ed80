"""HunyuanVideo's video transformer as a family of denoisers."""

import dataclasses

from mg.models.families import DenoiserFamily, Shapes, built_shapes, with_conditions
from mg.models.hunyuan_transformer.config import PRESETS, HunyuanVideoConfig

__all__ = ["FAMILY"]

NETWORK = "mg.models.hunyuan_transformer.transformer:HunyuanVideoTransformer"


def _published_configs(shapes: Shapes) -> list[HunyuanVideoConfig]:
    """Return the published sizes, with the inputs that tensors of these shapes have."""
    guidance = "time_text_embed.guidance_embedder.linear_1.weight" in shapes
    channels = shapes["x_embedder.proj.weight"][1]
    return [
        dataclasses.replace(config, in_channels=channels, guidance_embeds=guidance)
        for config in PRESETS.values()
    ]


FAMILY = DenoiserFamily(
    name="hunyuan",
    class_name="HunyuanVideoTransformer3DModel",
    network=NETWORK,
    from_fields=HunyuanVideoConfig.from_mapping,
    shapes=built_shapes(NETWORK),
    default_fields={"preset": "tiny"},
    grow=with_conditions("x_embedder.proj.weight"),
    prediction="flow",
    published_configs=_published_configs,
)
