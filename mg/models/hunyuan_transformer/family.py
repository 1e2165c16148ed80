"""HunyuanVideo's video transformer as a family of denoisers."""

from mg.models.families import DenoiserFamily, built_shapes, with_conditions
from mg.models.hunyuan_transformer.config import HunyuanVideoConfig

__all__ = ["FAMILY"]

NETWORK = "mg.models.hunyuan_transformer.transformer:HunyuanVideoTransformer"

FAMILY = DenoiserFamily(
    name="hunyuan",
    class_name="HunyuanVideoTransformer3DModel",
    network=NETWORK,
    from_fields=HunyuanVideoConfig.from_mapping,
    shapes=built_shapes(NETWORK),
    default_fields={"preset": "tiny"},
    grow=with_conditions("x_embedder.proj.weight"),
    prediction="flow",
)
