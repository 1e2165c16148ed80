"""The weights that the training of an autoencoder starts from, and those that it ends with."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mg.models.autoencoder import Autoencoder, AutoencoderSettings
from mg.models.families import AutoencoderFamily, autoencoder_family
from mg.models.reading import ReadVAE, check_checkpoint, read_vae
from mg.training.autoencoder.autoencoder_config import TrainAutoencoderConfig
from mg.training.parameter_groups import autoencoder_halves, matching_names
from mg.training.pretrained import PretrainedVAESettings, find_start_weights
from mg.training.run.checkpoint import save_final_weights
from mg.vaes.video_vae import family_class
from mg.weights.stored_config import vae_metadata

__all__ = [
    "check_start",
    "export_autoencoder",
    "exported_path",
    "load_start_weights",
    "load_teacher",
    "metadata_of",
    "name_aliases",
]


def check_start(config: TrainAutoencoderConfig) -> None:
    """Raise ValueError for clips whose size the network to start from cannot take.

    Only its config is read, so that this comes before the weights.
    """
    start = config.start_weights()
    if start is None or not Path(start.model_name).exists():
        return
    spec = check_checkpoint(start.model_name)
    if spec is not None and config.model_to_train().config is None:
        config.check_sizes(math.lcm(spec.h, spec.w))


def load_start_weights(
    config: TrainAutoencoderConfig,
) -> tuple[dict[str, np.ndarray] | None, AutoencoderSettings]:
    """Return the weights to start from, None for random ones, and the config of the network.

    With `pretrained.vae.parts` these are not all weights of the network.

    Raises:
        FileNotFoundError: there are no such weights.
        ValueError: they are damaged, of another family, or of another network than `model` says.
    """
    model, start = config.model_to_train(), config.start_weights()
    family = model.family
    if start is None:
        return None, model.config or family.read_config({})
    stated = None if model.config is None else model.config.to_dict()
    if stated is not None and not family.starts_from:  # the class says how some files are read
        stated = {"_class_name": family.class_names[0], **stated}
    read = _read(start, family, stated)
    if start.parts is None:
        return read.tensors, model.config or family.read_config(read.config)
    aliases = name_aliases(family)
    chosen = set()
    for pattern in start.parts:
        chosen |= matching_names(list(read.tensors), pattern, aliases=aliases)
    network_config = family.read_config({**read.config, **model.changes})
    return {name: read.tensors[name] for name in sorted(chosen)}, network_config


def name_aliases(family: AutoencoderFamily) -> dict[str, Sequence[str]]:
    """Return what short names in patterns of a family's parameters stand for."""
    return {"temporal": family.temporal, **autoencoder_halves()}


def load_teacher(config: TrainAutoencoderConfig) -> Autoencoder:
    """Return the whole network that `pretrained.vae` names, which does not train.

    Its parameters have names of their own, so that it may stand beside the one that does.

    Raises:
        FileNotFoundError, ValueError: as `load_start_weights`.
    """
    family = config.model_to_train().family
    read = _read(config.start_weights(), family, None)
    teacher = family.build(
        family.read_config(read.config),
        has_values=False,
        encode_dtype=config.dtype,
        decode_dtype=config.dtype,
    )
    try:
        teacher.load_tensors(read.tensors)
    except ValueError as error:
        raise ValueError(f"{config.start_weights().model_name}: {error}") from error
    for parameter in teacher.get_parameters():
        parameter.requires_grad = False
        parameter.name = f"teacher.{parameter.name}"
    return teacher.set_train(False)


def _read(
    start: PretrainedVAESettings, family: AutoencoderFamily, stated: dict[str, Any] | None
) -> ReadVAE:
    """Return what the weights to start from are; `stated` stands for the config beside them."""
    path = find_start_weights(start)
    inflate_method = start.inflate_method
    if inflate_method == "central" and not family.starts_from:  # the default, of what inflates
        inflate_method = "none"
    return read_vae(
        path,
        method=start.method,
        inflate_method=inflate_method,
        config=stated,
        key=start.key,
        into=family.name,
    )


def exported_path(folder: Path, family: AutoencoderFamily) -> Path:
    """Return where a run's final weights stand: a TAE is one file, others a folder `vae`."""
    return folder / ("tae.safetensors" if family.name == "tae" else "vae")


def export_autoencoder(path: Path, autoencoder: Autoencoder) -> None:
    """Write the weights and the config of a network; those of an earlier run are replaced.

    Args:
        path: `exported_path` of its family.
        autoencoder: the network.
    """
    if path.suffix:
        save_final_weights(path, autoencoder.tensors(), autoencoder.config.to_dict())
        return
    family_class(autoencoder.family)(autoencoder).save_pretrained(path, overwrite=True)


def metadata_of(autoencoder: Autoencoder) -> dict[str, str]:
    """Return what the header of a checkpoint says, so that the file alone can be loaded."""
    class_name = autoencoder_family(autoencoder.family).class_names[0]
    fields: dict[str, Any] = {"_class_name": class_name, **autoencoder.config.to_dict()}
    return vae_metadata(json.loads(json.dumps(fields)))
