"""Movie Gen's Temporal Autoencoder as a family."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mg.latent_spec import LatentSpec
from mg.models.families import AutoencoderFamily, Tensors
from mg.models.tae.config import TEMPORAL_LAYERS, TAEConfig
from mg.weights.assumed_config import warn_of_assumed
from mg.weights.tae_fit import check_tae_config
from mg.weights.tae_layers import tae_shapes
from mg.weights.tae_names import infer_tae_config, is_tae

__all__ = ["FAMILY"]


# What neither names nor shapes of tensors tell, but results depend on.
UNTOLD_FIELDS = ("temporal_padding", "norm_groups", "scaling_factor", "shift_factor")


def read_config(mapping: Mapping[str, Any]) -> TAEConfig:
    """Return the config of fields, without those that only say which class and version wrote it."""
    if isinstance(mapping, TAEConfig):
        return mapping
    return TAEConfig.from_mapping({k: v for k, v in mapping.items() if not k.startswith("_")})


def complete(config: Mapping[str, Any] | None, tensors: Tensors) -> dict[str, Any]:
    if config is None:
        fields = TAEConfig().to_dict()
        warn_of_assumed({field: fields[field] for field in UNTOLD_FIELDS})
    completed = {**infer_tae_config(tensors), **(config or {})}
    check_tae_config(tensors, completed)
    return completed


def parameter_shapes(config: TAEConfig) -> dict[str, tuple[int, ...]]:
    return tae_shapes(config.to_dict())


def rescaled(config: TAEConfig, spec: LatentSpec) -> TAEConfig:
    return dataclasses.replace(config, scaling_factor=spec.factor, shift_factor=spec.offset)


FAMILY = AutoencoderFamily(
    name="tae",
    class_names=("TemporalAutoencoder",),
    network="mg.models.tae.tae:TemporalAutoencoder",
    from_fields=read_config,
    is_own=is_tae,
    complete=complete,
    description="a Temporal Autoencoder",
    temporal=TEMPORAL_LAYERS,
    starts_from=("sd",),
    parameter_shapes=parameter_shapes,
    rescaled=rescaled,
)
