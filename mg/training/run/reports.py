"""What a run tells its user: a line per step, validations, the end."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mg.training.metric import MAX_LISTED, Metric
from mg.training.run.guards import StepGuard

__all__ = [
    "closing_report",
    "count_of_steps",
    "one_line",
    "results",
    "stop_report",
    "validation_line",
]


def one_line(entry: Mapping[str, Any], terms: Iterable[str]) -> str:
    """Return a log entry as text: loss, its non-zero terms, rates and times."""
    parts = ", ".join(f"{name} {entry[name]:.4g}" for name in terms if entry.get(name))
    waited = 100 * entry["data_seconds"] / max(entry["seconds"], 1e-9)
    return (
        f"loss {entry['loss']:.4f} {f'({parts}) ' if parts else ''}lr {entry['lr']:.2e} "
        f"grad {entry['grad_norm']:.3g} {entry['seconds']:.2f} s/step, {waited:.0f} % for data"
    )


def validation_line(entry: Mapping[str, Any], metric: Metric) -> str:
    """Return the number of a validation and its parts as text."""
    values = entry[metric.parts_key]
    named = [(metric.name_of_part(name), values[name]) for name in list(values)[:MAX_LISTED]]
    parts = [f"{name}: {metric.text(value)}" for name, value in named]
    parts += _and_more(values)
    line = f"{metric.label} {metric.text(entry[metric.key])} ({', '.join(parts)})"
    return f"{line}, protocol {entry['protocol']}" if "protocol" in entry else line


def _and_more(values: Mapping[str, float]) -> list[str]:
    """Return the line that stands for all beyond the first few."""
    num_more = len(values) - MAX_LISTED
    return [f"and {num_more} more, in validation.jsonl"] if num_more > 0 else []


def stop_report(step: int, guard: StepGuard, path: Path) -> str:
    """Return why a run ends whose updates go wrong again and again, and what can be done.

    Args:
        step: at which it ends.
        guard: that has counted the bad steps.
        path: of their list.
    """
    return (
        f"stopped at step {step}: {guard.settings.max_bad_steps} updates in a row could not be "
        f"applied, after {guard.num_restores} returns to a checkpoint. The clips of these "
        f"batches are listed in {path}. Lower optim.lr, train in float32, or remove the clips; "
        "older checkpoints are intact"
    )


def count_of_steps(step: int, guard: StepGuard) -> str:
    """Return how many steps were done, and how many of them changed nothing."""
    of_discriminator = guard.disc_num_skipped
    more = f" ({of_discriminator} of the discriminator)" if of_discriminator else ""
    return f"Done: {step} steps, {guard.num_skipped} skipped{more}."


def results(
    *, weights: Path, next_command: str, curves: Path | None, video: Path | None
) -> list[str]:
    """Return the lines that say where a run's results are; what it has not, has no line."""
    lines = [f"Curves: {curves}"] if curves is not None else []
    if video is not None and video.is_file():
        lines.append(f"Original | reconstruction: {video}")
    return [*lines, f"Weights: {weights}", f"Next: {next_command}"]


def closing_report(
    entries: Sequence[Mapping[str, Any]],
    validations: Sequence[Mapping[str, Any]],
    metric: Metric,
    *,
    first_line: str,
    last_lines: Sequence[str],
) -> str:
    """Return the text that a run ends with: loss and validation before and after.

    Args:
        entries: of the training log.
        validations: of the held-out clips, in order.
        metric: by which they are judged.
        first_line: what was done.
        last_lines: where the results are.
    """
    lines = [first_line]
    if entries:
        tenth = max(1, len(entries) // 10)
        first = np.mean([entry["loss"] for entry in entries[:tenth]])
        last = np.mean([entry["loss"] for entry in entries[-tenth:]])
        lines.append(f"Training loss (mean of a tenth): {first:.4f} -> {last:.4f}")
        seconds = sum(entry["seconds"] for entry in entries)
        waited = sum(entry.get("data_seconds", 0.0) for entry in entries)
        lines.append(f"Waited for data: {100 * waited / max(seconds, 1e-9):.1f} % of the time")
    if validations:
        before, after = validations[0], validations[-1]
        lines.append(
            f"Held-out {metric.label} before -> after: {metric.text(before[metric.key])} -> "
            f"{metric.text(after[metric.key])}"
        )
        values = after[metric.parts_key]
        for name in list(values)[:MAX_LISTED]:
            start = before[metric.parts_key].get(name, math.nan)  # held out later than it began
            part = metric.name_of_part(name)
            lines.append(f"  {part}: {metric.text(start)} -> {metric.text(values[name])}")
        lines += [f"  {line}" for line in _and_more(values)]
    return "\n".join([*lines, *last_lines])
