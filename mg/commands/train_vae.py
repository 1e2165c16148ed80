"""Train a video autoencoder of any family.

mg train-vae --config configs/vae/train/causal_vae_tiny.yaml
"""

import logging
from collections.abc import Mapping
from typing import Any

from mg.cli import parse_config
from mg.commands.train_tae import train
from mg.data.bucket_config import parse_bucket_config
from mg.shipped import find_shipped
from mg.training.autoencoder.autoencoder_config import TrainVAEConfig
from mg.training.autoencoder.stated_training import HALVED, stated_settings
from mg.training.settings import DataSettings
from mg.weights.stored_config import read_config

__all__ = ["main", "parse"]

logger = logging.getLogger("mg")

# What --help shows.
COMMON = (
    "model",
    "video_folder",
    "output_path",
    "pretrained",
    "steps",
    "batch_size",
    "data.size",
    "optim.lr",
    "resume",
    "device",
)
FAMILY = "causal_vae"  # whose config.json speaks of training
OF_TRAINING = {"lr", "loss_type", "loss_params"}

Nested = Mapping[str, Any]


def main() -> None:
    train(parse())


def parse(arguments: list[str] | None = None) -> TrainVAEConfig:
    """Return the settings of a run; what `model` says of the training is among them."""
    return parse_config(
        TrainVAEConfig, arguments, description=__doc__, common=COMMON, completed=of_model
    )


def of_model(flags: Nested, in_files: Nested) -> dict[str, Any]:
    """Return what a CausalVideoVAE's config says of its training: {dotted name: value}.

    A config that a flag names stands above the config files; one that a file names, below them.
    """
    by_flags, by_files = _mapping(flags, "model"), _mapping(in_files, "model")
    model = {**by_files, **by_flags}
    path = model.get("config")
    if model.get("family") != FAMILY or (path is None and not model.keys() & OF_TRAINING):
        return {}
    fields = {**(read_config(find_shipped(str(path))) if path else {}), **model}
    place = str(path or "model")
    stated = stated_settings(fields, height_width=_size(flags, in_files), place=place)
    is_named_by_flag = by_flags.keys() & {"config", *OF_TRAINING}
    for name in list(stated):
        if _is_said(name, flags) or (not is_named_by_flag and _is_said(name, in_files)):
            stated.pop(name)
    if "adversarial.start_step" in stated:
        logger.warning(
            HALVED, fields["loss_params"]["disc_start"], stated["adversarial.start_step"]
        )
    if stated:
        said = ", ".join(f"{name}={value}" for name, value in stated.items())
        logger.info("%s sets %s.", place, said)
    return stated


def _mapping(settings: Nested, section: str) -> Nested:
    found = settings.get(section)
    return found if isinstance(found, Mapping) else {}


def _is_said(name: str, settings: Nested) -> bool:
    """Return whether settings have a dotted name, or say something else of a section of it."""
    for part in name.split("."):
        if not isinstance(settings, Mapping):
            return True
        if part not in settings:
            return False
        settings = settings[part]
    return True


def _size(flags: Nested, in_files: Nested) -> tuple[int, int]:
    """Return height and width of the clips, those of the largest bucket if there are buckets.

    What is no size is refused later, where all settings are checked.
    """
    data = {**_mapping(in_files, "data"), **_mapping(flags, "data")}
    try:
        if data.get("bucket_config"):
            largest = parse_bucket_config(data["bucket_config"], unit=1)[0].size
            return largest.height, largest.width
        return DataSettings(size=data.get("size", DataSettings.size)).height_width
    except (AttributeError, TypeError, ValueError):
        return DataSettings().height_width
