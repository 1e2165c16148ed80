"""A run's folder and its ranks: damaged logs, two runs in one folder, ranks with other data.

Processes are forked, so no module that starts threads (MindSpore) may be imported here.
"""

import contextlib
import json
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from fault_experiments.checkpoints import captured_warnings
from fault_experiments.experiment import SEED, Experiment, Trials
from mg.parallel.ranks import Ranks
from mg.training.metric import PSNR
from mg.training.run.rank_agreement import check_same_data
from mg.training.run.run_history import VALIDATIONS_NAME, RunHistory
from mg.training.run.run_lock import hold_folder
from mg.training.run.run_log import RunLog, read_log, write_log

__all__ = ["EXPERIMENTS"]

NUM_STEPS = 20  # of the run whose logs are damaged
NUM_AT_ONCE = 3  # runs that start in one folder
NUM_RANKS = 3
_FORK = multiprocessing.get_context("fork")


def flip_log_bits(folder: Path, num_trials: int) -> Trials:
    """Flip one bit of a log and do with the logs what a resumed run does."""
    rng = np.random.default_rng(SEED)
    history = RunHistory(folder, PSNR)
    steps = [
        {
            "step": i,
            "batch": i,
            "loss": rng.random(),
            "lr": 1e-3,
            "is_applied": True,
            "seconds": 0.5,
        }
        for i in range(NUM_STEPS)
    ]
    scores = [
        {"step": i, "psnr": 20 + i / 7, "psnr_per_clip": {"a.mp4": 19.5, "b.mp4": 20.5 + i / 7}}
        for i in range(0, NUM_STEPS, 2)
    ]
    for number in range(num_trials):
        write_log(history.log_path, steps)
        write_log(folder / VALIDATIONS_NAME, scores)
        path, entries = (
            (history.log_path, steps) if number % 2 else (folder / VALIDATIONS_NAME, scores)
        )
        content = bytearray(path.read_bytes())
        bit = int(rng.integers(8 * len(content)))
        line = content[: bit // 8].count(b"\n")
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        with captured_warnings() as told:
            history.load_validations(NUM_STEPS)
            RunLog(history.log_path, first_step=NUM_STEPS).close()
            found = read_log(path) if path == history.log_path else history.validations
        if found != entries[:line] + entries[line + 1 :]:
            yield f"{path.name}, bit {bit}: {len(found)} of {len(entries)} entries are left"
        elif len(told) != 1 or path.name not in told[0]:
            yield f"{path.name}, bit {bit}: told {told}"
        else:
            yield None


def share_folder(folder: Path, num_trials: int) -> Trials:
    """Start several runs in one folder at once, kill the one that holds it, start another."""
    for _ in range(num_trials):
        connections, processes = [], []
        start = _FORK.Event()
        for _ in range(NUM_AT_ONCE):
            receiver, sender = _FORK.Pipe(duplex=False)
            processes.append(_FORK.Process(target=_hold, args=(folder, start, sender)))
            processes[-1].start()
            connections.append(receiver)
        start.set()
        answers = [connection.recv() for connection in connections]
        holders = [p.pid for p, answer in zip(processes, answers, strict=True) if answer is None]
        for process in processes:
            process.kill()
            process.join()
        with captured_warnings() as told:
            try:
                with hold_folder(folder):
                    pass
            except ValueError as error:
                answers.append(f"after the end: {error}")
        name = f"process {holders[0]} on host" if holders else "nobody"
        refusals = [answer for answer in answers if answer is not None]
        if len(holders) != 1 or any(name not in text for text in [*refusals, *told]):
            yield f"{len(holders)} of {NUM_AT_ONCE} held the folder: {refusals}, {told}"
        else:
            yield None if len(told) == 1 else f"told {told} of the killed run"


def _hold(folder: Path, start: Any, sender: Any) -> None:
    """Hold the folder until this process is killed; send None, or why it cannot be held."""
    start.wait()
    try:
        with hold_folder(folder):
            sender.send(None)
            threading.Event().wait()
    except ValueError as error:
        sender.send(str(error))


class _Meeting:
    """What ranks that are threads send each other."""

    def __init__(self, size: int) -> None:
        self.messages = [b""] * size
        self.barrier = threading.Barrier(size)

    def of_rank(self, rank: int) -> Any:
        return type("Channel", (), {"gather": lambda _, message: self.gather(rank, message)})()

    def gather(self, rank: int, message: bytes) -> list[bytes]:
        self.messages[rank] = message
        self.barrier.wait()
        gathered = list(self.messages)
        self.barrier.wait()
        return gathered


def compare_ranks(folder: Path, num_trials: int) -> Trials:
    """Let one of several ranks have other settings or clips; every fourth time all are equal."""
    rng = np.random.default_rng(SEED)
    for number in range(num_trials):
        settings = {"seed": 1, "optim": {"lr": 1e-3, "betas": [0.9, 0.999]}, "csv_path": None}
        clips = [json.dumps({"name": f"{i}.mp4", "num_frames": 8 + i}) for i in range(20)]
        given = [[json.loads(json.dumps(settings)), list(clips)] for _ in range(NUM_RANKS)]
        odd, place = int(rng.integers(1, NUM_RANKS)), int(rng.integers(len(clips)))
        if number % 4 == 0:
            given[odd][0]["optim"]["lr"] = float(rng.random())
        elif number % 4 == 1:
            del given[odd][1][place]
        elif number % 4 == 2:
            given[odd][1].insert(0, given[odd][1].pop(max(place, 1)))
        told = _refusals(given)
        expected = None if number % 4 == 3 else f"rank {odd} has other "
        is_right = len(set(told)) == 1 and (told[0] or "").startswith(expected or "")
        yield None if is_right and (told[0] is None) == (expected is None) else f"{told}"


def _refusals(given: list[list[Any]]) -> list[str | None]:
    meeting = _Meeting(len(given))

    def run(rank: int) -> str | None:
        with contextlib.suppress(threading.BrokenBarrierError):
            try:
                check_same_data(Ranks(rank, len(given), meeting.of_rank(rank)), *given[rank])
            except ValueError as error:
                return str(error)

    with ThreadPoolExecutor(len(given)) as threads:
        return list(threads.map(run, range(len(given))))


EXPERIMENTS = {
    "flip_log_bits": Experiment(
        "One flipped bit in log.jsonl or validation.jsonl: reported, the run resumes, only the "
        "damaged line is lost",
        2000,
        flip_log_bits,
    ),
    "share_folder": Experiment(
        "Three runs start in one folder at once: one gets it, the others name its host and "
        "process; when it is killed the next one gets it",
        20,
        share_folder,
    ),
    "compare_ranks": Experiment(
        "A rank with other settings, other clips or another order of them: refused on all ranks, "
        "which name it; equal ranks train",
        100,
        compare_ranks,
    ),
}
