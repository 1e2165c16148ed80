"""Write a generator's folder (`mg.pipelines.generator_folder` says what is in it)."""

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
from mg.conditions.text.build import absolute_spec, build_text_encoder
from mg.conditions.text.encoder import TextEncoder
from mg.conditions.visual import NO_CHANNELS, ChannelConditions
from mg.file_names import CONFIG_FILE, WEIGHTS_FILE
from mg.files import sha256_of_file, write_text
from mg.flow.scheduler_config import build_scheduler
from mg.models.autoencoder_parts import AutoencoderParts
from mg.models.denoiser_config import DenoiserConfig
from mg.models.families import DenoiserFamily
from mg.models.reading import read_autoencoder
from mg.pipelines.diffusers_folder import scheduler_file
from mg.pipelines.generator_defaults import GeneratorDefaults
from mg.pipelines.generator_folder import CLASS_NAME, FOLDERS, INDEX_FILE, weight_files
from mg.pipelines.generator_parts import DEFAULT_FAMILY, check_fit
from mg.pipelines.training_scope import TrainingScope
from mg.weights.publishing import CARD_NAME, model_card, write_card
from mg.weights.safetensors_file import write_safetensors
from mg.weights.stored_config import vae_metadata
from mg.weights.tensor_check import check_tensors

if TYPE_CHECKING:
    from mg.models.autoencoder import Autoencoder

__all__ = ["save_generator"]


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
            "sha256": {name: sha256_of_file(new / name) for name in weight_files(FOLDERS)},
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


def _entry(encoder: TextEncoder) -> dict[str, str]:
    return {"spec": absolute_spec(encoder.spec), "identity": encoder.identity}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")
