"""Weight files of any supported origin -> the tensors of a TAE and its config, checked."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mg.weights.checkpoint_file import find_weights, read_weights
from mg.weights.config_sizes import check_config_sizes
from mg.weights.inflation import STRUCTURE_KEYS, inflate_image_vae
from mg.weights.own_tensors import own_tensors
from mg.weights.stored_config import stored_tae_config, stored_vae_fields
from mg.weights.tae_layers import tae_shapes
from mg.weights.tae_names import (
    check_tensors,
    explain_config_mismatch,
    infer_tae_config,
    is_tae,
    tae_from_published,
)

__all__ = [
    "check_tae_config",
    "check_tensors",
    "explain_config_mismatch",
    "infer_tae_config",
    "load_tae_tensors",
]

logger = logging.getLogger("mg")


def load_tae_tensors(
    path: str | os.PathLike,
    *,
    config: Mapping[str, Any] | None = None,
    method: str = "auto",
    inflate_method: str = "central",
    key: str | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return (float32 tensors under the network's names, the config they are for).

    The file may be our own, the public MindSpore checkpoint (prefixes and dead parameters are
    removed), or an image VAE like Stable Diffusion's, SDXL's or SD3.5's (inflated on the fly;
    what its shapes leave open is read in the config.json beside it).

    Args:
        path: `.safetensors`, `.ckpt`, an index of shards, or a folder with one of them.
        config: what the network expects, with keys of `TAE_CONFIG`. If given, the tensors must
            fit it exactly, an image VAE is inflated as it says, and it is what is returned. If
            not, the config returned is the one stored with the file, completed by what the shapes
            tell; fields that neither tells are left to their defaults.
        method: what the file must hold: `tae`, `sd` (an image VAE), or `auto` for either.
        inflate_method: of an image VAE: `central`, `replicate` or `average`.
        key: the weights to take from a file that holds several
            (`mg.weights.checkpoint_file.read_weights`).

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged file; neither a TAE nor an image VAE, or not what `method` says; or it
            does not fit the config (says which field disagrees, or which tensors).
    """
    file = find_weights(path)
    loaded = read_weights(file, key=key)
    try:
        loaded = own_tensors(loaded)
        _check_method(is_tae(loaded), method, inflate_method)
        if is_tae(loaded):
            return _load_tae(loaded, file, config)
        return _load_image_vae(loaded, file, config, inflate_method)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _check_method(holds_tae: bool, method: str, inflate_method: str) -> None:
    family = "tae" if holds_tae else "sd"
    if method not in ("auto", family):
        kind = "a Temporal Autoencoder" if holds_tae else "no Temporal Autoencoder"
        raise ValueError(f"method={method!r}, but the file holds {kind}; use method=auto")
    if holds_tae and inflate_method != "central":
        raise ValueError(
            f"inflate_method={inflate_method!r} has no effect: the file holds a Temporal "
            "Autoencoder, which is not inflated"
        )


def _load_tae(
    loaded: Mapping[str, np.ndarray], file: Path, config: Mapping[str, Any] | None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    logger.debug("%s holds TAE weights", file)
    tensors = tae_from_published(loaded)
    for name, array in tensors.items():
        if array.dtype.kind != "f":
            raise ValueError(
                f"tensor {name!r} holds {array.dtype}, expected floating-point numbers"
            )
    stored = stored_tae_config(file) or {}
    config = {**infer_tae_config(tensors), **stored} if config is None else dict(config)
    check_tae_config(tensors, config, stored)
    return {name: array.astype(np.float32, copy=False) for name, array in tensors.items()}, config


def _load_image_vae(
    loaded: Mapping[str, np.ndarray],
    file: Path,
    config: Mapping[str, Any] | None,
    inflate_method: str,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    stated, wanted = stored_vae_fields(file), config or {}
    fields = {key: wanted[key] for key in STRUCTURE_KEYS if key in wanted}
    tensors, found = inflate_image_vae(
        loaded,
        method=inflate_method,
        temporal_padding=wanted.get("temporal_padding", "published"),
        structure={**(stated or {}), **fields},
    )
    logger.info("%s holds an image VAE; it has been inflated to a TAE", file)
    if config is None or stated is not None:
        _warn_of_scaling(file, found, stated)
    config = found if config is None else dict(config)
    check_tae_config(tensors, config, stated)
    return tensors, config


def _warn_of_scaling(
    file: Path, config: Mapping[str, Any], stated: Mapping[str, Any] | None
) -> None:
    """Log a warning where the latents' scaling is assumed, or is not the image VAE's own."""
    keys = ("scaling_factor", "shift_factor")
    ours = ", ".join(f"{key} {config[key]}" for key in keys)
    if stated is None:
        logger.warning(
            "no config.json beside %s states the scaling of its latents; assumed are %s (Stable "
            "Diffusion's VAE has 0.18215 and 0, SDXL's 0.13025 and 0)",
            file,
            ours,
        )
    elif any(stated[key] != config[key] for key in keys):
        own = ", ".join(f"{key} {stated[key]}" for key in keys)
        logger.warning("the config has %s, but %s was made with %s", ours, file, own)


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
