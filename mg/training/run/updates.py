"""One update after the other: rate, batches, networks, and whether what they gave is good."""

import time

import numpy as np

from mg.data.loader import ClipLoader
from mg.training.optimizers.schedule import learning_rate
from mg.training.run.bad_steps import BadSteps
from mg.training.run.guards import NO_LIMIT, LossScale, StepGuard, Verdict, is_good_step
from mg.training.settings import RunSettings
from mg.training.task import Controls, Task

__all__ = ["Updates"]


class Updates:
    """The updates of a run.

    Args:
        config: settings of the run.
        task: what is trained.
        guard: judges the updates.
        loss_scale: follows them.
        bad_steps: the list of those that were left out.
    """

    def __init__(
        self,
        config: RunSettings,
        task: Task,
        guard: StepGuard,
        loss_scale: LossScale,
        bad_steps: BadSteps,
    ) -> None:
        self.config, self.task = config, task
        self.guard, self.loss_scale, self.bad_steps = guard, loss_scale, bad_steps

    def run(self, loader: ClipLoader, step: int, number: int) -> tuple[Verdict, dict]:
        """Run one update; return what to do next and the log entry.

        Args:
            loader: of the batches.
            step: of the run, which decides the learning rate.
            number: of the update's batch, which is the step but after a return to a checkpoint.
        """
        began, waited = time.monotonic(), loader.total_seconds_waited
        controls = Controls(step, self._rate(step), self.loss_scale.value, self.guard.max_norm)
        accumulation = self.config.optim.accumulation_steps
        batches, reports = [], []
        for i in range(accumulation):
            batch = next(loader)
            batches.append(batch)
            is_last = i == accumulation - 1
            reports.append(
                self.task.run_batch(number * accumulation + i, batch, controls, is_last=is_last)
            )
        numbers = _merged(reports)
        is_good = is_good_step(numbers, max_norm=self.guard.max_norm)
        has_discriminator = "disc_loss" in numbers
        disc_is_good = not has_discriminator or is_good_step(
            numbers, max_norm=NO_LIMIT, prefix="disc_"
        )
        entry = {
            "step": step,
            "batch": number,
            **numbers,
            "lr": controls.lr,
            "loss_scale": self.loss_scale.value,
            "is_applied": is_good,
            **({"disc_is_applied": disc_is_good} if has_discriminator else {}),
            "num_frames": batches[0].num_frames,
            "seconds": round(time.monotonic() - began, 4),
            "data_seconds": round(loader.total_seconds_waited - waited, 4),
        }
        # All ranks come here together: they have the same numbers.
        if not is_good:
            self.bad_steps.report(entry, batches, next(iter(self.task.steps)))
        if not disc_is_good:
            self.bad_steps.report(entry, batches, "discriminator", "disc_")
        self.loss_scale.update(is_good)
        return self.guard.judge(is_good, disc_is_good=disc_is_good), entry

    def _rate(self, step: int) -> float:
        plateau = self.task.plateau
        lr = learning_rate(step, self.config.steps, self.config.optim)
        return lr if plateau is None else lr * plateau.multiplier


def _merged(reports: list[dict[str, float]]) -> dict[str, float]:
    """Return the reports of one update's batches as one: means; norms are those of the last."""
    last = reports[-1]
    return {
        key: value if key.endswith("norm") else float(np.mean([r[key] for r in reports]))
        for key, value in last.items()
    }
