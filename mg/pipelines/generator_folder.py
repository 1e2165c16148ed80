"""A generator's folder: all that makes videos from text, to be copied and shared as a whole.

    model_index.json   class, version, defaults for sampling, SHA-256 of the weights, conditions
                       besides text, and what the generator was trained on: words, sizes, lengths,
                       example prompts
    denoiser/          config.json  diffusion_pytorch_model.safetensors
    autoencoder/       config.json  diffusion_pytorch_model.safetensors
    conditions/        config.json: the text encoders
    scheduler/         scheduler_config.json, of a network that was published with one

Only pretrained text encoders (t5, byt5, clip, llama) lie outside: `conditions/config.json` has the
paths of their folders, and what their files must hash to. In older folders the three are called
transformer, tae and text; they are read as before. Nothing here imports MindSpore.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mg.conditions.text.build import build_text_encoders
from mg.conditions.text.encoder import TextEncoder
from mg.conditions.visual import NO_CHANNELS, ChannelConditions
from mg.console import one_line
from mg.file_names import CONFIG_FILE, WEIGHTS_FILE
from mg.files import sha256_of_file
from mg.json_file import read_json_object
from mg.latent_spec import LatentSpec
from mg.models.autoencoder_parts import AutoencoderParts
from mg.models.families import (
    AutoencoderFamily,
    DenoiserFamily,
    autoencoder_family,
    autoencoder_of_class,
    denoiser_of_class,
)
from mg.pipelines.diffusers_folder import (
    PIPELINES,
    SCHEDULER_FOLDER,
    open_diffusers_pipeline,
    read_scheduler,
)
from mg.pipelines.generator_defaults import GeneratorDefaults
from mg.pipelines.generator_parts import (
    DEFAULT_FAMILY,
    GeneratorParts,
    GeneratorWeights,
    check_fit,
)
from mg.pipelines.training_scope import TrainingScope
from mg.shipped import find_shipped, shipped_root
from mg.weights.config_sizes import check_config_sizes
from mg.weights.safetensors_file import read_safetensors
from mg.weights.tensor_check import check_tensors

__all__ = [
    "CLASS_NAME",
    "FOLDERS",
    "INDEX_FILE",
    "SHIPPED_AUTOENCODER",
    "SHIPPED_GENERATOR",
    "load_generator",
    "open_generator",
    "weight_files",
]

CLASS_NAME = "TextToVideo"
INDEX_FILE = "model_index.json"
# The folders, and their names in generators of before.
FOLDERS = ("denoiser", "autoencoder", "conditions")
OLDER_FOLDERS = ("transformer", "tae", "text")
OLDER_AUTOENCODER = autoencoder_family("tae").class_names[0]

# A small generator of moving shapes (docs/movie_gen.md), and the weights of its autoencoder.
SHIPPED_GENERATOR = shipped_root() / "assets" / "shapes_generator"
SHIPPED_AUTOENCODER = SHIPPED_GENERATOR / "autoencoder" / WEIGHTS_FILE


def load_generator(folder: str | os.PathLike) -> GeneratorParts:
    """Return what a generator's folder holds, checked; no network is built.

    Args and Raises: as `open_generator`, and of damaged weights, or other ones than were written.
    """
    return open_generator(folder).with_weights()


def open_generator(folder: str | os.PathLike) -> GeneratorParts:
    """Return what a generator's folder holds but for its weights, checked.

    A request can then be refused before `with_weights` reads and hashes them, which takes a minute
    for tens of gigabytes. It may be a folder that `save_generator` wrote, or one of diffusers'
    (`mg.pipelines.diffusers_folder`).

    Raises:
        FileNotFoundError: no such folder, or a file in it, or of a pretrained text encoder, is
            missing.
        ValueError: damaged files, or parts that do not fit each other.
    """
    folder = Path(find_shipped(folder))
    if not (folder / INDEX_FILE).exists():
        fault = f"is not a generator: there is no {INDEX_FILE}"
        raise FileNotFoundError(
            f"{folder} {fault if folder.exists() else 'does not exist'}; expected a folder that "
            f"training wrote, with the folders {', '.join(FOLDERS)}"
        )
    index = _read_json(folder / INDEX_FILE)
    class_name = index.get("_class_name", CLASS_NAME)
    if class_name in PIPELINES:
        return open_diffusers_pipeline(folder, index)
    if class_name != CLASS_NAME:
        known = ", ".join((CLASS_NAME, *PIPELINES))
        raise ValueError(
            f"{folder / INDEX_FILE}: a pipeline of class {one_line(repr(class_name))} is not "
            f"known; known are {known}"
        )
    is_older = "families" not in index
    denoiser, coder, text = OLDER_FOLDERS if is_older else FOLDERS
    weights = weight_files(OLDER_FOLDERS if is_older else FOLDERS)
    family = _family(folder / denoiser)
    coder_family = _autoencoder_family(folder / coder)
    if not is_older:
        _check_families(folder, index["families"], (family.name, coder_family.name))
    _check_weights_stated(folder, index, weights)
    config = _stated(folder / denoiser, family.read_config)
    coder_config = _stated(folder / coder, coder_family.read_config)
    encoders = _read_encoders(folder / text)
    scheduler = read_scheduler(folder) if (folder / SCHEDULER_FOLDER).is_dir() else None
    try:
        conditions = NO_CHANNELS
        if "conditions" in index:
            conditions = ChannelConditions.from_mapping(index["conditions"])
        spec = coder_config.spec  # older folders have a TAE, whose config states the scale
        if "latents" in index:
            spec = LatentSpec.from_mapping(index["latents"])
        check_fit(config, spec, encoders, conditions)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    try:
        defaults = GeneratorDefaults.from_mapping(index.get("defaults", {}))
        stated = index.get("trained_on")
        scope = None if stated is None else TrainingScope.from_mapping(stated)
    except ValueError as error:
        raise ValueError(f"{folder / INDEX_FILE}: {error}") from error

    def read_weights() -> GeneratorWeights:
        _check_sha256(folder, index["sha256"])
        coder_tensors = _fitting(folder / weights[1], coder_config, coder_family)
        return GeneratorWeights(
            _fitting(folder / weights[0], config, family),
            dataclasses.replace(
                autoencoder,
                tensors={
                    name: array.astype(np.float32, copy=False)
                    for name, array in coder_tensors.items()
                },
            ),
            index["sha256"],
        )

    autoencoder = AutoencoderParts(coder_family, coder_config, {}, spec)
    return GeneratorParts(
        folder,
        config,
        {},
        autoencoder,
        encoders,
        defaults,
        {},
        scope,
        conditions,
        family,
        scheduler,
        read_weights,
    )


def weight_files(folders: Sequence[str]) -> tuple[str, str]:
    """Return the weight files of the denoiser and of the autoencoder."""
    return f"{folders[0]}/{WEIGHTS_FILE}", f"{folders[1]}/{WEIGHTS_FILE}"


def _fitting(
    path: Path, config: Any, family: DenoiserFamily | AutoencoderFamily
) -> dict[str, np.ndarray]:
    """Return the tensors of a file; raise ValueError if they are not those of a config."""
    tensors = read_safetensors(path)
    try:
        check_config_sizes(config.to_dict(), {name: a.shape for name, a in tensors.items()})
        check_tensors(tensors, family.shapes(config))
    except ValueError as error:
        raise ValueError(f"{path} does not fit its {CONFIG_FILE}: {error}") from error
    return tensors


def _family(folder: Path) -> DenoiserFamily:
    """Return the family of the denoiser; that of older folders, which do not say, is one."""
    path = folder / CONFIG_FILE
    try:
        return denoiser_of_class(_read_json(path).get("_class_name", DEFAULT_FAMILY.class_name))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _autoencoder_family(folder: Path) -> AutoencoderFamily:
    """Return the family of the autoencoder; that of older folders, which do not say, is one."""
    path = folder / CONFIG_FILE
    try:
        return autoencoder_of_class(_read_json(path).get("_class_name", OLDER_AUTOENCODER))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _check_families(folder: Path, stated: object, found: tuple[str, str]) -> None:
    """Raise ValueError unless the index names the families that the config.json of both state."""
    expected = dict(zip(FOLDERS, found, strict=False))
    if stated != expected:
        raise ValueError(
            f"{folder / INDEX_FILE} has families={one_line(repr(stated))}, but by {CONFIG_FILE} in "
            f"each folder they are {expected}; copy the folder as a whole"
        )


def _read_encoders(folder: Path) -> list[TextEncoder]:
    path = folder / CONFIG_FILE
    entries = _read_json(path).get("encoders", [])
    if entries is None:  # texts come embedded
        return []
    keys = {"spec", "identity"}
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and set(entry) == keys for entry in entries
    ):
        raise ValueError(f"{path}: expected a list `encoders` of objects with the keys {keys}")
    try:
        encoders = build_text_encoders([entry["spec"] for entry in entries])
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(
            f"{path}: {error} (a pretrained text encoder that was moved: write its new path there)"
        ) from error
    for entry, encoder in zip(entries, encoders, strict=True):
        if encoder.identity != entry["identity"]:
            raise ValueError(
                f"{path}: the text encoder {encoder.spec!r} is not the one that the transformer "
                f"was trained with: it is {encoder.identity}, expected {entry['identity']}"
            )
    return encoders


def _check_weights_stated(folder: Path, index: Mapping[str, Any], weights: Sequence[str]) -> None:
    """Raise unless the weights are there, and the index has the SHA-256 of each."""
    expected = index.get("sha256")
    if not isinstance(expected, dict) or set(expected) != set(weights):
        raise ValueError(f"{folder / INDEX_FILE}: expected `sha256` of {', '.join(weights)}")
    for name in weights:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} lacks {name}; copy the folder as a whole")


def _check_sha256(folder: Path, expected: Mapping[str, str]) -> None:
    for name, wanted in expected.items():
        digest = sha256_of_file(folder / name)
        if digest != wanted:
            raise ValueError(
                f"{folder / name} is not the file that was written: SHA-256 {digest}, expected "
                f"{wanted}; copy the folder again"
            )


def _stated(folder: Path, config_of: Any) -> Any:
    """Return a config from its JSON file; keys with an underscore only say who wrote it."""
    path = folder / CONFIG_FILE
    fields = {k: v for k, v in _read_json(path).items() if not k.startswith("_")}
    try:
        return config_of(fields)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; copy the folder as a whole") from None
