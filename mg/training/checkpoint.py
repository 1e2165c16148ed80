"""Checkpoints: a folder per saved step, complete or not there at all."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
from mindspore import Parameter, Tensor

from mg.files import write_text
from mg.models.tae.tae import TemporalAutoencoder
from mg.weights.checkpoint_file import read_weights, write_weights
from mg.weights.load import check_tensors
from mg.weights.stored_config import config_metadata

__all__ = [
    "Progress",
    "load_newest_checkpoint",
    "remove_checkpoints",
    "save_checkpoint",
    "save_final_weights",
]

WEIGHTS, STATE, PROGRESS = "tae.safetensors", "state.safetensors", "progress.json"


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a run knows of itself besides tensors.

    Args:
        step: updates done.
        loss_scale: the current one.
        num_good_steps: in a row, with this loss scale.
    """

    step: int
    loss_scale: float
    num_good_steps: int = 0


def save_checkpoint(
    folder: Path,
    tae: TemporalAutoencoder,
    state: dict[str, Parameter],
    progress: Progress,
    *,
    keep: int,
) -> Path:
    """Write `folder/step_NNNNNNNN`, then remove all but the newest `keep`; return its path.

    The files are written into a temporary folder that is renamed when it is complete, so that a
    crash leaves the older checkpoints as they were.

    Raises:
        OSError: it could not be written (disk full?); nothing of it is left behind.
    """
    target = folder / f"step_{progress.step:08d}"
    temporary = folder / f".writing_{target.name}"
    for unfinished in folder.glob(".writing_*"):  # of a run that was killed
        shutil.rmtree(unfinished)
    try:
        temporary.mkdir(parents=True)
        metadata = config_metadata(tae.config.to_dict())
        write_weights(temporary / WEIGHTS, tae.tensors(), metadata=metadata)
        write_weights(temporary / STATE, {name: p.asnumpy() for name, p in state.items()})
        (temporary / PROGRESS).write_text(json.dumps(dataclasses.asdict(progress)))
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(
            error.errno,
            f"could not save the checkpoint ({error.strerror or error}); older ones are intact. "
            "Make room, then go on with --resume=true",
            str(target),
        ) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for old in _checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def load_newest_checkpoint(
    folder: Path, tae: TemporalAutoencoder, state: dict[str, Parameter]
) -> Progress:
    """Set weights and state to those of the newest checkpoint; return its progress.

    Raises:
        FileNotFoundError: there is no checkpoint in `folder`.
        ValueError: a file is damaged, or of another network or other settings.
    """
    checkpoints = _checkpoints(folder)
    if not checkpoints:
        raise FileNotFoundError(
            f"no checkpoint in {folder}: nothing to resume; leave out --resume to start anew"
        )
    newest = checkpoints[-1]
    tae.load_tensors(read_weights(newest / WEIGHTS))
    tensors = read_weights(newest / STATE)
    check_tensors(tensors, {name: tuple(p.shape) for name, p in state.items()})
    for name, parameter in state.items():
        parameter.set_data(Tensor(np.array(tensors[name])))
    return Progress(**json.loads((newest / PROGRESS).read_text()))


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step_*") if (path / PROGRESS).is_file())


def remove_checkpoints(folder: Path) -> None:
    """Remove every checkpoint, so that those of a replaced run are not taken for newer ones."""
    for path in [*folder.glob("step_*"), *folder.glob(".writing_*")]:
        shutil.rmtree(path)


def save_final_weights(path: Path, tensors: dict[str, np.ndarray], config: dict) -> None:
    """Write weights with their config in the header and beside them as JSON; replaces old ones."""
    write_weights(path, tensors, metadata=config_metadata(config), overwrite=True)
    write_text(path.with_suffix(".json"), json.dumps(config, indent=1), overwrite=True)
