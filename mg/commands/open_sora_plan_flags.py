"""Open-Sora-Plan's flags for its CausalVideoVAE, as settings of the commands here.

    python -m mg.commands.open_sora_plan_flags train --model_config config.json --video_path videos
    python -m mg.commands.open_sora_plan_flags gen_video --ckpt FOLDER --real_video_dir videos

`scripts/causalvae/train.sh` and `gen_video.sh` call this. Settings of `mg train-vae` and
`mg reconstruct` can be given beside the flags; they are handed on as they are.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mg.cli import run_main
from mg.commands import run_command
from mg.known_names import nearest
from mg.weights.stored_config import read_config

__all__ = ["DOORS", "Door", "translated"]

logger = logging.getLogger("mg")

AS_IS = "--disc_start_as_is"
HALVED = (
    "disc_start=%d counts the updates of both networks, as Lightning does: the discriminator joins "
    f"at step %d ({AS_IS} takes the number as it is)"
)


class Door(NamedTuple):
    """What a script of Open-Sora-Plan is here.

    Attributes:
        command: the name of the command.
        settings: of the command, before those of the user.
        names: {flag there: setting here}; None is a flag without a meaning here.
        switches: {flag without a value: settings that it stands for}; None as above.
    """

    command: str
    settings: tuple[str, ...]
    names: Mapping[str, str | None]
    switches: Mapping[str, tuple[str, ...] | None]


DOORS = {
    "train": Door(
        "train-vae",
        ("--config", "configs/vae/train/causal_vae.yaml"),
        {
            "video_path": "video_folder",
            "resolution": "data.size",
            "num_frames": "data.sample_n_frames",
            "video_num_frames": "data.sample_n_frames",
            "sample_rate": "data.sample_stride",
            "num_workers": "data.num_workers",
            "dataset_num_worker": "data.num_workers",
            "model_config": "model.config",
            "pretrained_model_name_or_path": "pretrained",
            "load_from_checkpoint": "pretrained",
            "batch_size": "batch_size",
            "max_steps": "steps",
            "lr": "optim.lr",
            "ema_decay": "optim.ema_decay",
            "clip_grad_norm": "optim.clip_grad_norm",
            "seed": "seed",
            "log_steps": "log_interval",
            "save_steps": "checkpoint_interval",
            "save_ckpt_step": "checkpoint_interval",
            "output_dir": "output_path",
            "ckpt_dir": "output_path",
            "disc_start": "adversarial.start_step",
            "disc_weight": "adversarial.weight",
            "kl_weight": "loss.kl_loss_weight",
            "perceptual_weight": "loss.perceptual_loss_weight",
            "eval_video_path": "validation.video_folder",
            "eval_num_frames": "validation.num_frames",
            "eval_resolution": "validation.size",
            "eval_steps": "validation.interval",
            "mix_precision": "dtype",
            "precision": "dtype",
            "exp_name": None,
            "n_nodes": None,
            "devices": None,
        },
        {
            "freeze_encoder": ("--freeze", '["encoder", "quant_conv"]'),
            "ema": (),
            "find_unused_parameters": (),
            "dynamic_sample": None,
        },
    ),
    "gen_video": Door(
        "reconstruct",
        ("--side_by_side", "false"),
        {
            "ckpt": "ckpt_path",
            "real_video_dir": "video_folder",
            "generated_video_dir": "output_path",
            "resolution": "image_size",
            "num_frames": "num_frames",
            "sample_rate": "sample_stride",
            "batch_size": "batch_size",
            "device": None,
            "num_workers": None,
        },
        {"enable_tiling": ("--enable_tile",)},
    ),
}
# Fields of `loss_params` in a config.json -> flags.
LOSS_PARAMS = ("disc_start", "disc_weight", "kl_weight", "perceptual_weight")


def translated(script: str, arguments: Sequence[str]) -> list[str]:
    """Return the arguments of the command here.

    What a config.json says of the loss and the learning rate counts where no flag says it.

    Args:
        script: a key of `DOORS`.
        arguments: flags there, and settings here.

    Raises:
        ValueError: a flag that is neither, or one without its value.
        FileNotFoundError: there is no such config.json.
    """
    door = DOORS[script]
    given = _read(door, arguments)
    if "model_config" in given:
        given = {**_of_config(given["model_config"]), **given}
    if "disc_start" in given and AS_IS not in arguments:
        stated = int(given["disc_start"])
        given["disc_start"] = stated // 2
        logger.warning(HALVED, stated, stated // 2)
    results = list(door.settings)
    for name, value in given.items():
        if name.startswith("--"):
            results += [name, str(value)] if value is not None else [name]
        elif {**door.names, **door.switches}[name] is None:
            logger.warning("--%s has no meaning here and is left out", name)
        elif name in door.switches:
            results += door.switches[name]
        else:
            results += [f"--{door.names[name]}", str(value)]
    return results


def _read(door: Door, arguments: Sequence[str]) -> dict[str, Any]:
    """Return {flag there: value}, and {setting here, with its dashes: value}."""
    given: dict[str, Any] = {}
    waiting = [argument for argument in arguments if argument != AS_IS]
    while waiting:
        name, _, value = waiting.pop(0).partition("=")
        flag = name.removeprefix("--")
        is_theirs = flag in door.names or flag in door.switches
        settings = [*door.names, *door.switches]
        if not name.startswith("--") or (not is_theirs and not _is_ours(flag, door)):
            near = nearest(flag, settings)
            hint = f"did you mean --{near}?" if near else f"known are {', '.join(settings)}"
            raise ValueError(f"unknown flag {name!r}; {hint}")
        if flag in door.switches:
            given[flag] = None
            continue
        if not value and (not waiting or waiting[0].startswith("--")):
            raise ValueError(f"{name} needs a value")
        given[flag if is_theirs else name] = value or waiting.pop(0)
    return given


def _is_ours(flag: str, door: Door) -> bool:
    known = {name.split(".")[0] for name in door.names.values() if name}
    return flag.split(".")[0] in {*known, "config", "device", "mode", "overwrite", "resume"}


def _of_config(path: str) -> dict[str, Any]:
    """Return what a config.json says of the training, as flags."""
    config = read_config(path)
    stated = config.get("loss_params") or {}
    flags = {name: stated[name] for name in LOSS_PARAMS if name in stated}
    return flags | ({"lr": config["lr"]} if "lr" in config else {})


def main() -> None:
    """Run the command that a script stands for."""
    script, *arguments = sys.argv[1:] or [""]
    if script not in DOORS:
        raise ValueError(f"script {script!r}; expected one of {', '.join(DOORS)}")
    run_command(DOORS[script].command, translated(script, arguments))


if __name__ == "__main__":
    run_main(main)
