"""Open-Sora-Plan's flags for its CausalVideoVAE, as settings of the commands here.

    python -m mg.commands.open_sora_plan_flags train --model_config config.json --video_path videos
    python -m mg.commands.open_sora_plan_flags gen_video --ckpt FOLDER --real_video_dir videos

`scripts/causalvae/train.sh`, `gen_video.sh` and `eval.sh` call this. Settings of `mg train-vae`,
`mg reconstruct` and `mg evaluate` can be given beside the flags; they are handed on as they are.
"""

import importlib
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from mg.cli import is_setting, run_main
from mg.commands import run_command
from mg.commands.open_sora_plan_training import CONVERTED, SWITCHES, training_settings
from mg.known_names import nearest

__all__ = ["DOORS", "Door", "translated"]

logger = logging.getLogger("mg")

Given = dict[str, str | None]
TORCH_DEVICES = {"cpu": "CPU", "npu": "Ascend", "cuda": "auto"}
NO_DISTRIBUTION = "ranks are started by `mg launch N train-vae ...`, or by msrun on several nodes"
SWITCH_WORDS = {"true": True, "1": True, "false": False, "0": False}
OF_RECONSTRUCTION = ("resolution", "crop_size", "enable_tiling", "dtype")
ONE_BY_ONE = "held-out clips go through the network one by one, all of them"


class Door(NamedTuple):
    """What a script of Open-Sora-Plan is here.

    Attributes:
        command: the name of the command.
        config: module and class of its settings, "package.module:Class".
        settings: of the command, before those of the user.
        names: {flag there: setting here}.
        without_effect: {flag there: why it has no effect here}.
        switches: flags that need no value; true and false are taken.
        convert: takes flags out of those given and returns the settings that they stand for; the
            second argument are the settings of ours that are given.
        converted: the flags that it takes.
    """

    command: str
    config: str
    names: Mapping[str, str]
    without_effect: Mapping[str, str]
    settings: tuple[str, ...] = ()
    switches: frozenset[str] = frozenset()
    convert: Callable[[Given, Sequence[str]], list[str]] = lambda given, ours: []
    converted: tuple[str, ...] = ()

    @property
    def flags(self) -> list[str]:
        """All flags there."""
        return ["device", *self.names, *self.converted, *self.without_effect]


def _reconstruction_settings(given: Given, ours: Sequence[str]) -> list[str]:
    """Return the size of frames, which are scaled to cover the crop here, precision and tiles."""
    taken = {name: given.pop(name) for name in OF_RECONSTRUCTION if name in given}
    resolution, crop_size = taken.get("resolution"), taken.get("crop_size")
    if resolution and crop_size and resolution != crop_size:
        raise ValueError(
            f"--resolution {resolution} with --crop_size {crop_size}: frames are scaled to cover "
            "the crop, so the two are one size here; give one of them"
        )
    settings = ["--enable_tile"] if "enable_tiling" in taken else []
    if size := crop_size or resolution:
        settings += ["--image_size", size]
    if dtype := taken.get("dtype"):
        settings += ["--encode_dtype", dtype, "--decode_dtype", dtype]
    return settings


DOORS = {
    "train": Door(
        "train-vae",
        "mg.training.autoencoder.autoencoder_config:TrainVAEConfig",
        settings=("--config", "configs/vae/train/causal_vae.yaml"),
        names={
            "video_path": "video_folder",
            "resolution": "data.size",
            "num_frames": "data.sample_n_frames",
            "video_num_frames": "data.sample_n_frames",
            "num_workers": "data.num_workers",
            "dataset_num_worker": "data.num_workers",
            "batch_size": "batch_size",
            "max_steps": "steps",
            "clip_grad_norm": "optim.clip_grad_norm",
            "seed": "seed",
            "log_steps": "log_interval",
            "save_steps": "checkpoint_interval",
            "save_ckpt_step": "checkpoint_interval",
            "perceptual_weight": "loss.perceptual_loss_weight",
            "eval_video_path": "validation.video_folder",
            "eval_num_frames": "validation.num_frames",
            "eval_resolution": "validation.size",
            "eval_steps": "validation.interval",
            "mix_precision": "dtype",
            "precision": "dtype",
        },
        without_effect={
            "n_nodes": NO_DISTRIBUTION,
            "devices": NO_DISTRIBUTION,
            "find_unused_parameters": "no parameter has to be looked for",
            "epochs": "--max_steps says how long a run is",
            "ignore_mismatched_sizes": "weights that do not fit are refused and named",
            "load_disc_from_checkpoint": "the discriminator here is another one and starts anew",
            "wavelet_loss": "a CausalVideoVAE has no wavelet loss",
            "wavelet_weight": "a CausalVideoVAE has no wavelet loss",
            "eval_batch_size": ONE_BY_ONE,
            "eval_subset_size": ONE_BY_ONE,
            "eval_num_video_log": "one video has all held-out clips",
            "eval_sample_rate": "every frame of a held-out clip is taken",
            "eval_lpips": "held-out clips are measured by PSNR and SSIM; LPIPS: mg reconstruct",
        },
        switches=frozenset(
            (
                *SWITCHES,
                *("find_unused_parameters", "ignore_mismatched_sizes", "wavelet_loss"),
                "eval_lpips",
            )
        ),
        convert=training_settings,
        converted=CONVERTED,
    ),
    "gen_video": Door(
        "reconstruct",
        "mg.commands.inference_vae:InferenceConfig",
        settings=("--side_by_side", "false", "--num_frames", "17"),
        names={
            "ckpt": "ckpt_path",
            "real_video_dir": "video_folder",
            "generated_video_dir": "output_path",
            "num_frames": "num_frames",
            "sample_rate": "sample_stride",
            "batch_size": "batch_size",
        },
        without_effect={
            "sample_fps": "videos keep the rate of their originals, divided by --sample_rate",
            "num_workers": "videos are read one after another",
        },
        switches=frozenset({"enable_tiling"}),
        convert=_reconstruction_settings,
        converted=OF_RECONSTRUCTION,
    ),
    "eval": Door(
        "evaluate",
        "mg.commands.evaluate:EvaluateConfig",
        names={},
        without_effect={
            "sample_fps": "nor has it there; scripts/evaluate.py chooses frames by time with it",
            "num_workers": "videos are read one after another",
            "fvd_method": "there is one I3D here, that of mg fetch-i3d",
        },
    ),
}


def translated(script: str, arguments: Sequence[str]) -> list[str]:
    """Return the arguments of the command here.

    Args:
        script: a key of `DOORS`.
        arguments: flags there, and settings here.

    Raises:
        ValueError: a flag that is neither, one without its value, or with a wrong one.
        FileNotFoundError: there is no such config.json.
    """
    door = DOORS[script]
    given, ours = _read(door, arguments)
    results = [*door.settings, *door.convert(given, ours)]
    for name, value in given.items():
        if name == "device":
            results += ["--device", _device(str(value))]
        elif name in door.without_effect:
            logger.warning("--%s has no effect: %s.", name, door.without_effect[name])
        else:
            results += [f"--{door.names[name]}", str(value)]
    return [*results, *ours]


def _device(name: str) -> str:
    """Return the device that PyTorch's name of one stands for."""
    kind = name.lower().partition(":")[0]
    if kind == "cuda":
        logger.warning("--device %s is --device auto: the best that MindSpore finds here.", name)
    return TORCH_DEVICES.get(kind, name)


def _read(door: Door, arguments: Sequence[str]) -> tuple[Given, list[str]]:
    """Return {flag there: value}, None for one that has none, and the settings of ours."""
    module, name = door.config.split(":")
    config = getattr(importlib.import_module(module), name)
    given: Given = {}
    ours: list[str] = []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        name, has_value, value = argument.partition("=")
        flag = name.removeprefix("--").replace("-", "_")
        is_flag = name.startswith("--")
        has_more = bool(waiting) and not waiting[0].startswith("--")
        if is_flag and flag in door.switches:
            word = value if has_value else waiting[0] if has_more else "true"
            if word.lower() not in SWITCH_WORDS:
                raise ValueError(f"{name}={word!r}; expected true or false, or no value")
            waiting = waiting[1:] if has_more and not has_value else waiting
            if SWITCH_WORDS[word.lower()]:
                given[flag] = None
        elif is_flag and flag in door.flags:
            if not has_value and not has_more:
                raise ValueError(f"{name} needs a value")
            given[flag] = value if has_value else waiting.pop(0)
        elif is_flag and is_setting(config, name.removeprefix("--")):
            ours += [argument, waiting.pop(0)] if has_more and not has_value else [argument]
        else:
            near = nearest(flag, door.flags)
            hint = f"did you mean --{near}?" if near else f"known are {', '.join(door.flags)}"
            raise ValueError(f"unknown flag {name!r}; {hint}")
    return given, ours


def main() -> None:
    """Run the command that a script stands for."""
    script, *arguments = sys.argv[1:] or [""]
    if script not in DOORS:
        raise ValueError(f"script {script!r}; expected one of {', '.join(DOORS)}")
    run_command(DOORS[script].command, translated(script, arguments))


if __name__ == "__main__":
    run_main(main)
