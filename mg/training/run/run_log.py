"""What a run writes about itself: one JSON line per step."""

import json
import logging
import re
import zlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from mg.files import write_text
from mg.training.metric import MAX_LISTED

__all__ = ["RunLog", "read_log", "write_log"]

logger = logging.getLogger("mg")

CHECKSUM, CHECKSUM_DIGITS = "crc32", 8  # the last field of each line
DAMAGED_LINE_END = re.compile(rb'(\}[^\n])(\{"step")')  # so that the next line is not lost too


def read_log(path: Path, needed: Collection[str] = ()) -> list[dict[str, Any]]:
    """Return the entries of a JSON-lines log; damaged lines are left out, and a warning says which.

    Each line ends with the CRC-32 of what stands before it, so that no changed bit is taken for a
    number. A last line that a crash cut short counts as damaged too.

    Args:
        path: the log; there need not be one.
        needed: keys without which an entry is of no use, besides `step`.
    """
    content = path.read_bytes() if path.is_file() else b""
    entries, damaged = [], []
    for number, line in enumerate(DAMAGED_LINE_END.sub(rb"\1\n\2", content).split(b"\n"), start=1):
        entry = _entry_of(line)
        if entry is not None and entry.keys() >= {"step", *needed}:
            entries.append(entry)
        elif line:
            damaged.append(str(number))
    if damaged:
        more = f" and {len(damaged) - MAX_LISTED} more" if len(damaged) > MAX_LISTED else ""
        numbers = ", ".join(damaged[:MAX_LISTED])
        logger.warning("%s: left out damaged lines: %s%s.", path, numbers, more)
    return entries


def write_log(path: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Write a log of these entries, which have a `step` in front; it replaces an older one."""
    write_text(path, "".join(map(_line_of, entries)), overwrite=True)


def _line_of(entry: Mapping[str, Any]) -> str:
    text = json.dumps(dict(entry))[:-1]
    return f"{text}{_end_of(text.encode())}\n"


def _end_of(text: bytes) -> str:
    return f', "{CHECKSUM}": "{zlib.crc32(text):0{CHECKSUM_DIGITS}x}"}}'


def _entry_of(line: bytes) -> dict[str, Any] | None:
    """Return what a line holds, without its checksum; None: it is damaged."""
    text = line[: -len(_end_of(b""))]
    is_sealed = line == text + _end_of(text).encode()
    try:
        entry = json.loads(text + b"}" if is_sealed else line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
        return None
    if not is_sealed:  # older versions wrote no checksum; what looks like one does not fit
        last = [*entry.values()][-1]
        return None if isinstance(last, str) and len(last) == CHECKSUM_DIGITS else entry
    return entry


class RunLog:
    """Appends entries to a JSON-lines file.

    Args:
        path: the file; entries of `first_step` and later are dropped from an existing one, since
            the run is about to write them again.
        first_step: the step that the run begins with.
    """

    def __init__(self, path: Path, *, first_step: int = 0) -> None:
        self._path = path
        self._unwritten = b""
        self._is_told = False  # that something is unwritten
        self._file = None
        self.forget(first_step)

    def write(self, entry: dict[str, Any]) -> None:
        """Append one entry; it must have a `step`."""
        self._unwritten += _line_of(entry).encode()
        try:
            num_written = self._file.write(self._unwritten)  # not all of it on a full disk
            self._unwritten = self._unwritten[num_written:]
            self._is_told = self._is_told and bool(self._unwritten)
        except OSError as error:  # a run does not end for its log: the next entry tries again
            if not self._is_told:
                logger.warning("%s cannot be written at the moment: %s", self._path, error)
            self._is_told = True

    def forget(self, first_step: int) -> None:
        """Drop the entries of `first_step` and later, which are about to be written again."""
        entries = read_log(self._path) if first_step else []
        write_log(self._path, [entry for entry in entries if entry["step"] < first_step])
        if self._file is not None:
            self._file.close()
        self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 (closed in close)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
