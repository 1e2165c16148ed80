"""From a name, a folder or a weight file to a `VideoVAE`."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mg.vaes.assumed_config import assumed_config
from mg.vaes.families import FAMILIES, NAMES, family_class, recognise, unknown_name
from mg.vaes.video_vae import CONFIG_FILE, WEIGHTS_FILE, VideoVAE
from mg.weights.checkpoint_file import find_weights, read_weights
from mg.weights.inflation import METHODS, inflate_image_vae
from mg.weights.stored_config import stored_tae_config
from mg.weights.tae_names import infer_tae_config, is_tae, tae_from_published
from mg.weights.vae_names import to_diffusers_names

__all__ = ["INFLATE_METHODS", "load_pretrained"]

logger = logging.getLogger("mg")

INFLATE_METHODS = (*METHODS, "none")

# Where the VAE stands in a folder that holds a whole pipeline.
VAE_FOLDERS = ("vae", "hunyuan-video-t2v-720p/vae")
# Of several weight files in a folder, the first of these; else there must be only one.
PREFERRED_FILES = (
    f"{WEIGHTS_FILE}.index.json",
    WEIGHTS_FILE,
    "model.safetensors",
    "diffusion_pytorch_model.bin",
    "pytorch_model.pt",
)
SD_SCALING = 0.18215  # what diffusers takes where a 2-D VAE's config states no scaling_factor


def load_pretrained(
    name_or_path: str | os.PathLike,
    *,
    method: str = "auto",
    inflate_method: str = "central",
    config: Mapping[str, Any] | str | os.PathLike | None = None,
    cache_folder: str | os.PathLike | None = None,
) -> VideoVAE:
    """Return the VAE of a checkpoint; arguments and errors as `VideoVAE.from_pretrained`."""
    for argument, given, known in (
        ("method", method, ("auto", "local", *FAMILIES)),
        ("inflate_method", inflate_method, INFLATE_METHODS),
    ):
        if given not in known:
            raise ValueError(f"{argument}={given!r}; expected one of {', '.join(known)}")
    path = _on_disk(name_or_path, method, cache_folder)
    file = _weights_in(path)
    try:
        return _load_file(file, _read_config(config, file), method, inflate_method)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _on_disk(
    name_or_path: str | os.PathLike, method: str, cache_folder: str | os.PathLike | None
) -> Path:
    """Return the path, or the folder into which the named checkpoint has been downloaded."""
    path = Path(name_or_path).expanduser()
    if path.exists():
        return path
    name = str(name_or_path)
    if method == "local" or isinstance(name_or_path, os.PathLike) or path.is_absolute():
        raise FileNotFoundError(f"weights not found: {path} does not exist")
    if name not in NAMES:
        raise unknown_name(name)
    if method not in ("auto", NAMES[name]):
        raise ValueError(f"method={method!r}, but {name} is of family {NAMES[name]!r}")
    from mg.weights.hub import fetch

    return fetch(name, cache_folder=cache_folder)


def _weights_in(path: Path) -> Path:
    """Return the weight file that a path means: itself, or the VAE's in a folder."""
    if not path.is_dir():
        return path
    folders = [path, *(path / folder for folder in VAE_FOLDERS)]
    for folder in folders:
        for name in PREFERRED_FILES:
            if (folder / name).is_file():
                return folder / name
    return find_weights(path)


def _read_config(
    config: Mapping[str, Any] | str | os.PathLike | None, file: Path
) -> dict[str, Any] | None:
    """Return the config given, else that stored with the weight file, else None."""
    if isinstance(config, Mapping):
        return dict(config)
    if config is None:
        stored = stored_tae_config(file)
        if stored is not None:
            return stored
        if not (file.parent / CONFIG_FILE).is_file():
            return None
    path = file.parent / CONFIG_FILE if config is None else Path(config)
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path} is not a config (a JSON object is expected)")
    return fields


def _load_file(
    file: Path, config: dict[str, Any] | None, method: str, inflate_method: str
) -> VideoVAE:
    tensors = read_weights(file)
    tensors = tae_from_published(tensors) if is_tae(tensors) else to_diffusers_names(tensors)
    shapes = {name: array.shape for name, array in tensors.items()}
    family = recognise(config, shapes)
    if method not in ("auto", "local", family):
        raise ValueError(f"method={method!r}, but these are weights of family {family!r}")
    if family != "sd" and inflate_method != "central":
        raise ValueError(
            f"inflate_method={inflate_method!r} acts on 2-D VAEs; these are weights of the video "
            f"family {family!r}"
        )
    logger.info("%s holds weights of family %s", file, family)
    if family == "tae":
        config = {**infer_tae_config(tensors), **(config or {})}
    elif config is None and family != "opensora":  # whose sizes are fixed
        config = assumed_config(family, shapes)
    if family == "sd" and inflate_method != "none":
        return _inflated(tensors, config, inflate_method)
    return family_class(family).from_tensors(tensors, config or {})


def _inflated(
    tensors: Mapping[str, np.ndarray], image_config: Mapping[str, Any], method: str
) -> VideoVAE:
    """Return a 2-D VAE as a TAE, with the same scaled latents."""
    inflated, config = inflate_image_vae(tensors, method=method)
    factor = image_config.get("scaling_factor") or SD_SCALING
    # An image VAE's scaled latent is (z - shift) * factor, a TAE's is z * factor + shift.
    shift = -(image_config.get("shift_factor") or 0.0) * factor
    scaling = {"scaling_factor": float(factor), "shift_factor": float(shift)}
    return family_class("tae").from_tensors(inflated, {**config, **scaling})
