"""The 3-D U-Net as a family of denoisers."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from mg.models.families import DenoiserFamily, built_shapes, same_size
from mg.models.unet3d.config import UNet3DConfig

__all__ = ["FAMILY"]

NETWORK = "mg.models.unet3d.network:UNet3D"


def grow(
    tensors: Mapping[str, np.ndarray], stored: UNet3DConfig, wanted: UNet3DConfig
) -> dict[str, np.ndarray]:
    """Return the tensors; a network without conditions beside the latent may get some.

    Raises:
        ValueError: the two are different networks otherwise.
    """
    if stored.condition_channels or not wanted.condition_channels:
        return same_size(tensors, stored, wanted)
    without = dataclasses.replace(wanted, condition_channels=0)
    shape = (wanted.widths[0], wanted.condition_channels, 3, 3, 3)
    return {
        **same_size(tensors, stored, without),
        "condition_in.weight": np.zeros(shape, np.float32),
    }


FAMILY = DenoiserFamily(
    name="unet",
    class_name="UNet3D",
    network=NETWORK,
    from_fields=UNet3DConfig.from_mapping,
    shapes=built_shapes(NETWORK),
    default_fields={"preset": "tiny"},
    grow=grow,
)
