"""Configs that travel with weight files: in the header of a safetensors file, or beside it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mg.file_names import CONFIG_FILE
from mg.files import write_text
from mg.json_file import parse_json, read_json
from mg.weights.checkpoint_file import write_weights
from mg.weights.image_vae import fields_of_vae_config
from mg.weights.safetensors_file import read_safetensors_metadata

__all__ = [
    "config_metadata",
    "config_path",
    "read_config",
    "stored_tae_config",
    "stored_vae_config",
    "stored_vae_fields",
    "vae_metadata",
    "write_tae",
]

METADATA_KEY = "tae_config"
VAE_METADATA_KEY = "vae_config"
TELLING_KEY = "ch_mult"  # in every TAE config, in no image VAE's
KEYS_OF_A_VAE = ("block_out_channels", "latent_channels", "scaling_factor")


def config_path(weights: str | os.PathLike) -> Path:
    """Return where the config of a weight file stands: same name, extension `.json`."""
    return Path(weights).with_suffix(".json")


def config_metadata(config: Mapping[str, Any]) -> dict[str, str]:
    """Return metadata for a safetensors header that holds this TAE config."""
    return {METADATA_KEY: json.dumps(dict(config))}


def vae_metadata(config: Mapping[str, Any]) -> dict[str, str]:
    """Return metadata for a safetensors header that holds the config of a VAE of any family.

    Args:
        config: as config.json has it, with `_class_name`.
    """
    if TELLING_KEY in config:
        return config_metadata({k: v for k, v in config.items() if not k.startswith("_")})
    return {VAE_METADATA_KEY: json.dumps(dict(config))}


def stored_vae_config(path: str | os.PathLike) -> dict[str, Any] | None:
    """Return the config of a VAE that the header of a safetensors file holds, or None.

    Args:
        path: a weight file, not a folder.

    Raises:
        ValueError: what is stored there is not a JSON object.
    """
    if Path(path).suffix != ".safetensors":
        return None
    text = read_safetensors_metadata(path).get(VAE_METADATA_KEY)
    place = f"the config in the header of {path}"
    return None if text is None else _object(parse_json(text, place), place)


def write_tae(
    path: str | os.PathLike,
    tensors: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Write a TAE's weights with their config in the header and beside them.

    Args:
        path: the .safetensors to write.
        tensors: the weights under the network's names.
        config: what they are for.
        overwrite: whether existing files may be replaced.

    Raises:
        FileExistsError: a file is there and `overwrite` is false.
    """
    write_weights(path, tensors, metadata=config_metadata(config), overwrite=overwrite)
    write_text(config_path(path), json.dumps(config, indent=1) + "\n", overwrite=overwrite)


def stored_tae_config(path: str | os.PathLike) -> dict[str, Any] | None:
    """Return the TAE config stored with a weight file, or None.

    The header of a safetensors file counts first, then a `.json` file of the same name.

    Args:
        path: a weight file, not a folder.

    Raises:
        ValueError: what is stored there is not JSON.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        text = read_safetensors_metadata(path).get(METADATA_KEY)
        if text is not None:
            place = f"the config in the header of {path}"
            return _object(parse_json(text, place), place)
    beside = config_path(path)
    if path.suffix == ".json" or not beside.exists():
        return None
    config = read_config(beside)
    return config if TELLING_KEY in config else None


def stored_vae_fields(path: str | os.PathLike) -> dict[str, Any] | None:
    """Return the TAE config fields that an image VAE's `config.json` in the same folder states.

    VAEs of the same build differ in them, and their weights do not tell: scaling_factor,
    shift_factor, norm_groups (see `fields_of_vae_config`).

    Args:
        path: the image VAE's file, index file or folder.

    Returns:
        None where no config of a VAE stands beside the weights.

    Raises:
        ValueError: the config is not JSON, or states what a TAE cannot have.
    """
    path = Path(path)
    beside = (path if path.is_dir() else path.parent) / CONFIG_FILE
    if not beside.exists():
        return None
    stated = read_config(beside)
    if not any(key in stated for key in KEYS_OF_A_VAE):
        return None
    try:
        return fields_of_vae_config(stated)
    except ValueError as error:
        raise ValueError(f"{beside}: {error}") from error


def read_config(path: str | os.PathLike) -> dict[str, Any]:
    """Return the fields of a `config.json`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not a JSON object, or as `mg.json_file.read_json`.
    """
    return _object(read_json(path), path)


def _object(config: Any, place: str | os.PathLike) -> dict[str, Any]:
    if not isinstance(config, dict):
        raise ValueError(f"{place} is not a config (a JSON object is expected)")
    return config
