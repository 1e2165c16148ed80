"""Open-Sora-Plan's CausalVideoVAE, v1.0 to v1.2, as a family."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mg.models.causal_vae.config import CausalVAEConfig
from mg.models.causal_vae.inflation import inflate_image_vae
from mg.models.families import AutoencoderFamily, Shapes, Tensors

__all__ = ["FAMILY"]


def is_own(shapes: Shapes) -> bool:
    """Any module may be 2-D, but not all of them: that would be an image VAE."""
    return "encoder.mid.block_1.norm1.weight" in shapes and any(
        len(shape) == 5 or ".time_downsample." in name for name, shape in shapes.items()
    )


def complete(config: Mapping[str, Any] | None, tensors: Tensors) -> dict[str, Any]:
    if config is None:
        raise ValueError(
            "these weights of a CausalVideoVAE come without a config.json, and no shape tells "
            "which levels halve time or how the network attends; give the config of the "
            "checkpoint (config=...)"
        )
    return dict(config)


def inflate(
    tensors: Tensors, config: Mapping[str, Any] | None, stated: Mapping[str, Any], method: str
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    return inflate_image_vae(tensors, config, stated, method=method, shapes=FAMILY.shapes)


FAMILY = AutoencoderFamily(
    name="causal_vae",
    class_names=("CausalVAEModel",),
    network="mg.models.causal_vae.network:CausalVideoVAE",
    from_fields=CausalVAEConfig.from_mapping,
    is_own=is_own,
    complete=complete,
    description="Open-Sora-Plan's CausalVideoVAE",
    temporal=("*.time_*", "*time_conv*"),
    starts_from=("sd",),
    inflate=inflate,
)
