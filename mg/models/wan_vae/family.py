"""Wan's autoencoders, 2.1 and 2.2, as a family."""

from collections.abc import Mapping
from typing import Any

from mg.models.families import AutoencoderFamily, Shapes, Tensors
from mg.models.wan_vae.config import WanVAEConfig
from mg.weights.assumed_config import shapes_of, warn_of_assumed

__all__ = ["FAMILY"]


UNTOLD_FIELDS = ("latents_mean", "latents_std")  # by the tensors


def is_own(shapes: Shapes) -> bool:
    return "decoder.mid_block.resnets.0.norm1.gamma" in shapes


def complete(config: Mapping[str, Any] | None, tensors: Tensors) -> dict[str, Any]:
    if config is not None:
        return dict(config)
    fields = WanVAEConfig.from_shapes(shapes_of(tensors)).to_dict()
    warn_of_assumed({field: fields[field] for field in UNTOLD_FIELDS})
    return fields


FAMILY = AutoencoderFamily(
    name="wan",
    class_names=("AutoencoderKLWan",),
    network="mg.models.wan_vae.network:WanVAE",
    from_fields=WanVAEConfig.from_mapping,
    is_own=is_own,
    complete=complete,
    description="the VAE of Wan 2.1 or 2.2",
    temporal=("*.time_conv.*",),
)
