"""Reference curves: what a training config is expected to do, as a small file beside it.

Runs on other machines differ in rounding, and training amplifies that. So a curve holds means over
a window of steps, and a tolerance for each key, relative to the larger of the two values.
"""

import dataclasses
import datetime
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mg.json_file import read_json_object
from run_comparison import Comparison, Entry, KeyDifference, by_step, check_keys

__all__ = ["ReferenceCurve", "compare_with_reference", "make_reference", "read_reference"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReferenceCurve:
    """The curve of one run.

    Args:
        command: what was run.
        machine: where.
        date: when, YYYY-MM-DD.
        window: steps that each point is the mean of, the point's own step the last of them.
        tolerance: by key, how far a run may be from the curve, relative to the larger of the two.
        curve: points with a `step` and a mean for each key of `tolerance`.

    Raises:
        ValueError: no points, a point that lacks a value, a wrong window or tolerance.
    """

    command: str
    machine: str
    date: str
    window: int
    tolerance: Mapping[str, float]
    curve: tuple[Mapping[str, Any], ...]

    def __post_init__(self) -> None:
        if not self.curve or not self.tolerance:
            raise ValueError("a reference curve needs points and a tolerance for at least one key")
        if not isinstance(self.window, int) or self.window < 1:
            raise ValueError(f"window={self.window!r}; expected a number of steps, 1 or more")
        for key, value in self.tolerance.items():
            if not value >= 0:
                raise ValueError(f"tolerance of {key!r} is {value}; expected 0 or more")
        for point in self.curve:
            lacking = [key for key in ("step", *self.tolerance) if key not in point]
            if lacking:
                raise ValueError(f"the point {dict(point)} of the curve lacks {lacking}")

    def to_json(self) -> str:
        """Return it as JSON, one point per line."""
        head = {**vars(self), "tolerance": dict(self.tolerance)}
        del head["curve"]
        points = ",\n  ".join(json.dumps(dict(point), allow_nan=False) for point in self.curve)
        return f'{json.dumps(head, indent=1)[:-2]},\n "curve": [\n  {points}\n ]\n}}\n'


def make_reference(
    run: Sequence[Entry],
    *,
    command: str,
    tolerance: Mapping[str, float],
    every: int = 10,
    window: int = 10,
) -> ReferenceCurve:
    """Return the curve of a run: a point at the end of each `every` steps, dated today.

    Args:
        run: its log.
        command: that made it.
        tolerance: the keys of the curve, and how far another run may be off, relative.
        every: steps from one point to the next.
        window: steps that a point is the mean of.

    Raises:
        ValueError: a key that the log lacks, too few steps, or a mean that is not finite.
    """
    if every < 1 or window < 1:
        raise ValueError(f"every={every} and window={window}; expected 1 or more of both")
    entries = by_step(run)
    keys = check_keys(list(tolerance), run)
    steps = [step for step in sorted(entries) if (step + 1) % every == 0]
    curve = []
    for step in steps:
        if not _missing(entries, step, window):
            means = {key: float(f"{_mean(entries, step, window, key):.6g}") for key in keys}
            curve.append({"step": step, **means})
    if not curve:
        raise ValueError(
            f"the run has {len(entries)} steps, too few for a point each {every} steps over "
            f"{window}; lower --every and --window"
        )
    wrong = [point["step"] for point in curve if not all(map(math.isfinite, point.values()))]
    if wrong:
        raise ValueError(f"the run cannot be a reference: values at steps {wrong} are not finite")
    return ReferenceCurve(
        command=command,
        machine=_machine(),
        date=datetime.date.today().isoformat(),
        window=window,
        tolerance=dict(tolerance),
        curve=tuple(curve),
    )


def compare_with_reference(run: Sequence[Entry], reference: ReferenceCurve) -> Comparison:
    """Return how far a run is from the curve, at the curve's points.

    Steps that a point needs and the run lacks are missing; a run that is longer than the curve
    lacks nothing.

    Args:
        run: its log.
        reference: the curve, with its tolerances.

    Raises:
        ValueError: an entry without `step`, or a key of the curve that the log lacks.
    """
    entries = by_step(run)
    keys = check_keys(list(reference.tolerance), run)
    window = reference.window
    missing: set[int] = set()
    points = []
    for point in reference.curve:
        lacking = _missing(entries, point["step"], window)
        missing.update(lacking)
        if not lacking:
            points.append(point)
    differences = (
        KeyDifference.between(
            key,
            [(p["step"], _mean(entries, p["step"], window, key), p[key]) for p in points],
            tolerance=reference.tolerance[key],
            least_scale=0.0,
        )
        for key in (keys if points else ())
    )
    return Comparison(len(points), (tuple(sorted(missing)), ()), tuple(differences))


def _missing(entries: Mapping[int, Entry], step: int, window: int) -> list[int]:
    return [s for s in range(step - window + 1, step + 1) if s not in entries]


def _mean(entries: Mapping[int, Entry], step: int, window: int, key: str) -> float:
    """Return the mean over a window; NaN if a step has no number there."""
    values = [entries[s].get(key) for s in range(step - window + 1, step + 1)]
    return sum(v if isinstance(v, int | float) else math.nan for v in values) / window


def _machine() -> str:
    try:
        mindspore = importlib.metadata.version("mindspore")
    except importlib.metadata.PackageNotFoundError:
        mindspore = "unknown"
    return f"{platform.machine()}, {os.cpu_count()} cores, MindSpore {mindspore}"


def read_reference(path: str | Path) -> ReferenceCurve:
    """Return the curve of a file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not a reference curve.
    """
    path = Path(path)
    try:
        content = read_json_object(path)
        return ReferenceCurve(**{**content, "curve": tuple(content["curve"])})
    except FileNotFoundError:
        raise FileNotFoundError(f"no reference curve: {path}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is not a reference curve: {error!r}") from error
