"""All that a run carries from step to step, to and from checkpoints."""

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from mindspore import nn

from mg.parallel.ranks import Ranks
from mg.parameters import set_values
from mg.training.run.checkpoint import Progress, changed_settings
from mg.training.run.checkpoint_store import CheckpointStore, StoredCheckpoint
from mg.training.settings import RunSettings
from mg.training.stages import stage_at
from mg.training.task import Task
from mg.weights.tensor_check import check_tensors

__all__ = ["RunState"]

logger = logging.getLogger("mg")


class RunState:
    """Saves and loads weights, optimisers, averages and progress of a task.

    Randomness is keyed by (seed, batch number), so nothing else is needed to go on exactly.

    Args:
        folder: of the checkpoints.
        config: settings of the run, stored with each of them.
        task: whose networks and optimisers they hold.
        ranks: all of them save and load together; rank 0 alone writes.
    """

    def __init__(self, folder: Path, config: RunSettings, task: Task, ranks: Ranks) -> None:
        self.store = CheckpointStore(folder, keep=config.keep_checkpoints)
        self.settings = json.loads(json.dumps(dataclasses.asdict(config)))
        num_batches = ranks.size // config.num_ranks_per_batch
        self.settings["batch_size_of_all_ranks"] = config.batch_size * num_batches
        self.task = task
        self.ranks = ranks

    def save(self, progress: Progress, *, score: float | None = None) -> Path | None:
        """Write a checkpoint; return its folder on rank 0, None on the others.

        Raises:
            OSError: it could not be written; older ones are intact.
        """
        states = {_state_name(name): step.state() for name, step in self.task.steps.items()}
        tensors = {**self.task.tensors(), **states}
        if not self.ranks.is_main:
            return None
        return self.store.save(
            progress.step,
            tensors=tensors,
            metadata=self.task.metadata(),
            documents={"progress": dataclasses.asdict(progress), "config": self.settings},
            score=score,
        )

    def resume(self) -> Progress:
        """Load the newest checkpoint; return its progress, and say what settings have changed.

        Raises:
            FileNotFoundError: there is none.
            ValueError: none is whole, or it is of another network or other settings.
        """
        stored = self.store.load()
        harmless, telling = changed_settings(stored.document("config"), self.settings)
        if harmless:
            logger.info("Changed since the checkpoint: %s.", "; ".join(harmless))
        if telling:
            logger.warning(
                "Changed since the checkpoint, so the run continues differently from here: %s.",
                "; ".join(telling),
            )
        return self._load(stored)

    def restore(self) -> Progress:
        """Load the newest checkpoint that was saved after a good step; return its progress."""
        self.ranks.barrier()  # rank 0 may still be writing
        for step in reversed(self.store.steps()):
            stored = self.store.load(step)
            progress = stored.document("progress")
            if not progress["num_bad_in_row"] and not progress.get("disc_num_bad_in_row"):
                return self._load(stored)
        raise FileNotFoundError(f"no checkpoint in {self.store.folder} was saved by a good step")

    def _load(self, stored: StoredCheckpoint) -> Progress:
        try:
            progress = Progress.from_document(stored.document("progress"))
        except ValueError as error:
            raise ValueError(f"{stored.path}: {error}") from error
        task, files = self.task, stored.manifest.files
        for name, network in task.networks.items():
            if f"{name}.safetensors" in files:
                _set_parameters(network, stored.tensors(name))
            else:
                logger.warning("The checkpoint has no %s: it starts anew.", name)
        stage = stage_at(task.stages, progress.step)
        task.enter(stage)
        is_same_stage = task.stages.index(stage) == progress.stage
        for name, step in task.steps.items():
            arrays = {}
            if f"{_state_name(name)}.safetensors" in files:
                arrays = stored.tensors(_state_name(name))
                if is_same_stage:
                    check_tensors(arrays, step.state_shapes())
            step.load_state(arrays)
        return progress


def _state_name(name: str) -> str:
    return f"{name}_state"


def _set_parameters(network: nn.Cell, tensors: Mapping[str, np.ndarray]) -> None:
    if hasattr(network, "load_tensors"):  # explains a wrong config by its fields
        network.load_tensors(tensors)
        return
    parameters = dict(network.parameters_and_names())
    check_tensors(tensors, {name: tuple(p.shape) for name, p in parameters.items()})
    for name, parameter in parameters.items():
        set_values(parameter, tensors[name])
