"""Flags of Open-Sora-Plan's train.sh that are more than another name of a setting here."""

import itertools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mg.known_names import check_known
from mg.shipped import find_shipped
from mg.training.autoencoder.stated_training import (
    DEFAULT_KL_WEIGHT,
    DISCRIMINATORS,
    PIXEL_LOSSES,
    has_discriminator,
    loss_params,
    number,
    pixel_loss,
    weights_beside_pixels,
)
from mg.weights.stored_config import read_config
from mg.yaml_file import parse_yaml

__all__ = ["AS_IS", "CONVERTED", "SWITCHES", "training_settings"]

logger = logging.getLogger("mg")

AS_IS = "disc_start_as_is"
# Flags that are converted here, and those of them that have no value.
SWITCHES = (AS_IS, "not_resume_training_process", "dynamic_sample", "ema", "freeze_encoder")
CONVERTED = (
    *("model_config", "model_name", "pretrained_model_name_or_path", "load_from_checkpoint"),
    *("resume_from_checkpoint", "exp_name", "output_dir", "ckpt_dir", "sample_rate", "lr"),
    *("disc_cls", "disc_start", "disc_weight", "kl_weight", "logvar_init", "loss_type"),
    *("ema_decay", *SWITCHES),
)
DEFAULT_EMA_DECAY = "0.999"
DEFAULT_SIZE = "256"  # of configs/vae/train/causal_vae.yaml
MODELS = ("CausalVAE", "CausalVAEModel")

Given = dict[str, str | None]


def training_settings(given: Given, ours: Sequence[str]) -> list[str]:
    """Return the settings that flags stand for, and take these flags out of those given.

    Args:
        given: {flag: value}, None for a switch.
        ours: settings that are given themselves.

    Raises:
        ValueError: a wrong value; the flag is named.
        FileNotFoundError: there is no such config.json.
    """
    taken = {name: given.pop(name) for name in CONVERTED if name in given}
    if name := taken.get("model_name"):
        check_known([name], MODELS, kind="model", place="after --model_name")
    path = taken.get("model_config") or _own(ours, "model.config")
    fields = read_config(find_shipped(path)) if path else {}
    size = given.get("resolution") or _own(ours, "data.size", "size") or DEFAULT_SIZE
    start = _start(taken, has_config=bool(path))
    settings = _losses(taken, fields, size) | _output(taken) | _frames(taken)
    if "model_config" in taken:
        settings["model.config"] = taken["model_config"]
    settings |= start
    settings["optim.ema_decay"] = "null"
    if "ema" in taken:
        settings["optim.ema_decay"] = taken.get("ema_decay") or DEFAULT_EMA_DECAY
    elif "ema_decay" in taken:
        logger.warning("--ema_decay has no effect without --ema.")
    if "freeze_encoder" in taken:
        settings["freeze"] = _encoder(fields or _stored_fields(start.get("pretrained")))
    return [f"--{name}={value}" for name, value in settings.items()]


def _own(ours: Sequence[str], *names: str) -> str | None:
    """Return the value of a setting of ours, by one of its names; None if it is not given."""
    found = None
    for argument, after in itertools.pairwise([*ours, ""]):
        name, has_value, value = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and name in names:
            found = value if has_value else after
    return found


def _start(taken: Given, *, has_config: bool) -> dict[str, str]:
    """Return where a run begins: with weights, or where a run of ours has ended."""
    weights = taken.get("load_from_checkpoint") or taken.get("pretrained_model_name_or_path")
    settings = {}
    if resumed := taken.get("resume_from_checkpoint"):
        run = _own_run(Path(resumed))
        if run is not None and "not_resume_training_process" not in taken:
            settings = {"output_path": str(run), "resume": "true"}
        else:
            weights = resumed if run is None else str(run / "vae")
            logger.warning(
                "--resume_from_checkpoint %s: its weights are taken; steps, optimiser and "
                "discriminator begin anew.",
                resumed,
            )
    if weights:
        settings["pretrained"] = weights
        if not has_config and _has_config(Path(weights)):
            settings["model.config"] = "null"  # it is that of the weights
    return settings


def _own_run(path: Path) -> Path | None:
    """Return the folder of a run of ours, of itself or of one of its checkpoints."""
    run = path.parent.parent if path.parent.name == "checkpoints" else path
    is_run = (run / "checkpoints").is_dir() and (run / "config.yaml").is_file()
    return run if is_run else None


def _has_config(weights: Path) -> bool:
    """Return whether weights bring their config along, as public ones do."""
    if weights.is_dir():
        return any(weights.glob("config.json")) or any(weights.glob("*/config.json"))
    return not weights.exists() or (weights.parent / "config.json").is_file()


def _stored_fields(weights: str | None) -> dict[str, Any] | None:
    """Return the fields of the config that a run begins with; None if they are not here yet."""
    if weights is None:
        return {}
    folder = Path(weights) if Path(weights).is_dir() else Path(weights).parent
    unknown = None if not Path(weights).exists() else {}
    return next(map(read_config, sorted(folder.glob("config.json"))), unknown)


def _encoder(fields: Mapping[str, Any] | None) -> str:
    """Return patterns of the encoder's parameters; `quant_conv` is not in every network."""
    if fields is None:
        return '["[eq]*"]'  # of the names encoder, quant_conv, post_quant_conv, decoder
    return '["encoder", "quant_conv"]' if fields.get("use_quant_layer", True) else '["encoder"]'


def _losses(taken: Given, fields: Mapping[str, Any], size: str) -> dict[str, Any]:
    """Return the settings of losses and learning rates.

    A config.json's own are found by `mg train-vae`; here they count for what flags change.
    """
    settings: dict[str, Any] = {}
    place = str(taken.get("model_config"))
    stated = loss_params(fields, place)
    values = {"kl_weight": DEFAULT_KL_WEIGHT, "logvar_init": 0.0}
    for name in values:
        if name in taken:
            values[name] = number(taken[name], f"--{name}")
        elif name in stated:
            values[name] = number(stated[name], f"{place}: loss_params.{name}")
    if (sides := _height_width(size)) is not None:
        settings |= weights_beside_pixels(
            sides, kl_weight=values["kl_weight"], logvar=values["logvar_init"]
        )
    if "lr" in taken:  # of both networks there
        settings["optim.lr"] = settings["adversarial.lr"] = number(taken["lr"], "--lr")
    if kind := taken.get("loss_type"):
        check_known([kind], list(PIXEL_LOSSES), kind="loss", place="after --loss_type")
        settings |= pixel_loss(kind)
    settings |= _discriminator(taken, stated)
    if "disc_cls" not in taken and not has_discriminator(fields):
        settings["adversarial"] = None
    if settings.get("adversarial", "") is None or settings.get("adversarial.weight") == 0:
        settings = {k: v for k, v in settings.items() if not k.startswith("adversarial.")}
        settings["adversarial"] = "null"
    return settings


def _discriminator(taken: Given, stated: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if name := taken.get("disc_cls"):
        name = name.rpartition(".")[2]
        check_known([name], list(DISCRIMINATORS), kind="loss", place="after --disc_cls")
        kind = DISCRIMINATORS[name]
        settings |= {"adversarial": None} if kind is None else {"adversarial.network.kind": kind}
    if "disc_start" in taken:  # a flag of v1.2, which counts batches
        start = number(taken["disc_start"], "--disc_start", whole=True)
        settings["adversarial.start_step"] = start
    elif AS_IS in taken and "disc_start" in stated:
        settings["adversarial.start_step"] = stated["disc_start"]
    if "disc_weight" in taken:
        settings["adversarial.weight"] = number(taken["disc_weight"], "--disc_weight")
    return settings


def _height_width(size: str) -> tuple[int, int] | None:
    """Return height and width that a setting of a size says; None if it says none."""
    try:
        value = parse_yaml(size, "the size")
        return (value, value) if isinstance(value, int) and value > 0 else (value[0], value[1])
    except (IndexError, KeyError, TypeError, ValueError):
        return None  # it is refused where all settings are checked


def _output(taken: Given) -> dict[str, str]:
    """Return the folder of the run: a run of a name has one below that of all runs."""
    if folder := taken.get("output_dir"):
        return {"output_path": folder}
    if name := taken.get("exp_name"):
        return {"output_path": str(Path(taken.get("ckpt_dir") or "outputs") / name)}
    return {"output_path": taken["ckpt_dir"]} if "ckpt_dir" in taken else {}


def _frames(taken: Given) -> dict[str, str]:
    """Return how many frames are passed over, which may be drawn for each clip."""
    stride = taken.get("sample_rate")
    settings = {} if stride is None else {"data.sample_stride": stride}
    if "dynamic_sample" in taken:
        if stride is None or stride == "1":
            logger.warning("--dynamic_sample has no effect: it draws from 1 to --sample_rate, 1.")
        else:
            settings["data.random_stride"] = "true"
    return settings
