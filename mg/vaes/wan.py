"""Wan's VAEs, 2.1 and 2.2, as a `VideoVAE`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mg.models.wan_vae.config import WanVAEConfig
from mg.models.wan_vae.network import WanVAE as WanNetwork
from mg.vaes.assumed_config import warn_of_assumed
from mg.vaes.diffusers_vae import DiffusersVAE
from mg.vaes.networks import shapes_of

__all__ = ["WanVAE"]

UNTOLD_FIELDS = ("latents_mean", "latents_std")  # by the tensors


class WanVAE(DiffusersVAE):
    """Wan 2.1's VAE (4x8x8) and 2.2's (4x16x16), 4k+1 frames.

    A clip is coded a few frames at a time, whatever its length, and the result is that of the whole
    clip. Decoded frames may leave [-1, 1] a little; diffusers clips them. Tiles are blended pixel
    by pixel; with Wan 2.2 diffusers blends its patches of 2 x 2.
    """

    family = "wan"
    class_name = "AutoencoderKLWan"
    config_class = WanVAEConfig
    network_class = WanNetwork

    @classmethod
    def completed_config(
        cls, config: Mapping[str, Any] | None, tensors: Mapping[str, np.ndarray]
    ) -> dict[str, Any]:
        if config is not None:
            return dict(config)
        fields = WanVAEConfig.from_shapes(shapes_of(tensors)).to_dict()
        warn_of_assumed({field: fields[field] for field in UNTOLD_FIELDS})
        return fields
