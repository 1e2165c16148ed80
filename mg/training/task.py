"""What the training loop needs to know of the thing that is trained."""

import abc
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import nn

from mg.data.dataset import Batch, Dataset
from mg.parameters import whole_values
from mg.training.metric import PSNR, Metric
from mg.training.optimizers.plateau import Plateau
from mg.training.stages import Stage
from mg.training.step import TrainStep

__all__ = ["Controls", "Task"]


@dataclasses.dataclass(frozen=True)
class Controls:
    """Numbers that steer one update.

    Args:
        step: number of the update, from 0.
        lr: learning rate.
        loss_scale: factor on the loss in the backward pass.
        max_norm: the update is left out where the gradient norm is larger.
    """

    step: int
    lr: float
    loss_scale: float
    max_norm: float


class Task(abc.ABC):
    """Networks, data, compiled steps and validation of one kind of training.

    Attributes:
        dataset: where batches come from.
        stages: of the run, in order.
        networks: what a checkpoint holds, by file name.
        steps: the compiled steps of the present stage, by the name of the network they train.
        terms: names of the numbers that a step reports and that a log line shows.
        running_means: numbers that the task carries from step to step.
        metric: by which its validations are judged.
        plateau: follows the validations and lowers the learning rate; None for no such schedule.
    """

    dataset: Dataset
    stages: list[Stage]
    networks: dict[str, nn.Cell]
    steps: dict[str, TrainStep]
    terms: tuple[str, ...]
    running_means: dict[str, float]
    metric: Metric = PSNR
    plateau: Plateau | None = None

    def initialise(self) -> None:  # noqa: B027
        """Set what a new network learns from the data before the first step (most: nothing).

        Called before `enter`, on all ranks, and not where a run is resumed.
        """

    @abc.abstractmethod
    def enter(self, stage: Stage) -> None:
        """Build `steps` for a stage; the caller loads their state."""

    @abc.abstractmethod
    def run_batch(
        self, number: int, batch: Batch, controls: Controls, *, is_last: bool
    ) -> dict[str, float]:
        """Run every step on a batch; return what they report: at least `loss` and `grad_norm`.

        Args:
            number: of the batch in the run; it keys all randomness.
            batch: of this rank.
            controls: of the update.
            is_last: whether the batch completes an update.
        """

    @property
    def has_validation(self) -> bool:
        """Whether this rank measures anything that is held out."""
        return getattr(self, "validation", None) is not None

    @abc.abstractmethod
    def validate(
        self, video_path: Path, *, should_stop: Callable[[], bool]
    ) -> dict[str, Any] | None:
        """Return the number of `metric`, its parts and more of what is held out.

        The weights are the averaged ones. None where nothing is held out, or when `should_stop`
        became true meanwhile.

        Args:
            video_path: where to write a video to look at.
            should_stop: whether the run has been asked to end.
        """

    def sample(self, path: Path, *, should_stop: Callable[[], bool]) -> Path | None:
        """Write something to look at that the averaged weights generate; return its path.

        None where nothing is generated (most tasks; ranks other than 0), or nothing came of it.

        Args:
            path: of the file to write, without suffix.
            should_stop: whether the run has been asked to end.
        """
        return None

    @abc.abstractmethod
    def export(self, folder: Path) -> Path:
        """Write the final weights; return their path. All ranks must call it; rank 0 writes."""

    @abc.abstractmethod
    def next_command(self, weights: Path) -> str:
        """Return the command to try next."""

    def metadata(self) -> dict[str, dict[str, str]]:
        """Return texts for the headers of the networks' files in a checkpoint."""
        return {}

    def trained_on(self) -> list[str]:
        """Return a text for each clip of the data, in order: all there is to it but its place."""
        clips = map(dataclasses.asdict, self.dataset.manifest.clips)
        return [json.dumps({**clip, "path": None}) for clip in clips]

    def tensors(self) -> dict[str, dict[str, np.ndarray]]:
        """Return copies of the parameters of each network; all ranks must call it."""
        return {
            name: {key: whole_values(p) for key, p in network.parameters_and_names()}
            for name, network in self.networks.items()
        }
