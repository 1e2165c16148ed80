#!/usr/bin/env python
"""Measure how training survives faults: kills, damaged files. Prints the table of reliability.

    python tools/fault_inject.py                            # everything, a few minutes
    python tools/fault_inject.py --only kill_while_saving --trials 1000
    python tools/fault_inject.py --json reliability.json > reliability.md

Ends with exit code 1 if any trial failed; each failure is told on stderr.
A new experiment is a function (folder, num_trials) -> iterator that runs one trial per item and
yields None, or what went wrong, and a line in EXPERIMENTS. Linux and macOS.
"""

import argparse
import contextlib
import dataclasses
import json
import logging
import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

# From a checkout this also works without installing, from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mg
from mg.cli import run_main
from mg.files import write_text
from mg.training.checkpoint_store import LATEST, CheckpointStore, StoredCheckpoint

__all__ = ["EXPERIMENTS", "Experiment", "main", "markdown_table", "run_experiment"]

Trials = Iterator[str | None]

SEED = 0
MAX_SECONDS_BEFORE_KILL = 0.05  # a save of the small content takes about a tenth of it
MAX_CALLS = 1000  # far more than the file-system calls of a save
CRASHED = 99  # exit code of a process that ends itself
# What may change a folder; a process is ended before each call of these.
FILE_SYSTEM_CALLS = ("open", "close", "mkdir", "chmod", "fsync", "replace", "unlink", "rmdir")


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


@dataclasses.dataclass(frozen=True)
class Result:
    """What came out of an experiment: counts, wall time, and what went wrong."""

    name: str
    claim: str
    num_passed: int
    num_trials: int
    seconds: float
    failures: list[str]


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
        outcomes = list(tqdm(trials, desc=name, total=num_trials, disable=None))
    failures = [f"trial {i}: {text}" for i, text in enumerate(outcomes) if text is not None]
    return Result(
        name,
        experiment.claim,
        num_passed=len(outcomes) - len(failures),
        num_trials=len(outcomes),
        seconds=round(time.monotonic() - began, 1),
        failures=failures,
    )


def kill_while_saving(folder: Path, num_trials: int) -> Trials:
    """Kill a process (SIGKILL) that loads and then saves one checkpoint after the other.

    All trials share a folder: each process goes on from what the one before it left.
    """
    rng = np.random.default_rng(SEED)
    store = CheckpointStore(folder / "checkpoints", keep=2)
    save_content(store, 1)
    for _ in range(num_trials):
        with _captured_warnings():
            before = store.load().step
        receiver, sender = multiprocessing.Pipe(duplex=False)
        process = _FORK.Process(target=_save_for_ever, args=(store, sender))
        process.start()
        sender.close()
        started = receiver.poll(60)
        time.sleep(rng.uniform(0, MAX_SECONDS_BEFORE_KILL))
        process.kill()
        process.join()
        committed = before
        with contextlib.suppress(EOFError):
            while True:
                committed = receiver.recv()
        if not started:
            yield "the process did not begin to save"
        else:
            yield _fault_after_crash(store, {committed, committed + 1})


def crash_before_each_call(folder: Path, num_trials: int | None) -> Trials:
    """End a process before the n-th call that changes a file, for every n of three saves.

    The saves: one more step, the same step again, and one after which the best is an old one.
    """
    origin = CheckpointStore(folder / "origin", keep=2)
    save_content(origin, 1, score=9.0)
    save_content(origin, 2)
    for n in range(num_trials or MAX_CALLS):
        store = CheckpointStore(folder / "copy", keep=2)
        shutil.rmtree(store.folder, ignore_errors=True)
        shutil.copytree(origin.folder, store.folder)
        receiver, sender = multiprocessing.Pipe(duplex=False)
        process = _FORK.Process(target=_save_until_call, args=(store, n, sender))
        process.start()
        sender.close()
        process.join()
        if process.exitcode == 0:  # there is no n-th call
            return
        if process.exitcode != CRASHED:
            yield f"the process ended with exit code {process.exitcode}"
            return
        committed = 2
        with contextlib.suppress(EOFError):
            while True:
                committed = receiver.recv()
        fault = _fault_after_crash(store, {committed, min(committed + 1, 4)})
        yield fault if fault or 1 in store.steps() else "the best checkpoint is gone"


def flip_bits(folder: Path, num_trials: int) -> Trials:
    """Flip one bit of the newest checkpoint or of LATEST; each is told, an intact one is loaded."""
    rng = np.random.default_rng(SEED)
    store, files = _two_checkpoints(folder)
    bits = {path: rng.permutation(8 * path.stat().st_size).tolist() for path in files}
    num_done = 0
    while num_done < num_trials and any(bits.values()):
        for path in files:  # in turn, so that small files have their share
            if bits[path] and num_done < num_trials:
                num_done += 1
                content = bytearray(path.read_bytes())
                position = bits[path].pop()
                content[position // 8] ^= 1 << position % 8
                yield _fault_of_damage(store, path, bytes(content), f"bit {position} flipped")


def truncate_files(folder: Path, num_trials: int) -> Trials:
    """Truncate a file of the newest checkpoint; it is told, the older one is loaded."""
    store, files = _two_checkpoints(folder)
    files = [path for path in files if path.name != LATEST]
    for i in range(num_trials):
        path = files[i % len(files)]
        content = path.read_bytes()
        length = len(content) * i // num_trials
        yield _fault_of_damage(store, path, content[:length], f"truncated to {length} bytes")


EXPERIMENTS = {
    "kill_while_saving": Experiment(
        "SIGKILL at random instants of saving: the last committed checkpoint loads, unmixed",
        100,
        kill_while_saving,
    ),
    "crash_before_each_call": Experiment(
        "End before each file-system call of a save: the same, and the best one is kept",
        None,
        crash_before_each_call,
    ),
    "flip_bits": Experiment(
        "One flipped bit in a checkpoint: named in a warning, an intact one is loaded",
        1000,
        flip_bits,
    ),
    "truncate_files": Experiment(
        "A truncated file of a checkpoint: named in a warning, the older one is loaded",
        100,
        truncate_files,
    ),
}

# Forked, so that a trial takes milliseconds; this process has no threads that a fork would break.
_FORK = multiprocessing.get_context("fork")
tqdm.monitor_interval = 0  # else it starts one


def make_content(step: int) -> dict[str, dict[str, Any]]:
    """Return small content for `CheckpointStore.save`, different in every part for each step."""
    rng = np.random.default_rng((SEED, step))
    shapes = {"kernel": (3, step % 7, 5), "bias": (5,), "count": ()}
    return {
        "tensors": {
            name: {key: rng.standard_normal(shape, np.float32) for key, shape in shapes.items()}
            for name in ("tae", "state")
        },
        "documents": {"progress": {"step": step}, "config": {"seed": int(rng.integers(1 << 30))}},
    }


def save_content(store: CheckpointStore, step: int, *, score: float | None = None) -> None:
    """Save the content of a step."""
    store.save(step, **make_content(step), score=score)


def is_content(checkpoint: StoredCheckpoint) -> bool:
    """Return whether a checkpoint holds the content of its step, bit by bit."""
    expected = make_content(checkpoint.step)
    for name, arrays in expected["tensors"].items():
        found = checkpoint.tensors(name)
        if found.keys() != arrays.keys():
            return False
        if any(not np.array_equal(found[key], arrays[key]) for key in arrays):
            return False
    return all(checkpoint.document(name) == d for name, d in expected["documents"].items())


def _save_for_ever(store: CheckpointStore, sender: Any) -> None:
    with _captured_warnings():
        step = store.load().step
    while True:
        sender.send(step)
        step += 1
        save_content(store, step)


def _save_until_call(store: CheckpointStore, num_calls: int, sender: Any) -> None:
    """Save steps 3, 3 and 4; end before the call to the file system after `num_calls` of them."""
    remaining = num_calls

    def counted(call: Callable) -> Callable:
        def wrapper(*args, **kwargs):
            nonlocal remaining
            if remaining == 0:
                os._exit(CRASHED)
            remaining -= 1
            return call(*args, **kwargs)

        return wrapper

    for name in FILE_SYSTEM_CALLS:
        setattr(os, name, counted(getattr(os, name)))
    for step in (3, 3, 4):
        save_content(store, step)
        sender.send(step)


def _fault_after_crash(store: CheckpointStore, expected_steps: set[int]) -> str | None:
    """Return what is wrong with what a killed process left, or None."""
    try:
        with _captured_warnings():  # that LATEST is one behind is as it should be
            checkpoint = store.load()
    except (OSError, ValueError) as error:
        return str(error)
    if checkpoint.step not in expected_steps:
        return f"step {checkpoint.step} was loaded instead of one of {sorted(expected_steps)}"
    return None if is_content(checkpoint) else f"{checkpoint.path} holds other content"


def _two_checkpoints(folder: Path) -> tuple[CheckpointStore, list[Path]]:
    """Return a store of steps 1 and 2, and all files of step 2 with LATEST."""
    store = CheckpointStore(folder / "checkpoints", keep=2)
    save_content(store, 1)
    save_content(store, 2)
    newest = store.load().path
    return store, [*sorted(newest.iterdir()), store.folder / LATEST]


def _fault_of_damage(store: CheckpointStore, path: Path, content: bytes, damage: str) -> str | None:
    """Damage a file, load, mend it; return what was wrong with the loading, or None."""
    original = path.read_bytes()
    path.write_bytes(content)
    try:
        with _captured_warnings() as warnings:
            checkpoint = store.load()
        expected_step = 2 if path.name == LATEST else 1
        if checkpoint.step != expected_step or not is_content(checkpoint):
            return f"{path.name}, {damage}: {checkpoint.path} was loaded"
        if not any(path.name in text for text in warnings):
            return f"{path.name}, {damage}: no warning names it"
        return None
    except (OSError, ValueError) as error:
        return f"{path.name}, {damage}: {error}"
    finally:
        path.write_bytes(original)


@contextlib.contextmanager
def _captured_warnings() -> Iterator[list[str]]:
    """Yield a list to which the package's warnings go, and nowhere else."""
    logger, texts = logging.getLogger("mg"), []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: texts.append(record.getMessage())
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield texts
    finally:
        logger.removeHandler(handler)
        logger.propagate = True


def markdown_table(results: Sequence[Result]) -> str:
    """Return the results as a table."""
    rows = [f"| {r.claim} | {r.num_passed}/{r.num_trials} | {r.seconds:.1f} |" for r in results]
    return "\n".join(["| fault | passed | seconds |", "| --- | --- | --- |", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--trials", type=int, help="of each experiment; default: its own number")
    parser.add_argument("--json", type=Path, help="also write the results here")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --json file")
    arguments = parser.parse_args()
    if arguments.trials is not None and arguments.trials < 1:
        raise ValueError(f"--trials={arguments.trials}: at least 1 is needed")
    if arguments.json is not None and arguments.json.exists() and not arguments.overwrite:
        raise FileExistsError(f"{arguments.json} exists; --overwrite replaces it")
    results = [run_experiment(name, arguments.trials) for name in arguments.only]
    print(markdown_table(results))
    if arguments.json is not None:
        report = {
            "version": mg.__version__,
            "platform": platform.platform(),
            "python": platform.python_version(),
            "date": time.strftime("%Y-%m-%d"),
            "results": [dataclasses.asdict(result) for result in results],
        }
        write_text(arguments.json, json.dumps(report, indent=1) + "\n", overwrite=True)
    failures = [f"{result.name}, {text}" for result in results for text in result.failures]
    if failures:
        print("\n".join(failures[:50]), file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    run_main(main)
