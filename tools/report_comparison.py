"""Two reports of evaluations side by side, if they were measured by one protocol."""

import os
from dataclasses import dataclass
from pathlib import Path

from mg.json_file import read_json
from mg.metrics.figures import FIGURES

__all__ = ["StoredReport", "compare_reports", "read_report"]

LARGEST_FILE = 1 << 28  # bytes of a report


@dataclass(frozen=True)
class StoredReport:
    """What a comparison needs of a report.

    Args:
        path: of its file.
        protocol: name, version and hash, as they stand beside figures.
        hash: of the protocol.
        weights: SHA-256 or version of what metrics measured by, by metric.
        clips: names of the measured clips.
        figures: overall, by name.
    """

    path: Path
    protocol: str
    hash: str
    weights: dict[str, str]
    clips: frozenset[str]
    figures: dict[str, float | None]


def read_report(path: str | os.PathLike) -> StoredReport:
    """Return the report in a file, or in the `report.json` of a folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not a report of `mg evaluate`.
    """
    path = Path(path)
    path = path / "report.json" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"no such report: {path}")
    try:
        content = read_json(path, max_bytes=LARGEST_FILE)
        protocol = content["protocol"]
        return StoredReport(
            path,
            f"{protocol['name']} v{protocol['version']} {protocol['hash']}",
            str(protocol["hash"]),
            dict(content["weights"]),
            frozenset(clip["name"] for clip in content["clips"]),
            {key: content[key] for key in FIGURES if key in content},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a report of mg evaluate ({error!r})") from error


def compare_reports(first: StoredReport, second: StoredReport, *, force: bool = False) -> str:
    """Return a table of the overall figures of both, and their difference.

    Args:
        first, second: from `read_report`.
        force: compare all the same what cannot be compared; the table then begins with what
            differs.

    Raises:
        ValueError: another protocol, other clips or other weights, and `force` is false; or no
            figure that both have.
    """
    faults = _differences(first, second)
    if faults and not force:
        raise ValueError(
            f"{first.path} and {second.path} cannot be compared: {'; '.join(faults)}. Measure both "
            "by one protocol, or add --force to see them side by side all the same"
        )
    both = [key for key in FIGURES if key in first.figures and key in second.figures]
    if not both:
        raise ValueError(f"{first.path} and {second.path} have no figure in common")
    lines = [f"NOT COMPARABLE: {fault}" for fault in faults]
    lines.append(f"first   {first.path} ({first.protocol}, {len(first.clips)} clips)")
    lines.append(f"second  {second.path} ({second.protocol}, {len(second.clips)} clips)")
    lines.append(f"{'figure':<24}{'first':>12}{'second':>12}{'difference':>13}  better")
    lines += [_line(key, first.figures[key], second.figures[key]) for key in both]
    return "\n".join(lines)


def _differences(first: StoredReport, second: StoredReport) -> list[str]:
    """Return what stands against a comparison."""
    faults = []
    if first.hash != second.hash:
        faults.append(f"protocol {first.protocol} against {second.protocol}")
    if first.clips != second.clips:
        only = sorted(first.clips ^ second.clips)
        faults.append(f"{len(only)} clips are in one of them only, such as {only[0]}")
    for metric in sorted(first.weights.keys() & second.weights.keys()):
        if first.weights[metric] != second.weights[metric]:
            faults.append(f"{metric} was measured by other weights or another program")
    return faults


def _line(key: str, first: float | None, second: float | None) -> str:
    digits = FIGURES[key].digits
    shown = ["-" if value is None else f"{value:.{digits}f}" for value in (first, second)]
    difference, better = "-", ""
    if first is not None and second is not None:
        difference = f"{second - first:+.{digits}f}"
        if FIGURES[key].best != "original" and first != second:
            better = "second" if (second > first) == (FIGURES[key].best == "high") else "first"
    return f"{key:<24}{shown[0]:>12}{shown[1]:>12}{difference:>13}  {better}".rstrip()
