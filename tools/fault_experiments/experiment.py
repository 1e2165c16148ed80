"""What an experiment is."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["SEED", "Experiment", "Trials"]

Trials = Iterator[str | None]

SEED = 0  # of the instants, positions and contents of all experiments


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One row of the table.

    Args:
        claim: what holds if all trials pass.
        num_trials: how many by default; None: as many as there are cases.
        run: called with an empty folder and the number of trials; yields None for a trial that
            passed, else what went wrong.
    """

    claim: str
    num_trials: int | None
    run: Callable[[Path, int | None], Trials]
