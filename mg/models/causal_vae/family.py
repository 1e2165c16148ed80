"""Open-Sora-Plan's CausalVideoVAE, v1.0 to v1.2, as a family."""

from collections.abc import Mapping
from typing import Any

from mg.models.causal_vae.config import CausalVAEConfig
from mg.models.families import AutoencoderFamily, Shapes, Tensors

__all__ = ["FAMILY"]


def is_own(shapes: Shapes) -> bool:
    return len(shapes.get("encoder.mid.block_1.conv1.conv.weight", ())) == 5


def complete(config: Mapping[str, Any] | None, tensors: Tensors) -> dict[str, Any]:
    if config is None:
        raise ValueError(
            "these weights of a CausalVideoVAE come without a config.json, and no shape tells "
            "which levels halve time or how the network attends; give the config of the "
            "checkpoint (config=...)"
        )
    return dict(config)


FAMILY = AutoencoderFamily(
    name="causal_vae",
    class_names=("CausalVAEModel",),
    network="mg.models.causal_vae.network:CausalVideoVAE",
    read_config=CausalVAEConfig.from_mapping,
    is_own=is_own,
    complete=complete,
    description="Open-Sora-Plan's CausalVideoVAE",
    temporal=("*.time_*", "*time_conv*"),
)
