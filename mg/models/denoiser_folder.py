"""A denoiser in a folder of its own, as diffusers writes them: config.json and weights."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mg.file_names import CONFIG_FILE, WEIGHTS_FILE
from mg.files import write_text
from mg.json_file import read_json_object
from mg.models.denoiser_config import DenoiserConfig
from mg.models.families import DenoiserFamily, denoiser_family, denoiser_of_class
from mg.weights.checkpoint_file import find_weights, list_tensors, read_weights
from mg.weights.config_sizes import check_config_sizes
from mg.weights.name_rules import shape_of_part
from mg.weights.safetensors_file import INDEX_SUFFIX, safetensors_files, write_safetensors
from mg.weights.tensor_check import check_tensors
from mg.weights.transformer_names import OriginalParts, find_original, from_original

__all__ = ["ReadDenoiser", "read_denoiser", "read_denoiser_config", "write_denoiser"]

logger = logging.getLogger("mg")


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


def read_denoiser_config(folder: str | os.PathLike) -> tuple[DenoiserFamily, DenoiserConfig]:
    """Return family and config of the denoiser in a folder; weights are read if they alone tell.

    Raises:
        FileNotFoundError, ValueError: as `read_denoiser`.
    """
    stated = _stated(Path(folder) / CONFIG_FILE)
    if stated is not None:
        find_weights(folder)
        return stated
    read = read_denoiser(folder)
    return read.family, read.config


def read_denoiser(path: str | os.PathLike, *, key: str | None = None) -> ReadDenoiser:
    """Return what a folder or a weight file with a denoiser holds, checked; no network is built.

    Weights may have the original names of CogVideoX's or HunyuanVideo's transformer
    (`mg.weights.transformer_names`). Without a config.json they are of the published size that has
    their shapes.

    Args:
        path: a folder with config.json, which says the class, and weights, whole or in shards; or
            the file of the weights.
        key: the weights to take from a file that holds several
            (`mg.weights.checkpoint_file.read_weights`).

    Raises:
        FileNotFoundError: one of them is not there.
        ValueError: an unknown class, damaged files, or weights that do not fit the config.
    """
    path = Path(path)
    config_file = (path if path.is_dir() else path.parent) / CONFIG_FILE
    stated = _stated(config_file)
    try:
        file = find_weights(path)
    except FileNotFoundError:
        if stated is None and path.exists():
            raise _missing(config_file) from None
        raise
    shapes = {name: entry.shape for name, entry in list_tensors(file, key=key).items()}
    try:
        original = find_original(shapes)
        if original is not None:
            shapes = {
                name: shape_of_part(shapes[part.name], part)
                for name, part in original.parts.items()
            }
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    if stated is None and original is None:
        raise _missing(config_file)
    try:
        family, config = stated or _published(original, shapes)
        if original is not None and original.family != family.name:
            raise ValueError(
                f"these are weights of family {original.family!r}, the class is {family.name!r}'s"
            )
        check_config_sizes(config.to_dict(), shapes)
        tensors = from_original(read_weights(file, key=key), original)
        check_tensors(tensors, family.shapes(config))
    except ValueError as error:
        names = "" if original is None else " (original names, converted to diffusers')"
        place = f"{file} does not fit its {CONFIG_FILE}{names}" if stated else f"{file}{names}"
        raise ValueError(f"{place}: {error}") from error
    files = safetensors_files(file) if file.name.endswith(INDEX_SUFFIX) else [file]
    return ReadDenoiser(family, config, tensors, files)


def _stated(path: Path) -> tuple[DenoiserFamily, DenoiserConfig] | None:
    """Return family and config that a config.json states; None if there is none."""
    try:
        fields = read_json_object(path)
    except FileNotFoundError:
        return None
    try:
        family = denoiser_of_class(fields.get("_class_name"))
        return family, family.read_config({k: v for k, v in fields.items() if k[:1] != "_"})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _missing(path: Path) -> FileNotFoundError:
    return FileNotFoundError(f"{path} is missing; copy the folder as a whole")


def _published(
    original: OriginalParts, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[DenoiserFamily, DenoiserConfig]:
    """Return the family and the published size of weights without a config.json.

    Raises:
        ValueError: they are of none.
    """
    family = denoiser_family(original.family)
    try:
        configs = family.published_configs(shapes)
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise ValueError(f"the tensors are not those of a whole transformer: {error}") from error
    for config in configs:
        if len(family.shapes(config)) == len(shapes) and family.shapes(config) == dict(shapes):
            logger.info("no %s says what the weights are; their shapes do: %s", CONFIG_FILE, config)
            return family, config
    raise ValueError(
        f"no published size of family {family.name!r} has these {len(shapes)} tensors; put the "
        f"{CONFIG_FILE} of diffusers beside the file"
    )


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
