"""Configs that travel with weight files: in the header of a safetensors file, or beside it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mg.weights.safetensors_file import read_safetensors_metadata

__all__ = ["config_metadata", "config_path", "stored_tae_config", "stored_vae_scaling"]

METADATA_KEY = "tae_config"
TELLING_KEY = "ch_mult"  # in every TAE config, in no image VAE's


def config_path(weights: str | os.PathLike) -> Path:
    """Return where the config of a weight file stands: same name, extension `.json`."""
    return Path(weights).with_suffix(".json")


def config_metadata(config: Mapping[str, Any]) -> dict[str, str]:
    """Return metadata for a safetensors header that holds this TAE config."""
    return {METADATA_KEY: json.dumps(dict(config))}


def stored_tae_config(path: str | os.PathLike) -> dict[str, Any] | None:
    """Return the TAE config stored with a weight file, or None.

    The header of a safetensors file counts first, then a `.json` file of the same name.

    Args:
        path: a weight file, not a folder.

    Raises:
        ValueError: what is stored there is no JSON.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        text = read_safetensors_metadata(path).get(METADATA_KEY)
        if text is not None:
            return _parse(text, f"the config in the header of {path}")
    beside = config_path(path)
    if path.suffix == ".json" or not beside.is_file():
        return None
    config = _parse(beside.read_text(encoding="utf-8"), beside)
    return config if TELLING_KEY in config else None


def stored_vae_scaling(path: str | os.PathLike) -> dict[str, float]:
    """Return the latent scaling that an image VAE's `config.json` in the same folder states.

    VAEs of the same build differ in it, and their weights do not tell.

    Args:
        path: the image VAE's file, index file or folder.

    Returns:
        scaling_factor and shift_factor, as far as stated; {} without a config.

    Raises:
        ValueError: the config is no JSON, or states something else than numbers.
    """
    path = Path(path)
    beside = (path if path.is_dir() else path.parent) / "config.json"
    if not beside.is_file():
        return {}
    stated = _parse(beside.read_text(encoding="utf-8"), beside)
    keys = [key for key in ("scaling_factor", "shift_factor") if stated.get(key) is not None]
    try:
        return {key: float(stated[key]) for key in keys}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{beside} states a latent scaling that is no number: {error}") from error


def _parse(text: str, place: str | Path) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{place} is not a config (a JSON object is expected)")
    return config
