"""What a run does about steps that go wrong: skip, lower the loss scale, go back, stop."""

import dataclasses
import enum
import math
from collections.abc import Mapping

from mg.training.settings import GuardSettings

__all__ = ["NO_LIMIT", "LossScale", "StepGuard", "Verdict", "is_good_step"]

NO_LIMIT = 3e38  # of a gradient norm: just below the largest float32
LOSS_SCALE_GROWTH_STEPS = 2000  # good steps after which the loss scale doubles


class Verdict(enum.Enum):
    """What to do after a step."""

    GO_ON = "go on"
    RESTORE = "restore"
    STOP = "stop"


def is_good_step(numbers: Mapping[str, float], *, max_norm: float, prefix: str = "") -> bool:
    """Return whether an update was applied: loss and gradient norm finite, the norm in bounds.

    Args:
        numbers: what the step reported.
        max_norm: upper limit of the gradient norm.
        prefix: of the names of the loss and norm: `disc_` for those of the discriminator.
    """
    loss, norm = numbers[f"{prefix}loss"], numbers[f"{prefix}grad_norm"]
    return math.isfinite(loss) and norm <= max_norm  # which NaN is not, nor infinity


@dataclasses.dataclass
class StepGuard:
    """Counts updates that were left out and says when to go back and when to stop.

    Attributes:
        settings: the limits.
        num_skipped: left-out updates in all.
        num_bad_in_row: left-out updates since the last good one.
        num_restores: how often the run went back to a checkpoint.
        disc_num_skipped, disc_num_bad_in_row: the same of the discriminator's updates, each of
            which is left out by itself.
    """

    settings: GuardSettings
    num_skipped: int = 0
    num_bad_in_row: int = 0
    num_restores: int = 0
    disc_num_skipped: int = 0
    disc_num_bad_in_row: int = 0

    @property
    def max_norm(self) -> float:
        """The largest gradient norm that is applied."""
        limit = self.settings.max_grad_norm
        return limit if limit is not None else NO_LIMIT

    @property
    def is_content(self) -> bool:
        """Whether the last update of every network was applied."""
        return self.num_bad_in_row == self.disc_num_bad_in_row == 0

    def judge(self, is_good: bool, *, disc_is_good: bool = True) -> Verdict:
        """Count a step; return what to do.

        Args:
            is_good: whether its update was applied.
            disc_is_good: whether the discriminator's was; True where there is none.
        """
        self.num_skipped += not is_good
        self.num_bad_in_row = 0 if is_good else self.num_bad_in_row + 1
        self.disc_num_skipped += not disc_is_good
        self.disc_num_bad_in_row = 0 if disc_is_good else self.disc_num_bad_in_row + 1
        if max(self.num_bad_in_row, self.disc_num_bad_in_row) < self.settings.max_bad_steps:
            return Verdict.GO_ON
        if self.num_restores >= self.settings.max_restores:
            return Verdict.STOP
        self.num_restores += 1
        self.num_bad_in_row = self.disc_num_bad_in_row = 0
        return Verdict.RESTORE


@dataclasses.dataclass
class LossScale:
    """The factor on a float16 loss: halved on overflow, doubled after many good steps.

    Attributes:
        value: the present factor.
        is_dynamic: whether it moves; in other precisions it stays 1.
        num_good_steps: in a row, with this factor.
    """

    value: float
    is_dynamic: bool
    num_good_steps: int = 0

    def update(self, is_good: bool) -> None:
        """Move on after a step."""
        if not self.is_dynamic:
            return
        if not is_good:
            self.value, self.num_good_steps = max(1.0, self.value / 2), 0
            return
        self.num_good_steps += 1
        if self.num_good_steps == LOSS_SCALE_GROWTH_STEPS:
            self.value, self.num_good_steps = self.value * 2, 0
