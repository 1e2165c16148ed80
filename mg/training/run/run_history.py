"""What a run has written about itself so far: its log, its validations, the picture of both."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mg.training.metric import Metric
from mg.training.run.curves import save_curves
from mg.training.run.run_log import read_log, write_log

__all__ = ["LOG_NAME", "VALIDATIONS_NAME", "RunHistory"]

LOG_NAME, VALIDATIONS_NAME, CURVES_NAME = "log.jsonl", "validation.jsonl", "curves.png"


class RunHistory:
    """The logs in a run's folder.

    Args:
        folder: of the run.
        metric: by which validations are judged.

    Attributes:
        validations: in the order of their steps.
    """

    def __init__(self, folder: Path, metric: Metric) -> None:
        self.folder = folder
        self.metric = metric
        self.validations: list[dict[str, Any]] = []

    @property
    def log_path(self) -> Path:
        """Where a line per step stands."""
        return self.folder / LOG_NAME

    @property
    def curves_path(self) -> Path:
        """Where the picture is."""
        return self.folder / CURVES_NAME

    def steps(self) -> list[dict[str, Any]]:
        """Return the entries of the log."""
        return read_log(self.log_path, ("loss", "seconds"))

    def load_validations(self, last_step: int) -> None:
        """Take the stored validations of all steps up to one."""
        needed = self.metric.key, self.metric.parts_key
        self.validations = read_log(self.folder / VALIDATIONS_NAME, needed)
        self.forget_validations(last_step + 1)

    def forget_validations(self, first_step: int) -> None:
        """Drop the validations of a step and all later ones, which come again."""
        self.validations = [entry for entry in self.validations if entry["step"] < first_step]

    def add_validation(self, entry: dict[str, Any], terms: Sequence[str]) -> None:
        """Store a validation, in the place of one of the same step, and draw the curves anew.

        Args:
            entry: what was measured, with its `step`.
            terms: names of the parts of the training loss, to be drawn too.

        Raises:
            OSError: a file could not be written; the next validation writes it again.
        """
        self.forget_validations(entry["step"])
        self.validations.append(entry)
        write_log(self.folder / VALIDATIONS_NAME, self.validations)
        save_curves(self.curves_path, self.steps(), self.validations, self.metric, terms=terms)
