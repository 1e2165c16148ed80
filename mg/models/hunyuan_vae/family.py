"""HunyuanVideo's autoencoder as a family."""

import functools

from mg.models.families import AutoencoderFamily, Shapes
from mg.models.hunyuan_vae.config import HunyuanVideoVAEConfig
from mg.weights.assumed_config import completed_config

__all__ = ["FAMILY"]


def is_own(shapes: Shapes) -> bool:
    return "encoder.down_blocks.0.resnets.0.conv1.conv.weight" in shapes


FAMILY = AutoencoderFamily(
    name="hunyuan",
    class_names=("AutoencoderKLHunyuanVideo", "AutoencoderKLCausal3D"),
    network="mg.models.hunyuan_vae.network:HunyuanVideoVAE",
    from_fields=HunyuanVideoVAEConfig.from_mapping,
    is_own=is_own,
    complete=functools.partial(completed_config, "hunyuan"),
    description="the VAE of HunyuanVideo",
)
