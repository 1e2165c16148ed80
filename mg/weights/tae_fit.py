"""Whether the tensors of a TAE fit a config, field by field."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mg.weights.config_sizes import check_config_sizes
from mg.weights.tae_layers import tae_shapes
from mg.weights.tae_names import explain_config_mismatch, infer_tae_config
from mg.weights.tensor_check import check_tensors

__all__ = ["check_tae_config"]


def check_tae_config(
    tensors: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    stored: Mapping[str, Any] | None = None,
) -> None:
    """Raise ValueError unless the tensors of a TAE, and what is stored with them, fit a config.

    Args:
        tensors: under the network's own names.
        config: with keys of `TAE_CONFIG`.
        stored: the config that is stored with the tensors, or what of it is known.
    """
    for name, array in tensors.items():
        if array.dtype.kind != "f":
            raise ValueError(
                f"tensor {name!r} holds {array.dtype}, expected floating-point numbers"
            )
    check_config_sizes(config, {name: array.shape for name, array in tensors.items()})
    try:
        _check_fit(tensors, config, stored or {})
    except TypeError as error:
        raise ValueError(f"a value in the config is of a wrong type: {error}") from error


def _check_fit(
    tensors: Mapping[str, np.ndarray], config: Mapping[str, Any], stored: Mapping[str, Any]
) -> None:
    mismatches = explain_config_mismatch(tensors, config)
    # No shape tells these, but with other ones the same weights give other numbers.
    for key in ("temporal_padding", "norm_groups", "norm_per_frame", "patch_size", "patch_size_t"):
        if key in stored and key in config and stored[key] != config[key]:
            mismatches.append(f"{key}: the file says {stored[key]}, the config says {config[key]}")
    if mismatches:
        raise ValueError(
            "the weights are of another config: " + "; ".join(mismatches) + ". Use the config they "
            "were made with (it is stored with them)"
        )
    check_tensors(tensors, tae_shapes({**infer_tae_config(tensors), **config}))
