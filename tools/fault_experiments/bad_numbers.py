"""Batches and gradients that are not finite: they change nothing, and the run goes on."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import mindspore as ms
import numpy as np
import yaml
from mindspore import Parameter, Tensor, nn

from fault_experiments.checkpoints import captured_warnings
from fault_experiments.training_process import with_changes
from fault_experiments.wrong_settings import DISCRIMINATOR, write_good_config
from mg.commands import train_tae
from mg.data.clips import ClipBatch
from mg.parallel.ranks import ONE_RANK
from mg.parameters import set_values
from mg.training.autoencoder.autoencoder_config import TrainAutoencoderConfig
from mg.training.autoencoder.autoencoder_loss import AutoencoderLoss
from mg.training.autoencoder.autoencoder_task import AutoencoderTask
from mg.training.run.run_log import read_log
from mg.training.trainer import Trainer

__all__ = ["BATCH_FAULTS", "FAULTS", "RUNS", "faults_of_run"]


def _with_one_nan(frames: np.ndarray) -> np.ndarray:
    frames = frames.copy()
    frames.flat[frames.size // 2] = math.nan
    return frames


# What a batch is replaced by, and what the gradient of the loss is multiplied with.
BATCH_FAULTS = {
    "a batch of NaN": lambda frames: np.full_like(frames, math.nan),
    "one NaN in a batch": _with_one_nan,
    "a batch of infinity": lambda frames: np.full_like(frames, math.inf),
    "a batch of -infinity": lambda frames: np.full_like(frames, -math.inf),
    "a batch that overflows": lambda frames: np.full_like(frames, 3e38),
}
GRADIENT_FAULTS = {
    "a gradient of NaN": math.nan,
    "a gradient of infinity": math.inf,
    "a gradient of -infinity": -math.inf,
    "a gradient that overflows": 3e38,
}
FAULTS = [*BATCH_FAULTS, *GRADIENT_FAULTS]
_ADVERSARIAL = {"adversarial": {"network": DISCRIMINATOR, "lecam_weight": 0.1}}
RUNS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float16": {"dtype": "float16"},
    "float32, two batches per update": {"optim.accumulation_steps": 2},
    "float32, a discriminator": _ADVERSARIAL,
    "float16, a discriminator": {**_ADVERSARIAL, "dtype": "float16"},
}


class GradientFactor(nn.Cell):
    """Returns its input; the gradient is multiplied by a factor."""

    def construct(self, x, factor):
        return x + 0.0 * factor

    def bprop(self, x, factor, out, dout):
        return dout * factor, factor * 0.0


class FaultyLoss(nn.Cell):
    """The loss of the TAE, with the right value and a gradient that is multiplied by `factor`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(auto_prefix=False)
        self.loss = AutoencoderLoss(*args, **options)
        self.factor = Parameter(Tensor(1.0, ms.float32), name="factor", requires_grad=False)
        self.with_factor = GradientFactor()

    def construct(self, video, noise, frame_indices):
        loss, terms, output = self.loss(video, noise, frame_indices)
        return self.with_factor(loss, self.factor), terms, output


class FaultyTask(AutoencoderTask):
    """Training of the TAE in which every second step, from the second on, has its fault.

    Attributes:
        states: all weights, moments and averages before each step.
    """

    def __init__(self, config: TrainAutoencoderConfig) -> None:
        super().__init__(config, ONE_RANK)
        self.states: list[dict[str, np.ndarray]] = []

    def enter(self, stage):
        with mock.patch("mg.training.autoencoder.autoencoder_task.AutoencoderLoss", FaultyLoss):
            super().enter(stage)

    def state(self) -> dict[str, np.ndarray]:
        """Return copies of all weights, moments and averages."""
        parts = {**self.tensors(), **{f"{n}_state": s.state() for n, s in self.steps.items()}}
        return {f"{part}.{name}": a for part, arrays in parts.items() for name, a in arrays.items()}

    def run_batch(self, number, batch, controls, *, is_last):
        is_first = number % self.config.optim.accumulation_steps == 0
        if is_first:
            self.states.append(self.state())
        fault = FAULTS[controls.step // 2] if controls.step % 2 == 1 and is_first else None
        if fault in BATCH_FAULTS:
            batch = ClipBatch(BATCH_FAULTS[fault](batch.frames), batch.names)
        factor = GRADIENT_FAULTS.get(fault, 1.0)
        set_values(self.steps["tae"].loss.factor, np.array(factor, np.float32))
        return super().run_batch(number, batch, controls, is_last=is_last)


def faults_of_run(folder: Path, name: str) -> Iterator[str | None]:
    """Yield for each of FAULTS what was wrong with how a run of RUNS took it, or None.

    Args:
        folder: an empty folder.
        name: of the run.
    """
    changes = {**RUNS[name], "steps": 2 * len(FAULTS) + 1, "checkpoint_interval": 1000}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(with_changes(write_good_config(folder), changes)))
    config = train_tae.parse(["--config", str(path)])
    mode = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        with captured_warnings():  # one for each step that is left out
            task = FaultyTask(config)
            Trainer(config, task, ONE_RANK, validation_interval=1000).run()
    finally:
        ms.set_context(mode=mode)
    log = read_log(Path(config.output_path) / "log.jsonl")
    states = [*task.states, task.state()]
    for i, fault in enumerate(FAULTS):
        step = 2 * i + 1
        found = _fault_of_step(fault, log[step : step + 2], states[step : step + 3])
        yield f"{name}, {fault}: {found}" if found else None


def _fault_of_step(fault: str, log: list[dict], states: list[dict]) -> str | None:
    """Return what is wrong about a bad step and the good one after it, or None."""
    if log[0]["is_applied"] or not log[1]["is_applied"]:
        return f"applied {log[0]['is_applied']}, the next one {log[1]['is_applied']}"
    before, after, later = states
    for key, values in before.items():
        # A discriminator has its own loss and its own check.
        is_concerned = fault in BATCH_FAULTS or not key.startswith("discriminator")
        if is_concerned and not np.array_equal(values, after[key]):
            return f"{key} was changed"
        if not np.isfinite(later[key]).all():
            return f"{key} is not finite after the next step"
    weights = [key for key in before if key.startswith("tae.")]
    if all(np.array_equal(after[key], later[key]) for key in weights):
        return "the next step changed nothing"
    return None
