"""The checks of the fault experiments: each notices what it is there for."""

import math
import re
import subprocess

import numpy as np
import pytest

import fault_inject
from fault_experiments.apart import Outcome, fault_of, run_apart
from fault_experiments.bad_numbers import _fault_of_step
from fault_experiments.experiment import Experiment
from fault_experiments.latents import _fault_of_reading, write_small_latent
from fault_experiments.media_bombs import BOMBS, probe_apart
from fault_experiments.training_process import (
    TINY_SETTINGS,
    TrainingProcess,
    TrainingRun,
    checkpoint_difference,
    with_changes,
)
from fault_experiments.training_runs import _fault_of_checkpoint, _fault_of_start


@pytest.fixture
def runs(tmp_path):
    """Return two runs with equal checkpoints of step 7."""
    made = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        made.append(TrainingRun(tmp_path / name, {}))
        save(made[-1], 7)
    return made


def save(run, step, *, bias=1.0, num_skipped=0, name="bias"):
    tensors = {"tae": {"weight": np.arange(3.0)}, "tae_state": {name: np.float32([bias])}}
    progress = {"step": step, "num_skipped": num_skipped}
    run.store.save(step, tensors=tensors, documents={"progress": progress, "config": {}})


def test_settings_are_changed_by_dotted_names():
    changed = with_changes(TINY_SETTINGS, {"steps": 3, "optim.lr": 1.0, "guards.max_restores": 0})
    assert (changed["steps"], changed["optim"]["lr"]) == (3, 1.0)
    assert changed["guards"] == {"max_restores": 0} and changed["optim"]["ema_decay"] == 0.9
    assert TINY_SETTINGS["steps"] == 50 and "guards" not in TINY_SETTINGS


def test_equal_checkpoints_do_not_differ(runs):
    assert checkpoint_difference(*runs, step=7) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bias": np.nextafter(np.float32(1), np.float32(2))}, "bias in tae_state.* differs by up"),
        ({"num_skipped": 1}, "'num_skipped': 1"),
        ({"name": "bent"}, "tae_state.safetensors holds other names"),
    ],
)
def test_the_smallest_difference_is_found(runs, changes, message):
    save(runs[0], 8)
    save(runs[1], 8, **changes)
    found = checkpoint_difference(*runs, step=8)
    assert re.search(message, found)


@pytest.mark.parametrize("name", ["gif", "video", "raw_y4m", "raw_avi"])
def test_a_bomb_is_refused_for_little(tmp_path, name):
    bomb = BOMBS[name]
    path = tmp_path / bomb.name
    bomb.write(path)
    assert fault_of(bomb.name, bomb.refusal, probe_apart(path)) is None


@pytest.mark.parametrize(
    ("outcome", "fault"),
    [
        (("a has too many pixels", 0.9, 199.0), None),
        (("", 0.1, 90.0), "a: it was read"),
        (("no video", 0.1, 90.0), "a: no video"),
        (("a has too many pixels\nand more", 0.1, 90.0), "a: a has too many pixels\nand more"),
        (("a has too many pixels", 1.1, 90.0), "a: 1.1 s of processor time"),
        (("a has too many pixels", 0.1, 201.0), "a: 201 MB"),
    ],
)
def test_a_bomb_that_goes_off_is_noticed(outcome, fault):
    assert fault_of("a", "too many pixels", Outcome(*outcome)) == fault


def test_a_bomb_that_must_be_read_is_not_refused():
    assert fault_of("a", "", Outcome("", 0.1, 60.0)) is None
    assert fault_of("a", "", Outcome("refused", 0.1, 60.0)) == "a: refused"


def test_time_and_memory_of_another_process_are_measured(tmp_path):
    work = "b'x' * (400 << 20); sum(range(1 << 23))"
    (tmp_path / "a").touch()
    outcome = run_apart("", work, tmp_path / "a")
    assert outcome.refusal == "" and 400 < outcome.peak_megabytes < 500
    assert 0.05 < outcome.seconds < 60
    small = run_apart("", "raise ValueError(f'no {path.name}')", tmp_path / "a")
    assert small.refusal == "no a" and small.peak_megabytes < 60
    with pytest.raises(RuntimeError, match=r"reading a ended with exit code -6: "):
        run_apart("import os", "os.abort()", tmp_path / "a")


def test_an_experiment_that_breaks_off_has_failed(monkeypatch):
    def run(folder, num_trials):
        yield None
        raise subprocess.TimeoutExpired("train", 900)

    experiment = Experiment("holds", 5, run)
    monkeypatch.setitem(fault_inject.EXPERIMENTS, "broken", experiment)
    result = fault_inject.run_experiment("broken")
    assert (result.num_passed, result.num_trials) == (1, 2)
    [failure] = result.failures
    assert "trial 1: the experiment broke off: Command 'train' timed out" in failure


class Ended:
    """A process that has ended."""

    def poll(self):
        return 1


def process_that_said(tmp_path, text):
    path = tmp_path / "messages.txt"
    path.write_text(text)
    return TrainingProcess(Ended(), path, tmp_path)


def test_messages_of_a_process_are_read(tmp_path):
    text = "Resuming after step 12.\nstep 13: loss 1\nSaved /a/step_00000013.\nSaved /a/step_000"
    process = process_that_said(tmp_path, text)
    assert (process.first_step, process.last_saved_step) == (12, 13)
    assert _fault_of_start(process, 11, 12) is None
    assert "went on from step 12 instead of 13 or 14" in _fault_of_start(process, 13, 14)
    silent = process_that_said(tmp_path, "error: no\n")
    assert (silent.first_step, silent.last_saved_step) == (0, None)
    assert "the run did not train: error: no" in _fault_of_start(silent, 0, 0)


def test_a_lost_checkpoint_is_noticed(runs):
    assert _fault_of_checkpoint(runs[0], 7, 8) is None
    assert _fault_of_checkpoint(runs[0], 8, 9) == "step 7: not 8 or 9"
    (runs[0].store.load().path / "tae.safetensors").write_bytes(b"")
    assert "is whole" in _fault_of_checkpoint(runs[0], 7, 8)


def test_a_latent_that_ends_in_another_error_is_noticed(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    write_small_latent(path)
    assert _fault_of_reading(path) is None
    path.write_bytes(path.read_bytes()[:-9])
    assert _fault_of_reading(path) is None
    for error, said in (
        (TypeError("no"), "undocumented: TypeError('no')"),
        (ValueError("no"), "a message that is not a line about the file: 'no'"),
        (ValueError(f"{path}\n"), "a message that is not a line about the file"),
    ):

        def fail(_, error=error):
            raise error

        monkeypatch.setattr("fault_experiments.latents.read_latent", fail)
        assert said in _fault_of_reading(path)


def test_a_bad_step_that_changes_anything_is_noticed():
    log = [{"is_applied": False}, {"is_applied": True}]
    before = {"tae.w": np.zeros(2), "tae_state.m": np.zeros(2), "discriminator.w": np.zeros(2)}
    later = {key: values + 1 for key, values in before.items()}
    good = [before, before, later]
    assert _fault_of_step("a batch of NaN", log, good) is None
    assert _fault_of_step("a batch of NaN", log[::-1], good).startswith("applied True")
    for key in before:
        touched = {**before, key: np.full(2, 1e-30)}
        fault = _fault_of_step("a batch of NaN", log, [before, touched, later])
        assert fault == f"{key} was changed"
        poisoned = {**later, key: np.array([1, math.nan])}
        fault = _fault_of_step("a batch of NaN", log, [before, before, poisoned])
        assert fault == f"{key} is not finite after the next step"
    touched = {**before, "discriminator.w": np.ones(2)}
    assert _fault_of_step("a gradient of NaN", log, [before, touched, later]) is None
    stuck = _fault_of_step("a batch of NaN", log, [before, before, before])
    assert stuck == "the next step changed nothing"
