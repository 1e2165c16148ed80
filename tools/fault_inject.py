#!/usr/bin/env python
"""Measure how training survives faults: kills, damaged files. Prints the table of reliability.

    python tools/fault_inject.py                            # everything, up to an hour
    python tools/fault_inject.py --only kill_while_saving --trials 1000
    python tools/fault_inject.py --only end_training --json docs/reliability.json --update

Ends with exit code 1 if any trial failed; each failure is reported on stderr.
A new experiment is a function (folder, num_trials) -> iterator that runs one trial per item and
yields None, or what went wrong, and an entry in EXPERIMENTS of a module of fault_experiments/.
Linux and macOS.
"""

import argparse
import dataclasses
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

# From a checkout this also works without installing, from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mg
from fault_experiments import (
    bad_inputs,
    checkpoints,
    config_bombs,
    latents,
    media_bombs,
    run_folder,
    training_runs,
    weight_bombs,
    wrong_settings,
)
from fault_experiments.experiment import Trials
from mg.cli import run_main
from mg.files import write_text

__all__ = ["EXPERIMENTS", "main", "markdown_table", "run_experiment"]

# In the order in which they run: those that fork come before those that import MindSpore.
EXPERIMENTS = {
    **checkpoints.EXPERIMENTS,
    **latents.EXPERIMENTS,
    **config_bombs.EXPERIMENTS,
    **weight_bombs.EXPERIMENTS,
    **run_folder.EXPERIMENTS,
    **media_bombs.EXPERIMENTS,
    **training_runs.EXPERIMENTS,
    **bad_inputs.EXPERIMENTS,
    **wrong_settings.EXPERIMENTS,
}
tqdm.monitor_interval = 0  # no thread of its own: experiments fork


@dataclasses.dataclass(frozen=True)
class Result:
    """What came out of an experiment: counts, wall time, and what went wrong."""

    name: str
    claim: str
    num_passed: int
    num_trials: int
    seconds: float
    failures: list[str]
    date: str


def run_experiment(name: str, num_trials: int | None = None) -> Result:
    """Return the result of one experiment of EXPERIMENTS, run in a temporary folder.

    Args:
        name: its key.
        num_trials: None: its own default.
    """
    experiment = EXPERIMENTS[name]
    num_trials = num_trials or experiment.num_trials
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        trials = experiment.run(Path(folder), num_trials)
        trials = _to_the_end(trials)
        outcomes = list(tqdm(trials, desc=name, total=num_trials, disable=None))
    failures = [f"trial {i}: {text}" for i, text in enumerate(outcomes) if text is not None]
    return Result(
        name,
        experiment.claim,
        num_passed=len(outcomes) - len(failures),
        num_trials=len(outcomes),
        seconds=round(time.monotonic() - began, 1),
        failures=failures,
        date=time.strftime("%Y-%m-%d"),
    )


def _to_the_end(trials: Trials) -> Trials:
    """Yield the trials; an experiment that breaks off fails, and the others still run."""
    try:
        yield from trials
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        yield f"the experiment broke off: {error}"


def markdown_table(results: Sequence[Result]) -> str:
    """Return the results as the table of docs/reliability.md."""
    rows = [
        f"| `{r.name}` | {r.claim} | {r.num_passed}/{r.num_trials} | {r.seconds:.0f} | {r.date} |"
        for r in results
    ]
    head = "| experiment | what must hold | passed | seconds | measured |"
    return "\n".join([head, "| --- | --- | --- | --- | --- |", *rows])


def _report(results: Sequence[Result], older: dict | None) -> dict:
    """Return what the JSON file holds: new results, and older ones of other experiments."""
    by_name = {result["name"]: result for result in (older or {}).get("results", ())}
    by_name |= {result.name: dataclasses.asdict(result) for result in results}
    return {
        "version": mg.__version__,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "results": [by_name[name] for name in EXPERIMENTS if name in by_name],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--trials", type=int, help="of each experiment; default: its own number")
    parser.add_argument("--json", type=Path, help="also write the results here")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --json file")
    parser.add_argument(
        "--update", action="store_true", help="keep the other experiments' results in it"
    )
    arguments = parser.parse_args()
    if arguments.trials is not None and arguments.trials < 1:
        raise ValueError(f"--trials={arguments.trials}: at least 1 is needed")
    path, is_kept = arguments.json, not (arguments.overwrite or arguments.update)
    if path is not None and path.exists() and is_kept:
        raise FileExistsError(f"{path} exists; --overwrite replaces it, --update adds to it")
    names = [name for name in EXPERIMENTS if name in arguments.only]
    results = [run_experiment(name, arguments.trials) for name in names]
    print(markdown_table(results))
    if path is not None:
        older = json.loads(path.read_text()) if arguments.update and path.exists() else None
        write_text(path, json.dumps(_report(results, older), indent=1) + "\n", overwrite=True)
    failures = [f"{result.name}, {text}" for result in results for text in result.failures]
    if failures:
        print("\n".join(failures[:50]), file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    run_main(main)
