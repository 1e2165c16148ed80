"""The checks of the fault experiments: each notices what it is there for."""

import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest

from fault_experiments.bad_numbers import _fault_of_step
from fault_experiments.config_bombs import _fault_of as config_bomb_fault
from fault_experiments.latents import _fault_of_reading, write_small_latent
from fault_experiments.media_bombs import BOMBS, Probing, fault_of, probe_apart
from fault_experiments.training_process import (
    TINY_SETTINGS,
    TrainingProcess,
    TrainingRun,
    checkpoint_difference,
    with_changes,
)
from fault_experiments.training_runs import _fault_of_checkpoint, _fault_of_start
from fault_experiments.weight_bombs import BOMBS as WEIGHT_BOMBS
from fault_experiments.weight_bombs import Reading
from fault_experiments.weight_bombs import _fault as bomb_fault


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


@pytest.mark.parametrize("name", ["gif", "video"])
def test_a_bomb_is_refused_for_little(tmp_path, name):
    path = tmp_path / BOMBS[name].name
    BOMBS[name].write(path)
    assert fault_of(BOMBS[name], probe_apart(path)) is None


@pytest.mark.parametrize(
    ("probing", "fault"),
    [
        (("frames have more pixels that max_pixels allows", 0.9, 199.0), None),
        (("", 0.1, 90.0), "a.gif: it counts as usable"),
        (("no video", 0.1, 90.0), "a.gif: no video"),
        (("more pixels that max_pixels allows", 1.1, 90.0), "a.gif: 1.1 s of processor time"),
        (("more pixels that max_pixels allows", 0.1, 201.0), "a.gif: 201 MB"),
    ],
)
def test_a_bomb_that_goes_off_is_noticed(probing, fault):
    assert fault_of(BOMBS["gif"], Probing(*probing)) == fault


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
        (ValueError("no"), "a message that is no line about the file: 'no'"),
        (ValueError(f"{path}\n"), "a message that is no line about the file"),
    ):

        def fail(_, error=error):
            raise error

        monkeypatch.setattr("fault_experiments.latents.read_latent", fail)
        assert said in _fault_of_reading(path)


def test_a_bomb_that_is_read_or_takes_too_much_is_noticed():
    def of(*outcome):
        return config_bomb_fault(
            "a.json", SimpleNamespace(returncode=0, stdout=json.dumps(outcome))
        )

    assert of("a.json is too deep", 0.5, 150 << 10) is None
    for outcome in (("was read", 0, 0), ("a.json", 1.5, 0), ("a.json", 0, 300 << 10)):
        assert of(*outcome).startswith(f"a.json: {outcome[0]} (")
    crashed = SimpleNamespace(returncode=-11, stderr="Segmentation fault")
    assert "Segmentation" in config_bomb_fault("a.json", crashed)


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


def test_weights_that_go_off_are_noticed():
    bomb = WEIGHT_BOMBS["chain"]
    assert bomb_fault("chain", bomb, Reading(f"no: {bomb.refusal}", 0.5, 60.0)) is None
    assert "it was read" in bomb_fault("chain", bomb, Reading("", 0.5, 60.0))
    assert "other" in bomb_fault("chain", bomb, Reading("other", 0.5, 60.0))
    assert "1.5 s" in bomb_fault("chain", bomb, Reading(bomb.refusal, 1.5, 60.0))
    assert "201 MB" in bomb_fault("chain", bomb, Reading(bomb.refusal, 0.5, 201.0))
    views = WEIGHT_BOMBS["shared_half"]
    assert bomb_fault("shared_half", views, Reading("", 0.1, 60.0)) is None
    assert "refused" in bomb_fault("shared_half", views, Reading("refused", 0.1, 60.0))
