"""Settings that no run can start from: each must be refused in one line, before a network is built.

A case is a small change of a good config, given by dotted names, and what the message must say.
"""

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import yaml

from fault_experiments.checkpoints import captured_warnings
from fault_experiments.experiment import Experiment, Trials
from fault_experiments.training_process import TINY_SETTINGS, with_changes
from mg.data.video_writer import write_video

__all__ = [
    "EXPERIMENTS",
    "NEED_THE_NETWORK",
    "WRONG_SETTINGS",
    "fault_of_case",
    "write_good_config",
]

Case = tuple[dict[str, Any], str]

NAN, INFINITY = math.nan, math.inf
DISCRIMINATOR = {"ch": 8, "num_layers": 1, "norm_groups": 4}


def _adversarial(**changes: Any) -> dict[str, Any]:
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    return {"adversarial": with_changes({"network": DISCRIMINATOR}, changes)}


WRONG_SETTINGS: list[Case] = [
    # Unknown keys, at the top and in every section.
    ({"stepps": 5}, "unknown setting 'stepps'; did you mean 'steps'?"),
    ({"optim.lrr": 1}, "did you mean 'optim.lr'?"),
    ({"data.sizes": 8}, "did you mean 'data.size'?"),
    ({"loss.kl_weight": 1}, "unknown setting 'loss.kl_weight'"),
    ({"guards.max_bad": 1}, "did you mean 'guards.max_bad_steps'"),
    ({"validation.intervall": 3}, "did you mean 'validation.interval'?"),
    ({"model.chanels": 8}, "unknown setting 'model.chanels'"),
    (_adversarial(wieght=1), "did you mean 'adversarial.weight'?"),
    (_adversarial(network__layers=1), "did you mean 'adversarial.network.num_layers'?"),
    ({"phases": [{"stps": 3}]}, "did you mean 'phases.steps'?"),
    ({"phases": [{"loss": {"l2_weight": 1}}]}, "loss has no field 'l2_weight'"),
    # Wrong types.
    ({"steps": 1.5}, "steps: expected int, got 1.5"),
    ({"steps": None}, "steps=None; expected a whole number"),
    ({"steps": "many"}, "steps: expected int, got many"),
    ({"steps": True}, "steps: expected int, got True"),
    ({"optim.lr": "fast"}, "optim.lr: expected float, got fast"),
    ({"optim.betas": [0.9]}, "optim.betas: Expected a tuple with 2 elements"),
    ({"resume": "maybe"}, "resume: expected bool, got maybe"),
    ({"freeze": "encoder,decoder"}, "freeze: expected list, got encoder,decoder"),
    ({"train": "decoder,encoder"}, "train: expected list, got decoder,encoder"),
    ({"lr_multipliers": {"decoder": "slow"}}, "lr_multipliers: expected float, got slow"),
    ({"data": None}, "data: expected settings below it, got None"),
    ({"model.ch": 8.5}, "model: ch: expected int, got 8.5"),
    ({"phases": {"steps": 3}}, "phases: expected a list"),
    ({"phases": [{}]}, "phases: expected settings below it, got {}"),
    ({"phases": [{"steps": 3.5}]}, "phases.steps: expected int, got 3.5"),
    ({"phases": [{"loss": {"opl_r": "x"}}]}, "loss.opl_r='x'; expected a finite number"),
    ({"adversarial": True}, "adversarial: expected settings below it"),
    # Numbers that are none.
    ({"optim.lr": NAN}, "optim.lr=nan; expected a finite number"),
    ({"optim.lr": INFINITY}, "optim.lr=inf; expected a finite number"),
    ({"optim.weight_decay": INFINITY}, "optim.weight_decay=inf"),
    ({"optim.ema_decay": NAN}, "optim.ema_decay=nan"),
    ({"loss.kl_loss_weight": INFINITY}, "loss.kl_loss_weight=inf"),
    ({"loss.l1_weight": NAN}, "loss.l1_weight=nan"),
    ({"loss_scale": INFINITY}, "loss_scale=inf"),
    ({"max_minutes": NAN}, "max_minutes=nan"),
    (
        {"guards.max_grad_norm": INFINITY},
        "guards.max_grad_norm=inf; expected a finite",
    ),
    ({"guards.decode_seconds": NAN}, "guards.decode_seconds=nan"),
    ({"lr_multipliers": {"decoder": NAN}}, "lr_multipliers={'decoder': nan}"),
    (_adversarial(weight=NAN), "adversarial.weight=nan"),
    # Out of range.
    ({"steps": 0}, "steps=0; expected 1 or more"),
    ({"batch_size": 0}, "batch_size=0"),
    ({"seed": -1}, "seed=-1"),
    ({"seed": 2**32}, "seed=4294967296"),
    ({"keep_checkpoints": 1}, "keep_checkpoints=1; expected 2 or more"),
    ({"zero_stage": 4}, "zero_stage=4; expected 0, 1, 2 or 3"),
    ({"zero_stage": 3}, "an autoencoder has none of that size: take 2 or less"),
    ({"checkpoint_interval": 0}, "checkpoint_interval=0"),
    ({"log_interval": -1}, "log_interval=-1"),
    ({"optim.lr": 0}, "optim.lr=0.0; expected more than 0"),
    ({"optim.betas": [0.9, 1.0]}, "optim.betas=[0.9, 1.0]"),
    ({"optim.eps": 0}, "optim.eps=0.0"),
    ({"optim.weight_decay": -1}, "optim.weight_decay=-1.0"),
    ({"optim.ema_decay": 1.0}, "optim.ema_decay=1.0"),
    ({"optim.clip_grad_norm": 0}, "optim.clip_grad_norm=0.0"),
    ({"optim.accumulation_steps": 0}, "optim.accumulation_steps=0"),
    ({"data.sample_n_frames": 0}, "data: sample_n_frames must be 1 to"),
    ({"data.size": -8}, "data: size must be"),
    ({"data.num_workers": -1}, "data.num_workers=-1"),
    ({"loss.l1_weight": -1}, "loss.l1_weight=-1.0"),
    ({"guards.max_bad_steps": 0}, "guards.max_bad_steps=0"),
    ({"guards.max_bad_share": 1.5}, "guards.max_bad_share=1.5"),
    ({"validation.interval": 0}, "validation.interval=0"),
    ({"lr_multipliers": {"decoder": 0}}, "lr_multipliers: decoder: 0.0; expected more than 0"),
    (_adversarial(weight=0), "adversarial.weight=0.0"),
    (_adversarial(betas=[0.5, 2]), "adversarial.betas=[0.5, 2.0]"),
    (_adversarial(lecam_decay=1), "adversarial.lecam_decay=1.0"),
    (_adversarial(start_step=-1), "adversarial.start_step=-1"),
    # Not one of the choices.
    ({"dtype": "float64"}, "dtype='float64'; expected float32, float16 or bfloat16"),
    ({"device": "TPU"}, "device='TPU'"),
    ({"mode": "eager"}, "mode='eager'"),
    ({"optim.lr_schedule": "steps"}, "optim.lr_schedule='steps'"),
    ({"data.crop": "left"}, "crop must be 'center' or 'random'"),
    ({"data.mixed_strategy": "both"}, "mixed_strategy must be one of"),
    ({"model.attn_type": "full"}, "model.attn_type='full'"),
    (_adversarial(loss="wasserstein"), "adversarial.loss='wasserstein'"),
    (_adversarial(network__kind="3d"), "adversarial.network.kind='3d'"),
    # Settings that contradict each other or have no effect.
    ({"optim.lr_end": 1e-6}, "optim.lr_end=1e-06 has no effect"),
    ({"optim.lr_end": 1, "optim.lr_schedule": "cosine"}, "optim.lr_end=1.0 lies above optim.lr"),
    ({"data.mixed_image_ratio": 0.5}, "mixed_image_ratio=0.5 has no effect"),
    ({"data.short_side_range": [4, 6]}, "data: short_side_range must be"),
    ({"loss.l1_weight": 0, "loss.mse_weight": 0}, "loss: all reconstruction weights are 0"),
    ({"phases": [{"steps": 20}]}, "phases have 20 steps, but steps=50"),
    ({"phases": [{"steps": 50}, {"lr_multiplier": 0.5}]}, "phases: the first ones take 50 steps"),
    ({"phases": [{"lr_multiplier": 0.5}, {"steps": 20}]}, "only the last phase may leave out"),
    ({"phases": [{"loss": {"lpips_path": "x"}}]}, "loss.lpips_path is one for the whole run"),
    ({"train": []}, "train=[] lets nothing train"),
    (_adversarial(start_step=50), "adversarial.start_step=50 lies behind the last of steps=50"),
    (_adversarial(warmup_steps=50), "adversarial.warmup_steps=50 must be below"),
    # Networks that cannot be built, or not for these videos.
    ({"model.ch": 0}, "model.ch=0"),
    ({"model.ch": 7}, "model.ch=7"),
    ({"model.ch_mult": []}, "model: ch_mult is empty"),
    ({"model.temporal_downsample_level": [5]}, "model.temporal_downsample_level=(5,)"),
    ({"model.ch_mult": [1, 1], "data.size": 9}, "data.size=9; the network needs a multiple of 2"),
    (_adversarial(network__norm_groups=3), "adversarial.network.ch=8"),
    (_adversarial(network__num_layers=4), "adversarial.network.num_layers=4 needs crops of at l"),
    # What is missing on this machine.
    ({"csv_path": "none.csv"}, "no such CSV file: none.csv"),
    ({"video_folder": "nowhere"}, "no such video folder or file: nowhere"),
    ({"video_folder": None}, "no data: set video_folder"),
    ({"validation.video_folder": "nowhere"}, "validation: no such video folder or file: nowhere"),
    ({"pretrained": "none.safetensors"}, "none.safetensors does not exist"),
    (
        {"loss.perceptual_loss_weight": 1, "loss.lpips_path": "none.npz"},
        "LPIPS weights not found: none.npz",
    ),
    ({"output_path": "{folder}/config.yaml"}, "config.yaml is a file, not a folder"),
    ({"dtype": "bfloat16"}, "use float32 or float16 on CPU"),
]
# Names of parameters are known only when the network is there; it is built, but not compiled.
NEED_THE_NETWORK: list[Case] = [
    ({"freeze": ["encodr"]}, "freeze: no parameter matches 'encodr'; did you mean 'encoder'?"),
    ({"train": ["decoder.upp"]}, "train: no parameter matches 'decoder.upp'"),
    ({"lr_multipliers": {"decodr": 2}}, "lr_multipliers: no parameter matches 'decodr'"),
    ({"freeze": ["*"]}, "leave no parameter to train"),
    ({"train": ["encoder"], "freeze": ["encoder"]}, "leave no parameter to train"),
    ({"phases": [{"steps": 9, "freeze": ["*"]}, {"steps": 41}]}, "leave no parameter to train"),
    ({"phases": [{"steps": 9, "train": ["x"]}, {"steps": 41}]}, "no parameter matches 'x'"),
]


class _NetworkWasBuilt(Exception):
    pass


def write_good_config(folder: Path) -> dict[str, Any]:
    """Write a video into a folder; return settings of a run on it that can start."""
    frames = np.zeros((4, 24, 32, 3), np.uint8)
    write_video(folder / "videos" / "a.mp4", frames, fps=8)
    paths = {"video_folder": str(folder / "videos"), "output_path": str(folder / "out")}
    return {**TINY_SETTINGS, **paths}


def fault_of_case(
    folder: Path, good: Mapping[str, Any], case: Case, *, may_build: bool
) -> str | None:
    """Return what is wrong with how a case is answered, or None.

    Args:
        folder: where the config is written; nothing else may appear in it.
        good: settings that a run can start from.
        case: changes, and what the message must say.
        may_build: whether networks may be built before the refusal.
    """
    from mg.commands import train_tae
    from mg.training.autoencoder.autoencoder_trainer import AutoencoderTrainer

    changes, expected = case
    content = yaml.safe_dump(with_changes(good, changes)).replace("{folder}", str(folder))
    path = folder / "config.yaml"
    path.write_text(content)
    before = sorted(folder.rglob("*"))
    # The encoder is the first network that is made.
    refused = mock.patch("mg.models.tae.tae.Encoder", side_effect=_NetworkWasBuilt)
    try:
        with captured_warnings(), contextlib.nullcontext() if may_build else refused:
            AutoencoderTrainer(train_tae.parse(["--config", str(path)]))
    except _NetworkWasBuilt:
        return f"{changes}: the network was built"
    except (ValueError, OSError) as error:
        message = str(error)
    else:
        return f"{changes}: the run was not refused"
    if expected not in message or "\n" in message:
        return f"{changes}: answered with {message!r}"
    return None if sorted(folder.rglob("*")) == before else f"{changes}: files were written"


def refuse_wrong_settings(folder: Path, num_trials: int | None) -> Trials:
    """Start a run with each of WRONG_SETTINGS, in this process; none may get to a network."""
    good = write_good_config(folder)
    for case in WRONG_SETTINGS[:num_trials]:
        yield fault_of_case(folder, good, case, may_build=False)


def refuse_wrong_names(folder: Path, num_trials: int | None) -> Trials:
    """Start a run with each of NEED_THE_NETWORK; none may get to a step."""
    good = write_good_config(folder)
    for case in NEED_THE_NETWORK[:num_trials]:
        yield fault_of_case(folder, good, case, may_build=True)


EXPERIMENTS = {
    "refuse_wrong_settings": Experiment(
        "A wrong setting: refused in one line that names it, before a network is built",
        None,
        refuse_wrong_settings,
    ),
    "refuse_wrong_names": Experiment(
        "A pattern of parameter names that cannot work: the same, when the network is there",
        None,
        refuse_wrong_names,
    ),
}
