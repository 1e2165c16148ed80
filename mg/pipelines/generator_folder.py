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
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mg import __version__
from mg.conditions.text.build import absolute_spec, build_text_encoder, build_text_encoders
from mg.conditions.text.encoder import TextEncoder
from mg.conditions.visual import NO_CHANNELS, ChannelConditions
from mg.console import one_line
from mg.file_names import CONFIG_FILE, WEIGHTS_FILE
from mg.files import sha256_of_file, write_text
from mg.flow.scheduler_config import build_scheduler
from mg.json_file import read_json_object
from mg.latent_spec import LatentSpec
from mg.models.autoencoder_parts import AutoencoderParts
from mg.models.denoiser_config import DenoiserConfig
from mg.models.families import (
    AutoencoderFamily,
    DenoiserFamily,
    autoencoder_family,
    autoencoder_of_class,
    denoiser_of_class,
)
from mg.models.reading import read_autoencoder
from mg.pipelines.diffusers_folder import (
    PIPELINES,
    SCHEDULER_FOLDER,
    open_diffusers_pipeline,
    read_scheduler,
    scheduler_file,
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
from mg.weights.lora_file import check_maps, find_lora, merge_lora, read_lora
from mg.weights.publishing import CARD_NAME, model_card, write_card
from mg.weights.safetensors_file import read_safetensors, write_safetensors
from mg.weights.stored_config import vae_metadata
from mg.weights.tensor_check import check_tensors

if TYPE_CHECKING:
    from mg.models.autoencoder import Autoencoder

__all__ = [
    "SHIPPED_AUTOENCODER",
    "SHIPPED_GENERATOR",
    "GeneratorDefaults",
    "GeneratorParts",
    "load_generator",
    "open_generator",
    "save_generator",
    "with_lora",
    "with_lora_record",
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


def save_generator(
    folder: str | os.PathLike,
    *,
    transformer_tensors: Mapping[str, np.ndarray],
    transformer_config: Mapping[str, Any] | DenoiserConfig,
    autoencoder: "AutoencoderParts | Autoencoder | str | os.PathLike",
    text_encoders: Sequence[TextEncoder | str],
    defaults: Mapping[str, Any] | GeneratorDefaults,
    scope: TrainingScope | None = None,
    conditions: ChannelConditions = NO_CHANNELS,
    family: DenoiserFamily = DEFAULT_FAMILY,
    scheduler: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a generator's folder: all of it, or nothing.

    A README.md that is there stays; else one is written, a model card.

    Args:
        folder: to write; its parents are made.
        transformer_tensors: by the network's names, as `Denoiser.tensors` gives them.
        transformer_config: of the network.
        autoencoder: of any family, whose latents the transformer was trained on: its parts, which
            are written in the precision they have, the network, or the path of its weights.
        text_encoders: in the order of the transformer's; or their specs
            (`mg.conditions.text.build`).
        defaults: see `GeneratorDefaults`; a mapping with its fields will do.
        scope: what the generator was trained on; None where that is not known.
        conditions: what the network is conditioned on besides text.
        family: of the network.
        scheduler: fields of a scheduler_config.json that the network was trained for, if any.
        overwrite: whether a generator that is there may be replaced.

    Raises:
        FileExistsError: the folder exists and `overwrite` is false, or it holds something else.
        ValueError: parts that do not fit each other.
    """
    folder = Path(os.path.abspath(folder))
    _check_place(folder, overwrite)
    config = family.read_config(transformer_config)
    defaults = GeneratorDefaults.from_mapping(defaults)
    encoders = [build_text_encoder(e) if isinstance(e, str) else e for e in text_encoders]
    parts = _parts_of(autoencoder)
    check_tensors(parts.tensors, parts.family.shapes(parts.config))
    check_tensors(transformer_tensors, family.shapes(config))
    check_fit(config, parts.spec, encoders, conditions)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        new = Path(scratch) / "new"
        denoiser, coder, text = (new / name for name in FOLDERS)
        _write_json(denoiser / CONFIG_FILE, {"_class_name": family.class_name, **config.to_dict()})
        stated = {"_class_name": parts.family.class_names[0], **parts.config.to_dict()}
        _write_json(coder / CONFIG_FILE, stated)
        _write_json(text / CONFIG_FILE, {"encoders": [_entry(e) for e in encoders] or None})
        write_safetensors(denoiser / WEIGHTS_FILE, transformer_tensors)
        # With the config in the header too, the file alone is a whole autoencoder.
        write_safetensors(coder / WEIGHTS_FILE, parts.tensors, metadata=vae_metadata(stated))
        index = {
            "_class_name": CLASS_NAME,
            "_mg_version": __version__,
            "defaults": dataclasses.asdict(defaults),
            "families": {"denoiser": family.name, "autoencoder": parts.family.name},
            "latents": parts.spec.to_dict(),
            "sha256": {name: sha256_of_file(new / name) for name in _weights(FOLDERS)},
        }
        if scheduler is not None:
            build_scheduler(scheduler, 1)  # refuses one that cannot be read back
            _write_json(scheduler_file(new), scheduler)
        if conditions:
            index["conditions"] = conditions.to_dict()
        if scope is not None:
            index["trained_on"] = dataclasses.asdict(scope)
        _write_json(new / INDEX_FILE, index)
        if (folder / CARD_NAME).exists():
            shutil.copyfile(folder / CARD_NAME, new / CARD_NAME)
        write_card(new, _card(family, config, defaults, scope))
        if folder.exists():
            os.replace(folder, Path(scratch) / "old")
        os.replace(new, folder)


def _card(
    family: DenoiserFamily,
    config: DenoiserConfig,
    defaults: GeneratorDefaults,
    scope: TrainingScope | None,
) -> str:
    """Return the model card of a generator."""
    num_parameters = family.num_parameters(config)
    height, width = defaults.size
    about = (
        f"A generator of videos of {defaults.num_frames} frames of {height}x{width} pixels, with a "
        f"denoiser of the family `{family.name}` of {num_parameters:,} parameters."
    )
    prompt = "..."
    if scope is not None and scope.examples:
        prompt = scope.examples[0]
        about += f" It was trained on captions like {prompt!r}."
    return model_card(
        "Video generator",
        pipeline_tag="text-to-video",
        about=about,
        usage="from mg import TextToVideo\n\ngenerator = TextToVideo.from_pretrained('FOLDER')\n"
        f"videos = generator({prompt!r}, seed=0)",
        config=config.to_dict(),
    )


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
    weights = _weights(OLDER_FOLDERS if is_older else FOLDERS)
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


def with_lora(
    parts: GeneratorParts, path: str | os.PathLike, *, weight: float = 1.0
) -> GeneratorParts:
    """Return a generator with a LoRA merged into its transformer, once its weights are there.

    Args:
        parts: of the generator, which may only be opened.
        path: of the LoRA, a file or a folder that holds one, see `mg.weights.lora_file`.
        weight: how much of it; 1 is what was trained.

    Raises:
        FileNotFoundError, ValueError: no such file, or one of another network.
    """
    try:
        maps = read_lora(path)
        check_maps(maps, parts.family.shapes(parts.transformer_config))
    except ValueError as error:
        raise ValueError(f"lora={path}: {error}") from error

    def read_weights() -> GeneratorWeights:
        base = parts.with_weights()
        return GeneratorWeights(
            merge_lora(base.transformer_tensors, maps, weight=weight),
            base.autoencoder,
            with_lora_record(base.sha256, path, weight),
        )

    merged = dataclasses.replace(parts, read_weights=read_weights)
    return merged if parts.read_weights is not None else merged.with_weights()


def with_lora_record(
    sha256: Mapping[str, str], path: str | os.PathLike, weight: float
) -> dict[str, str]:
    """Return the SHA-256 of a generator's weights with that of one more LoRA.

    Args:
        sha256: of the weights, and of the LoRAs that were merged before.
        path: of the LoRA.
        weight: how much of it was merged.
    """
    number = 1 + sum(name.startswith("lora ") for name in sha256)
    amount = f"{weight:g}" if float(f"{weight:g}") == weight else repr(float(weight))
    # The first one has no number, so that records of before are still known.
    key = f"lora x {amount}" if number == 1 else f"lora {number} x {amount}"
    return {**sha256, key: sha256_of_file(find_lora(path))}


def _check_place(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{folder} exists already; choose another or pass overwrite=True")
    is_empty = folder.is_dir() and not any(folder.iterdir())
    if not is_empty and not (folder / INDEX_FILE).is_file():
        raise FileExistsError(
            f"{folder} is not a generator (it has no {INDEX_FILE}) and is not replaced; choose "
            "another folder"
        )


def _parts_of(
    autoencoder: "AutoencoderParts | Autoencoder | str | os.PathLike",
) -> AutoencoderParts:
    if isinstance(autoencoder, AutoencoderParts):
        return autoencoder
    if isinstance(autoencoder, str | os.PathLike):
        return read_autoencoder(autoencoder)
    return AutoencoderParts.of_network(autoencoder)


def _weights(folders: Sequence[str]) -> tuple[str, str]:
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


def _entry(encoder: TextEncoder) -> dict[str, str]:
    return {"spec": absolute_spec(encoder.spec), "identity": encoder.identity}


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


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; copy the folder as a whole") from None
