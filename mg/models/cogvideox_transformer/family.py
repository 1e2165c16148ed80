"""CogVideoX's video transformer as a family of denoisers."""

from mg.models.cogvideox_transformer.config import CogVideoXConfig
from mg.models.families import DenoiserFamily, built_shapes, with_conditions

__all__ = ["FAMILY"]

NETWORK = "mg.models.cogvideox_transformer.transformer:CogVideoXTransformer"

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
)
