"""The checkpoint store: kills while it writes, and damage to what it wrote.

Processes are forked, so no module that starts threads (MindSpore) may be imported here.
"""

import contextlib
import logging
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fault_experiments.experiment import SEED, Experiment, Trials
from mg.training.run.checkpoint_store import LATEST, CheckpointStore, StoredCheckpoint

__all__ = ["EXPERIMENTS", "captured_warnings"]

MAX_SECONDS_BEFORE_KILL = 0.05  # a save of the small content takes about a tenth of it
MAX_CALLS = 1000  # far more than the file-system calls of a save
CRASHED = 99  # exit code of a process that ends itself
# What may change a folder; a process is ended before each call of these.
FILE_SYSTEM_CALLS = ("open", "close", "mkdir", "chmod", "fsync", "replace", "unlink", "rmdir")


def kill_while_saving(folder: Path, num_trials: int) -> Trials:
    """Kill a process (SIGKILL) that loads and then saves one checkpoint after the other.

    All trials share a folder: each process goes on from what the one before it left.
    """
    rng = np.random.default_rng(SEED)
    store = CheckpointStore(folder / "checkpoints", keep=2)
    save_content(store, 1)
    for _ in range(num_trials):
        with captured_warnings():
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
    """Flip one bit of the newest checkpoint or of LATEST; each is noticed, an intact one loaded."""
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
    """Truncate a file of the newest checkpoint; it is reported, the older one is loaded."""
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

# Forked, so that a trial takes milliseconds; the parent has no threads that a fork would break.
_FORK = multiprocessing.get_context("fork")


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
    with captured_warnings():
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
        with captured_warnings():  # that LATEST is one behind is as it should be
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
        with captured_warnings() as warnings:
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
def captured_warnings() -> Iterator[list[str]]:
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
