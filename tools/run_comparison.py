"""Are two training runs the same, step by step? Does a run still follow its reference curve?

A log is a list of entries, one dict per step with a `step` and numbers (see
`mg.training.run.run_log`). Keys that measure time are not part of the result and are never
compared.
Nothing here imports MindSpore.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mg.training.run.run_history import LOG_NAME
from mg.training.run.run_log import read_log

__all__ = [
    "Comparison",
    "Entry",
    "KeyDifference",
    "by_step",
    "check_keys",
    "compare_runs",
    "difference",
    "is_timing",
    "read_run",
]

TIMING_WORDS = ("second", "minute", "wait")

Entry = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class KeyDifference:
    """How far two runs are apart in one key.

    Attributes:
        key: of the log's entries.
        tolerance: what is still taken for equal.
        largest: the largest difference.
        step: where that is.
        values: what the two runs have there; None where a run lacks the key.
        first_step: the first step beyond the tolerance; None if there is none.
    """

    key: str
    tolerance: float
    largest: float
    step: int
    values: tuple[Any, Any]
    first_step: int | None

    @classmethod
    def between(
        cls,
        key: str,
        points: Iterable[tuple[int, Any, Any]],
        *,
        tolerance: float,
        least_scale: float,
    ) -> "KeyDifference":
        """Return it from (step, value of one, value of the other) in the order of the steps."""
        rows = [(difference(a, b, least_scale=least_scale), step, a, b) for step, a, b in points]
        largest, step, *values = max(rows, key=lambda row: row[0])
        beyond = [row[1] for row in rows if row[0] > tolerance]
        return cls(key, tolerance, largest, step, tuple(values), beyond[0] if beyond else None)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What two runs have in common.

    Attributes:
        num_steps: steps that both have.
        missing: steps that only the other has, for each of the two.
        differences: one per key.
    """

    num_steps: int
    missing: tuple[tuple[int, ...], tuple[int, ...]]
    differences: tuple[KeyDifference, ...]

    @property
    def is_equal(self) -> bool:
        """Whether both have the same steps and every key is within its tolerance."""
        all_within = all(entry.first_step is None for entry in self.differences)
        return self.num_steps > 0 and not any(self.missing) and all_within

    def table(self, names: tuple[str, str] = ("A", "B")) -> str:
        """Return the findings as text; the last line says whether the two are equal."""
        lines = [f"{self.num_steps} steps compared"]
        for name, steps in zip(names, self.missing, strict=True):
            if steps:
                lines.append(f"{len(steps)} steps missing in {name}: {_ranges(steps)}")
        if self.differences:
            rows = [("key", "tolerance", "largest difference", "at step", *names, "first beyond")]
            rows += [_cells(entry) for entry in self.differences]
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            for row in rows:
                cells = zip(row[1:], widths[1:], strict=True)
                lines.append("  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in cells)]))
        lines.append("equal" if self.is_equal else "NOT equal")
        return "\n".join(lines)


def _cells(entry: KeyDifference) -> tuple[str, ...]:
    values = ("-" if value is None else f"{value}" for value in entry.values)
    first = "-" if entry.first_step is None else str(entry.first_step)
    return (
        entry.key,
        f"{entry.tolerance:g}",
        f"{entry.largest:.3g}",
        str(entry.step),
        *values,
        first,
    )


def _ranges(steps: Sequence[int]) -> str:
    """Return sorted steps as text, neighbours drawn together: "0-4, 9"."""
    runs: list[list[int]] = []
    for step in steps:
        if runs and step == runs[-1][-1] + 1:
            runs[-1].append(step)
        else:
            runs.append([step])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def difference(a: Any, b: Any, *, least_scale: float = 1.0) -> float:
    """Return |a - b| / max(|a|, |b|, least_scale): 0 for equal values, infinity for incomparable.

    NaN equals NaN alone, and infinity the same infinity. Values that are not numbers (a missing one
    is None) are equal or not.

    Args:
        a, b: values of a log.
        least_scale: values smaller than this are compared by their absolute difference.
    """
    if not (_is_number(a) and _is_number(b)):
        return 0.0 if a == b else math.inf
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    if not (math.isfinite(a) and math.isfinite(b)):
        return math.inf
    return abs(a - b) / max(abs(a), abs(b), least_scale)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def is_timing(key: str) -> bool:
    """Return whether a key measures time, which differs between equal runs."""
    return any(word in key for word in TIMING_WORDS)


def compare_runs(
    first: Sequence[Entry],
    second: Sequence[Entry],
    *,
    keys: Sequence[str] | None = None,
    tolerance: float = 0.0,
) -> Comparison:
    """Return how two logs differ, at the steps that both have.

    Args:
        first, second: logs; of a step that was run twice the later entry counts.
        keys: what to compare; None takes all but those that measure time.
        tolerance: largest `difference` that counts as equal: absolute for values up to 1, relative
            to the larger one above.

    Raises:
        ValueError: an entry without `step`, a key that no entry has, or a negative tolerance.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance={tolerance}; expected 0 or more")
    a, b = by_step(first), by_step(second)
    shared = sorted(a.keys() & b.keys())
    chosen = check_keys(keys, [*first, *second])
    differences = (
        KeyDifference.between(
            key,
            [(step, a[step].get(key), b[step].get(key)) for step in shared],
            tolerance=tolerance,
            least_scale=1.0,
        )
        for key in (chosen if shared else ())
    )
    missing = tuple(sorted(b.keys() - a.keys())), tuple(sorted(a.keys() - b.keys()))
    return Comparison(len(shared), missing, tuple(differences))


def by_step(entries: Iterable[Entry]) -> dict[int, Entry]:
    """Return {step: its last entry}.

    Raises:
        ValueError: an entry has no step.
    """
    for entry in entries:
        if "step" not in entry:
            raise ValueError(f"a log's entry has no step: {dict(entry)}")
    return {entry["step"]: entry for entry in entries}


def check_keys(keys: Sequence[str] | None, entries: Iterable[Entry]) -> list[str]:
    """Return the keys to compare, in the order of the log; None stands for all that count.

    Raises:
        ValueError: a key that no entry has.
    """
    known = list(dict.fromkeys(key for entry in entries for key in entry if key != "step"))
    if keys is None:
        return [key for key in known if not is_timing(key)]
    unknown = [key for key in keys if key not in known]
    if unknown:
        raise ValueError(f"no entry has {', '.join(unknown)}; the logs hold {', '.join(known)}")
    return list(keys)


def read_run(path: str | Path) -> list[dict[str, Any]]:
    """Return the log of a run.

    Args:
        path: the log (JSON lines), or the run's folder.

    Raises:
        FileNotFoundError: no log there.
        ValueError: it holds no entry.
    """
    path = Path(path)
    path = path / LOG_NAME if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"no training log: {path}")
    entries = read_log(path, ("loss",))
    if not entries:
        raise ValueError(f"{path} holds no step; expected JSON lines with a step each")
    return entries
