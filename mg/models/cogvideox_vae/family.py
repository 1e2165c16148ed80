"""CogVideoX's autoencoder as a family."""

import functools

from mg.models.cogvideox_vae.config import CogVideoXVAEConfig
from mg.models.families import AutoencoderFamily, Shapes
from mg.weights.assumed_config import completed_config

__all__ = ["FAMILY"]


def is_own(shapes: Shapes) -> bool:
    return "decoder.mid_block.resnets.0.norm1.conv_y.conv.weight" in shapes


FAMILY = AutoencoderFamily(
    name="cogvideox",
    class_names=("AutoencoderKLCogVideoX",),
    network="mg.models.cogvideox_vae.network:CogVideoXVAE",
    from_fields=CogVideoXVAEConfig.from_mapping,
    is_own=is_own,
    complete=functools.partial(completed_config, "cogvideox"),
    description="the VAE of CogVideoX",
)
