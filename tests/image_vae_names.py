"""Which tensor of a TAE each tensor of an image VAE becomes."""

from collections.abc import Mapping
from typing import Any

from mg.weights.tae_layers import tae_layers


def image_vae_to_tae_names(config: Mapping[str, Any]) -> dict[str, str]:
    """Return {name in the image VAE (diffusers naming): name in the TAE} for this config."""
    return {
        f"{layer.source}{suffix}": layer.name + layer.target_suffix(suffix)
        for layer in tae_layers(config)
        for suffix in layer.source_shapes()
    }
