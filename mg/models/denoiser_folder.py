"""A denoiser in a folder of its own, as diffusers writes them: config.json and weights."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mg.file_names import CONFIG_FILE, WEIGHTS_FILE
from mg.files import write_text
from mg.json_file import read_json_object
from mg.models.denoiser_config import DenoiserConfig
from mg.models.families import DenoiserFamily, denoiser_of_class
from mg.weights.checkpoint_file import find_weights, list_tensors, read_weights
from mg.weights.config_sizes import check_config_sizes
from mg.weights.load import check_tensors
from mg.weights.safetensors_file import INDEX_SUFFIX, safetensors_files, write_safetensors

__all__ = ["ReadDenoiser", "read_denoiser", "write_denoiser"]


class ReadDenoiser(NamedTuple):
    """What a folder holds.

    Attributes:
        family: of the network.
        config: of the network.
        tensors: by its names.
        files: with the tensors.
    """

    family: DenoiserFamily
    config: DenoiserConfig
    tensors: dict[str, np.ndarray]
    files: list[Path]


def read_denoiser(folder: str | os.PathLike) -> ReadDenoiser:
    """Return what a folder with a denoiser holds, checked; no network is built.

    Args:
        folder: with config.json, which says the class, and weights, whole or in shards.

    Raises:
        FileNotFoundError: one of them is not there.
        ValueError: an unknown class, damaged files, or weights that do not fit the config.
    """
    folder = Path(folder)
    path = folder / CONFIG_FILE
    try:
        fields = read_json_object(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; copy the folder as a whole") from None
    try:
        family = denoiser_of_class(fields.get("_class_name"))
        config = family.read_config({k: v for k, v in fields.items() if not k.startswith("_")})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    file = find_weights(folder)
    try:
        shapes = {name: entry.shape for name, entry in list_tensors(file).items()}
        check_config_sizes(config.to_dict(), shapes)
        tensors = read_weights(file)
        check_tensors(tensors, family.shapes(config))
    except ValueError as error:
        raise ValueError(f"{file} does not fit its {CONFIG_FILE}: {error}") from error
    files = safetensors_files(file) if file.name.endswith(INDEX_SUFFIX) else [file]
    return ReadDenoiser(family, config, tensors, files)


def write_denoiser(
    folder: str | os.PathLike,
    family: DenoiserFamily,
    config: DenoiserConfig,
    tensors: Mapping[str, np.ndarray],
    *,
    overwrite: bool = False,
) -> None:
    """Write config.json and weights of a denoiser, under diffusers' names of files.

    Args:
        folder: made if needed.
        family, config, tensors: of the network.
        overwrite: whether a denoiser that is there may be replaced.

    Raises:
        FileExistsError: one is there and `overwrite` is false.
        ValueError: the tensors do not fit the config.
    """
    check_tensors(tensors, family.shapes(config))
    folder = Path(folder)
    stated = {"_class_name": family.class_name, **config.to_dict()}
    write_safetensors(folder / WEIGHTS_FILE, tensors, overwrite=overwrite)
    write_text(folder / CONFIG_FILE, json.dumps(stated, indent=2) + "\n", overwrite=overwrite)
