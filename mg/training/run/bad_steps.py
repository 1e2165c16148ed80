"""The steps of a run whose updates were left out."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mg.data.dataset import Batch
from mg.parallel.ranks import Ranks
from mg.training.run.disk import warning_if_disk_is_full

__all__ = ["BadSteps"]

logger = logging.getLogger("mg")


class BadSteps:
    """The list of them, as JSON lines, each with the clips of its batch; rank 0 writes it.

    Args:
        path: of the list.
        ranks: that train together.
    """

    def __init__(self, path: Path, ranks: Ranks) -> None:
        self.path, self.ranks = path, ranks

    def forget(self) -> None:
        """Remove the list."""
        self.path.unlink(missing_ok=True)

    def report(
        self, entry: Mapping[str, Any], batches: Sequence[Batch], network: str, prefix: str = ""
    ) -> None:
        """Log a step and append it to the list; all ranks must call it.

        Args:
            entry: of the step, as the log has it.
            batches: this rank's.
            network: whose update was left out.
            prefix: of its numbers in the entry.
        """
        own = [name for batch in batches for name in batch.names]
        # Once: ranks that share a batch have the same.
        names = list(dict.fromkeys(n for names in self.ranks.gather_json(own) for n in names))
        if not self.ranks.is_main:
            return
        numbers = {
            "step": entry["step"],
            "batch": entry["batch"],
            "network": network,
            "loss": entry[f"{prefix}loss"],
            "grad_norm": entry[f"{prefix}grad_norm"],
        }
        logger.warning("%s", _line(numbers, names))
        with (
            warning_if_disk_is_full(entry["step"], "the list of bad steps"),
            open(self.path, "a", encoding="utf-8") as file,
        ):
            file.write(json.dumps({**numbers, "clips": names}) + "\n")


def _line(numbers: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the warning about a step whose update was left out, with the clips of its batch."""
    return (
        f"step {numbers['step']}, {numbers['network']}: loss {numbers['loss']:g}, gradient norm "
        f"{numbers['grad_norm']:g}: update left out; clips: {list(names)}"
    )
