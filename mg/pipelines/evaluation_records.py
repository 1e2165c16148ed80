"""The figures of single pairs of videos, kept as files so that an evaluation can be continued."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mg.files import write_text
from mg.json_file import read_json

__all__ = ["Record", "read_record", "write_record"]

LARGEST_RECORD = 1 << 28  # bytes; it has some figures of each frame
# JSON has no infinity and no NaN; they are written as these words.
WORDS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


class Record:
    """What was measured of one pair.

    Args:
        made_by: what all figures depend on: the hashes of the protocol and of the two files.
        weights: SHA-256 of the weights, or version of the program, of metrics that have one.
        num_frames: that were measured.
        values: by figure, an array with a number per frame, or one of no axes.
        metrics: that were measured, whether or not they gave a figure.
        left_out: why metrics gave none, by metric.
        notes: what a reader of the figures should know.
    """

    def __init__(
        self,
        made_by: dict[str, str],
        weights: dict[str, str],
        num_frames: int,
        values: dict[str, np.ndarray],
        *,
        metrics: Sequence[str],
        left_out: dict[str, str],
        notes: Sequence[str],
    ) -> None:
        self.made_by = made_by
        self.weights = weights
        self.num_frames = num_frames
        self.values = values
        self.metrics = list(metrics)
        self.left_out = left_out
        self.notes = list(notes)

    def to_dict(self) -> dict:
        """Return the record as JSON can hold it."""
        return {
            "made_by": self.made_by,
            "weights": self.weights,
            "num_frames": self.num_frames,
            "metrics": self.metrics,
            "left_out": self.left_out,
            "notes": self.notes,
            "values": {key: _plain(array.tolist()) for key, array in self.values.items()},
        }

    @classmethod
    def from_dict(cls, content: dict) -> "Record":
        """Return the record that `to_dict` has made."""
        values = {key: np.array(_numbers(value)) for key, value in content["values"].items()}
        if not all(value.dtype == np.float64 for value in values.values()):
            raise ValueError("a figure is not a number")
        names = ("metrics", "left_out", "notes")
        made_by, weights = dict(content["made_by"]), dict(content["weights"])
        others = {name: content[name] for name in names}
        return cls(made_by, weights, int(content["num_frames"]), values, **others)

    def joined(self, later: "Record") -> "Record":
        """Return this record with what was measured later of the same pair."""
        return Record(
            self.made_by,
            {**self.weights, **later.weights},
            self.num_frames,
            {**self.values, **later.values},
            metrics=[*self.metrics, *later.metrics],
            left_out={**self.left_out, **later.left_out},
            notes=self.notes,
        )


def write_record(path: str | os.PathLike, record: Record) -> None:
    """Write a pair's record; one that is there is replaced."""
    text = json.dumps(record.to_dict(), indent=1, allow_nan=False)
    write_text(path, text, overwrite=True)


def read_record(path: Path, made_by: dict[str, str], weights: dict[str, str]) -> Record | None:
    """Return the record of an earlier run that depends on the same; None if there is no file.

    Args:
        path: of the record.
        made_by: what its figures have to depend on.
        weights: of the metrics that are asked for; those of others do not matter.

    Raises:
        ValueError: the file is damaged, or its figures depend on something else.
    """
    if not path.exists():
        return None
    try:
        record = Record.from_dict(read_json(path, max_bytes=LARGEST_RECORD))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a record of an evaluation ({error}); delete it, or --overwrite"
        ) from error
    differing = [key for key in made_by if record.made_by.get(key) != made_by[key]]
    differing += [
        f"{key} network"
        for key in weights.keys() & record.weights.keys()
        if weights[key] != record.weights[key]
    ]
    if differing:
        raise ValueError(
            f"{path} was measured with another {', '.join(differing)}; choose another "
            "output_path, or --overwrite"
        )
    return record


def _plain(value: float | list) -> float | str | list:
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return value if math.isfinite(value) else str(value)


def _numbers(value: float | str | list) -> float | list:
    if isinstance(value, list):
        return [_numbers(entry) for entry in value]
    return WORDS[value] if isinstance(value, str) else float(value)
