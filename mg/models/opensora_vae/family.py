"""Open-Sora v1.2's autoencoder as a family."""

from collections.abc import Mapping
from typing import Any

from mg.models.families import AutoencoderFamily, Shapes, Tensors
from mg.models.opensora_vae.config import OPENSORA_CONFIG, OpenSoraVAEConfig, stored_spec
from mg.weights.assumed_config import warn_of_assumed

__all__ = ["FAMILY"]


def is_own(shapes: Shapes) -> bool:
    return any(name.startswith("temporal_vae.") for name in shapes)


def complete(config: Mapping[str, Any] | None, tensors: Tensors) -> dict[str, Any]:
    if config is None:  # the one published config, and the scaling of the weights
        warn_of_assumed({"micro_frame_size": OPENSORA_CONFIG["micro_frame_size"]})
    return dict(config or {})


FAMILY = AutoencoderFamily(
    name="opensora",
    class_names=("VideoAutoencoderPipeline",),
    network="mg.models.opensora_vae.network:OpenSoraNetwork",
    from_fields=OpenSoraVAEConfig.from_mapping,
    is_own=is_own,
    complete=complete,
    description="the VAE of Open-Sora v1.2",
    temporal=("temporal_vae.*",),
    weights_file="model.safetensors",  # as the transformers package names it
    stored_spec=stored_spec,
)
