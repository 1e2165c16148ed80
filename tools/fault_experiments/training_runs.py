"""Ended training runs: kills and signals at random instants, then on with `--resume`."""

import signal
import time
from pathlib import Path

import numpy as np

from fault_experiments.checkpoints import captured_warnings
from fault_experiments.experiment import SEED, Experiment, Trials
from fault_experiments.training_process import (
    TrainingProcess,
    TrainingRun,
    checkpoint_difference,
)

__all__ = ["EXPERIMENTS"]

TRIALS_PER_START_UP_KILL = 10  # one in so many processes is ended before it trains
MAX_SECONDS_OF_START_UP = 6.0
MAX_SECONDS_OF_TRAINING = 0.5  # of a process, some twenty steps with a save after each
MANY_STEPS = 1_000_000


def kill_training(folder: Path, num_trials: int) -> Trials:
    """Kill (SIGKILL) a training process and go on with the next, again and again, in one folder.

    In the end the run must be, bit by bit, what it is without any kill.
    """
    rng = np.random.default_rng(SEED)
    run = _new_run(folder / "killed", checkpoint_interval=1)
    earliest = latest = 0  # steps that the next process may go on from
    for i in range(num_trials):
        is_start_up = i % TRIALS_PER_START_UP_KILL == TRIALS_PER_START_UP_KILL - 1
        seconds = MAX_SECONDS_OF_START_UP if is_start_up else MAX_SECONDS_OF_TRAINING
        with run.start(steps=MANY_STEPS) as process:
            fault = None
            if not is_start_up:
                fault = _fault_of_start(process, earliest, latest)
            time.sleep(rng.uniform(0, seconds))
            process.end(signal.SIGKILL)
        saved = process.last_saved_step
        if saved is not None:
            earliest, latest = saved, saved + 1
        fault = fault or _fault_of_checkpoint(run, earliest, latest)
        if i == num_trials - 1:
            fault = fault or _fault_of_end(run, folder / "unbroken", earliest, latest)
        yield fault


def _new_run(folder: Path, **settings: int) -> TrainingRun:
    folder.mkdir()
    return TrainingRun(folder, settings)


def _fault_of_start(process: TrainingProcess, earliest: int, latest: int) -> str | None:
    """Wait until a process trains; return what is wrong with where it began, or None."""
    try:
        process.wait_until_trains()
    except RuntimeError as error:
        return str(error)
    if earliest <= process.first_step <= latest:
        return None
    return f"went on from step {process.first_step} instead of {earliest} or {latest}"


def _fault_of_checkpoint(run: TrainingRun, earliest: int, latest: int) -> str | None:
    """Return what is wrong with the newest checkpoint, or None."""
    if latest == 0:
        return None  # killed before the first one
    try:
        with captured_warnings():  # that LATEST is one behind is as it should be
            step = run.store.load().step
    except (OSError, ValueError) as error:
        return str(error)
    return None if earliest <= step <= latest else f"step {step}: not {earliest} or {latest}"


def _fault_of_end(run: TrainingRun, folder: Path, earliest: int, latest: int) -> str | None:
    """Let the run end; return in what it differs from one without kills, or None."""
    steps = latest + 5
    with run.start(steps=steps) as process:
        if process.finish() != 0:
            return f"the last process failed: {process.messages[-2000:]}"
    if not earliest <= process.first_step <= latest:
        return f"the last process went on from step {process.first_step}, not {earliest}"
    unbroken = _new_run(folder, checkpoint_interval=MANY_STEPS)
    with unbroken.start(steps=steps) as process:
        process.finish()
    return checkpoint_difference(run, unbroken, step=steps)


def end_training(folder: Path, num_trials: int) -> Trials:
    """Ask a training process to end (SIGTERM), see what it saved, and go on with the next."""
    rng = np.random.default_rng(SEED)
    run = _new_run(folder / "run", checkpoint_interval=MANY_STEPS)
    for i in range(num_trials):
        is_compiling = i % 4 == 3
        with run.start(steps=MANY_STEPS) as process:
            try:
                if is_compiling:
                    process.wait_until_resumes()
                else:
                    process.wait_until_trains()
                time.sleep(rng.uniform(0.05, 0.5))
                code = process.end(signal.SIGTERM)
            except RuntimeError as error:
                yield str(error)
                continue
        num_done = process.log()[-1]["step"] + 1
        saved = run.store.load().step
        if code != 0:
            yield f"exit code {code}: {process.messages[-2000:]}"
        elif not num_done - 1 <= saved <= num_done:
            yield f"step {saved} was saved, {num_done} steps were done"
        else:
            yield None


# Runs of 50 steps that differ in what a checkpoint has to carry.
_ADVERSARIAL = {
    "adversarial.network": {"kind": "video", "ch": 8, "num_layers": 1, "norm_groups": 4},
    "adversarial.lecam_weight": 0.1,
    "optim.warmup_steps": 10,
}
RUNS = {
    "a discriminator from step 20 on": {**_ADVERSARIAL, "adversarial.start_step": 20},
    "float16, a discriminator, a cosine schedule": {
        **_ADVERSARIAL,
        "dtype": "float16",
        "optim.lr_schedule": "cosine",
    },
    "phases, two batches per update, a discriminator": {
        **_ADVERSARIAL,
        "optim.accumulation_steps": 2,
        "phases": [{"steps": 25, "freeze": ["encoder"]}, {"train": ["decoder"]}],
    },
}
NUM_PIECES = 4


def resume_equals_unbroken(folder: Path, num_trials: int) -> Trials:
    """Do 50 steps in pieces, ended by SIGTERM and SIGKILL in turn, and in one go; compare."""
    rng = np.random.default_rng(SEED)
    for name, settings in list(RUNS.items())[:num_trials]:
        runs = []
        for part in ("unbroken", "pieces"):
            place = folder / f"{part}_{len(list(folder.iterdir()))}"
            place.mkdir()
            runs.append(TrainingRun(place, {**settings, "checkpoint_interval": 5}))
        unbroken, pieces = runs
        with unbroken.start() as process:
            code = process.finish()
        ends = sorted(rng.choice(np.arange(5, 45), NUM_PIECES - 1, replace=False).tolist())
        fault = None if code == 0 else process.messages[-2000:]
        for number, end in enumerate([*ends, None]):
            fault = fault or _fault_of_piece(pieces, end, is_killed=number % 2 == 1)
        fault = fault or checkpoint_difference(pieces, unbroken, step=50)
        yield f"{name}, ended about steps {ends}: {fault}" if fault else None


def _fault_of_piece(run: TrainingRun, end: int | None, *, is_killed: bool) -> str | None:
    with run.start() as process:
        if end is None:
            return None if process.finish() == 0 else process.messages[-2000:]
        try:
            process.wait_until(lambda: any(entry["step"] >= end for entry in process.log()))
        except RuntimeError as error:
            return str(error)
        code = process.end(signal.SIGKILL if is_killed else signal.SIGTERM)
    return None if is_killed or code == 0 else f"exit code {code}: {process.messages[-2000:]}"


EXPERIMENTS = {
    "kill_training": Experiment(
        "SIGKILL at random instants of training, every tenth of start-up, saving after each step: "
        "the next start goes on from the last step reported saved or the one after, and in the "
        "end no bit differs from a run without kills",
        100,
        kill_training,
    ),
    "end_training": Experiment(
        "SIGTERM at random instants of training, every fourth while compiling: exit code 0, "
        "at most one step lost",
        20,
        end_training,
    ),
    "resume_equals_unbroken": Experiment(
        "50 steps in four pieces, adversarial (from step 20; float16; phases with accumulation): "
        "weights, both optimisers, averages and progress equal the unbroken run's, difference 0",
        len(RUNS),
        resume_equals_unbroken,
    ),
}
