"""Image autoencoders (Stable Diffusion 1/2, XL, 3.5), frame by frame, as a family."""

import functools

from mg.models.autoencoder_kl.config import AutoencoderKLConfig
from mg.models.families import AutoencoderFamily, Shapes
from mg.weights.assumed_config import completed_config

__all__ = ["FAMILY"]


def is_own(shapes: Shapes) -> bool:
    return len(shapes.get("encoder.down_blocks.0.resnets.0.conv1.weight", ())) == 4


FAMILY = AutoencoderFamily(
    name="sd",
    class_names=("AutoencoderKL",),
    network="mg.models.autoencoder_kl.network:AutoencoderKL",
    from_fields=AutoencoderKLConfig.from_mapping,
    is_own=is_own,
    complete=functools.partial(completed_config, "sd"),
    description="a 2-D VAE such as stabilityai/sd-vae-ft-mse, each frame an image of its own",
)
