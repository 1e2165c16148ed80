"""What a run writes about itself: one JSON line per step, and TensorBoard events."""

import json
import logging
from pathlib import Path
from typing import Any

from mg.files import write_text

__all__ = ["RunLog", "read_log"]

logger = logging.getLogger("mg")


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a JSON-lines log; a last line cut short by a crash is left out."""
    entries = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entries.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return entries


class RunLog:
    """Appends entries to a JSON-lines file, and to TensorBoard if asked.

    Args:
        path: the file; entries of `first_step` and later are dropped from an existing one, since
            the run is about to write them again.
        first_step: the step that the run begins with.
        tensorboard_folder: where to write events; None for none.

    Raises:
        ValueError: TensorBoard events are wanted but tensorboardX is not installed.
    """

    def __init__(
        self, path: Path, *, first_step: int = 0, tensorboard_folder: Path | None = None
    ) -> None:
        self._path = path
        self._unwritten: list[str] = []
        self._file = None
        self.forget(first_step)
        self._writer = None
        if tensorboard_folder is not None:
            try:
                from tensorboardX import SummaryWriter
            except ImportError:
                raise ValueError(
                    "tensorboard=true needs tensorboardX: pip install tensorboardX"
                ) from None
            self._writer = SummaryWriter(str(tensorboard_folder))

    def write(self, entry: dict[str, Any]) -> None:
        """Append one entry; it must have a `step`."""
        self._unwritten.append(json.dumps(entry) + "\n")
        try:
            self._file.write("".join(self._unwritten).encode())
            self._unwritten = []
        except OSError as error:  # a run does not end for its log: the next entry tries again
            if len(self._unwritten) == 1:
                logger.warning("%s cannot be written at the moment: %s", self._path, error)
        if self._writer is not None:
            for key, value in entry.items():
                if key != "step" and isinstance(value, int | float):
                    self._writer.add_scalar(key, value, entry["step"])

    def forget(self, first_step: int) -> None:
        """Drop the entries of `first_step` and later, which are about to be written again."""
        kept = [entry for entry in read_log(self._path) if entry["step"] < first_step]
        text = "".join(json.dumps(entry) + "\n" for entry in kept)
        if self._file is not None:
            self._file.close()
        write_text(self._path, text, overwrite=True)
        self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 (closed in close)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        if self._writer is not None:
            self._writer.close()
