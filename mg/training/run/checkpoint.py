"""What a checkpoint says of a run besides tensors, and the weights that a run ends with."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mg.files import write_text
from mg.weights.checkpoint_file import write_weights
from mg.weights.stored_config import config_metadata

__all__ = ["Progress", "changed_settings", "flat_settings", "save_final_weights"]

# Settings that may change on resume without changing what was computed so far.
FREE_SETTINGS = (
    "batch_size",  # of one rank; what tells is that of all, `RunState` adds it
    "checkpoint_interval",
    "csv_path",
    "data.num_workers",
    "device",
    "guards",
    "keep_checkpoints",
    "latent_folder",
    "log_interval",
    "loss.lpips_path",
    "max_minutes",
    "output_path",
    "overwrite",
    "pretrained",
    "resume",
    "sampling",
    "sequence_parallel",
    "tae",
    "tensorboard",
    "text.cache_folder",
    "trackers",
    "validation",
    "video_folder",
    "zero_stage",
)


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a run knows of itself besides tensors.

    Args:
        step: updates done, left-out ones included.
        batch_offset: number of the batch of step s is s plus this; it grows when the run goes back
            to a checkpoint, so that it does not meet the same batches again.
        stage: number of the stage that the optimisers' state is of.
        loss_scale: the present factor on the loss.
        num_good_steps: in a row, with this loss scale.
        num_skipped: updates that were left out.
        num_bad_in_row: those since the last good one.
        num_restores: how often the run went back.
        disc_num_skipped, disc_num_bad_in_row: as the two above, of the discriminator.
        running_means: numbers that the discriminator's loss carries from step to step.
        bad_clips: {name: reason} of clips that could not be read.
        plateau: state of the schedule that follows the validations; empty where there is none.
    """

    step: int = 0
    batch_offset: int = 0
    stage: int = 0
    loss_scale: float = 1.0
    num_good_steps: int = 0
    num_skipped: int = 0
    num_bad_in_row: int = 0
    num_restores: int = 0
    disc_num_skipped: int = 0
    disc_num_bad_in_row: int = 0
    running_means: dict[str, float] = dataclasses.field(default_factory=dict)
    bad_clips: dict[str, str] = dataclasses.field(default_factory=dict)
    plateau: dict[str, float | None] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Progress":
        """Return what a checkpoint holds of a run.

        Raises:
            ValueError: something that this version does not know.
        """
        unknown = sorted(set(document) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ValueError(
                f"progress.json holds {', '.join(map(repr, unknown))}, which is unknown here: the "
                "checkpoint is of another version of mg; go on with that version"
            )
        return cls(**document)


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[list, list]:
    """Return two lists of texts `name: old -> new`: harmless changes, and those that tell.

    Args:
        before, now: settings as nested mappings of plain values, as JSON gives them.
    """
    old, new = flat_settings(before), flat_settings(now)
    harmless, telling = [], []
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            text = f"{name}: {old.get(name)} -> {new.get(name)}"
            is_free = any(name == free or name.startswith(f"{free}.") for free in FREE_SETTINGS)
            (harmless if is_free else telling).append(text)
    return harmless, telling


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted name."""
    flat = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat.update(flat_settings(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def save_final_weights(
    path: Path, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> None:
    """Write weights with their config in the header and beside them as JSON; replaces old ones."""
    write_weights(path, tensors, metadata=config_metadata(config), overwrite=True)
    write_text(path.with_suffix(".json"), json.dumps(dict(config), indent=1), overwrite=True)
