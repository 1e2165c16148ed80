"""The training loop around a task that compiles in a moment: guards, stages, signals, resume."""

import dataclasses
import errno
import logging
import math
import os
import signal

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mg.commands.train_tae import TrainTAEConfig
from mg.data.clips import ClipDataset
from mg.data.manifest import build_manifest
from mg.parallel.ranks import ONE_RANK
from mg.training.autoencoder.autoencoder_config import (
    DataSettings,
    GuardSettings,
    OptimSettings,
    PhaseSettings,
)
from mg.training.run import checkpoint_store, run_history
from mg.training.run.checkpoint import save_final_weights
from mg.training.run.checkpoint_store import CheckpointStore
from mg.training.run.guards import NO_LIMIT
from mg.training.run.output_folder import check_output
from mg.training.run.run_log import read_log
from mg.training.stages import plan_stages
from mg.training.step import TrainStep
from mg.training.task import Task
from mg.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("in_graph_mode")


class Network(nn.Cell):
    """Two numbers per colour: the brightness of a clip, scaled and shifted."""

    def __init__(self):
        super().__init__()
        self.scale = ms.Parameter(Tensor(np.full(3, 0.5, np.float32)), name="scale")
        self.shift = ms.Parameter(Tensor(np.full(3, 0.3, np.float32)), name="shift")

    def construct(self, video):
        return self.scale * video.mean((0, 2, 3, 4)) + self.shift


class Loss(nn.Cell):
    def __init__(self, network):
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, video, noise):
        loss = ops.square(self.network(video) - 0.7 + 0.1 * noise).mean()
        return loss, (loss,), loss


class SmallTask(Task):
    """Learns a brightness; batches whose number is in `broken` are NaN."""

    def __init__(self, config, broken=()):
        self.config = config
        self.broken = set(broken)
        self.stages = plan_stages(config)
        manifest = build_manifest(video_folder=config.video_folder)
        self.dataset = ClipDataset(manifest, config.data.clip_config(), seed=config.seed)
        self.network = Network()
        self.networks = {"network": self.network}
        self.running_means = {}
        self.terms = ("term",)
        self.on_batch = lambda number: None

    def enter(self, stage):
        frozen = set(stage.phase.freeze)
        parameters = [p for p in self.network.get_parameters() if p.name not in frozen]
        step = TrainStep(Loss(self.network), self.config.optim, parameters=parameters)
        self.steps = {"network": step}

    def run_batch(self, number, batch, controls, *, is_last):
        self.on_batch(number)
        noise = np.random.default_rng((9, self.config.seed, number)).standard_normal(3)
        scalars = (controls.lr, controls.loss_scale, controls.max_norm)
        video = batch.frames * (math.nan if number in self.broken else 1.0)
        loss, terms, norm, _ = self.steps["network"](
            *(Tensor(value, ms.float32) for value in scalars),
            is_last,
            Tensor(video),
            Tensor(noise.astype(np.float32)),
        )
        numbers = {"loss": loss, "term": terms[0], "grad_norm": norm}
        return {name: float(value.asnumpy()) for name, value in numbers.items()}

    def validate(self, video_path, *, should_stop):
        moved = np.abs(self.network.shift.asnumpy() - 0.3).mean()
        psnr = 20.0 - abs(float(moved) - 0.06)  # best after about six steps
        return {"psnr": psnr, "psnr_per_clip": {"clip": psnr}}

    def export(self, folder):
        save_final_weights(folder / "network.safetensors", self.tensors()["network"], {})
        return folder / "network.safetensors"

    def next_command(self, weights):
        return f"look at {weights}"


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Leave out the drawing of curves, which takes longer than a run."""
    monkeypatch.setattr(run_history, "save_curves", lambda *arguments, **options: None)


class TaskOfTwo(SmallTask):
    """The same with a second network that learns too, on NaN where the number is in `broken`."""

    def __init__(self, config, broken=()):
        super().__init__(config)
        self.disc_broken = set(broken)
        self.discriminator = Network()
        self.networks["discriminator"] = self.discriminator

    def enter(self, stage):
        super().enter(stage)
        self.steps["discriminator"] = TrainStep(Loss(self.discriminator), self.config.optim)

    def run_batch(self, number, batch, controls, *, is_last):
        numbers = super().run_batch(number, batch, controls, is_last=is_last)
        video = batch.frames * (math.nan if number in self.disc_broken else 1.0)
        scalars = (Tensor(value, ms.float32) for value in (controls.lr, 1.0, NO_LIMIT))
        loss, _, norm, _ = self.steps["discriminator"](
            *scalars, is_last, Tensor(video), Tensor(np.zeros(3, np.float32))
        )
        own = {"disc_loss": loss, "disc_grad_norm": norm}
        return {**numbers, **{name: float(value.asnumpy()) for name, value in own.items()}}


@pytest.fixture
def make_trainer(videos, tmp_path):
    """Return a function that makes a trainer of the small task in one folder."""

    def make(*, broken=(), folder="out", kind=SmallTask, **changes):
        values = {"steps": 10, "checkpoint_interval": 2, "device": "CPU", **changes}
        config = TrainTAEConfig(
            output_path=str(tmp_path / folder),
            video_folder=str(videos / "train"),
            data=DataSettings(sample_n_frames=2, size=8, num_workers=0),
            optim=OptimSettings(lr=1e-2, ema_decay=0.9, weight_decay=0.1),
            **values,
        )
        task = kind(config, broken)
        return Trainer(config, task, ONE_RANK, validation_interval=3)

    return make


def state_of(trainer):
    step = trainer.task.steps["network"]
    return {**trainer.task.tensors()["network"], **step.state()}


def largest_difference(one, other):
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def store_of(trainer):
    return CheckpointStore(trainer.output / "checkpoints", keep=2)


# -- resume ----------------------------------------------------------------------------------------


def test_fifty_steps_in_pieces_are_those_of_an_unbroken_run(make_trainer):
    """Ended by signals after steps 7 and 23: weights, moments, averages, log: no bit differs."""
    options = {"steps": 50, "checkpoint_interval": 10}
    unbroken = make_trainer(**options)
    unbroken.run()
    for end in (7, 23, None):
        trainer = make_trainer(**options, folder="pieces", resume=end != 7)

        def stop_at(number, end=end):
            if number == end:
                signal.raise_signal(signal.SIGTERM)

        trainer.task.on_batch = stop_at
        result = trainer.run()
        assert (result is None) == (end is not None)
        if end is not None:  # the step in which the signal came is finished and saved
            assert store_of(trainer).load().step == trainer.step == end + 1
    assert largest_difference(state_of(unbroken), state_of(trainer)) == 0
    logs = [
        [(e["step"], e["loss"], e["grad_norm"]) for e in read_log(run.output / "log.jsonl")]
        for run in (unbroken, trainer)
    ]
    assert len(logs[0]) == 50 and logs[0] == logs[1]


def test_a_run_whose_minutes_are_over_ends_with_final_weights(make_trainer, caplog):
    caplog.set_level(logging.INFO, logger="mg")
    trainer = make_trainer(max_minutes=60)

    def pass_the_deadline(number):
        if number == 3:
            trainer.deadline = 0.0

    trainer.task.on_batch = pass_the_deadline
    assert trainer.run() == trainer.output / "network.safetensors"
    assert store_of(trainer).load().step == trainer.step == 4
    assert "max_minutes=60 is over; ending after step 4." in caplog.text


def test_ctrl_c_ends_the_run_with_a_checkpoint_too(make_trainer):
    trainer, before = make_trainer(), signal.getsignal(signal.SIGINT)
    trainer.task.on_batch = lambda number: number == 4 and signal.raise_signal(signal.SIGINT)
    assert trainer.run() is None
    assert store_of(trainer).load().step == 5
    assert signal.getsignal(signal.SIGINT) is before


def test_more_steps_and_another_learning_rate_are_allowed_and_said(make_trainer, caplog):
    make_trainer(steps=4).run()
    caplog.set_level(logging.INFO, "mg")
    trainer = make_trainer(steps=6, resume=True, log_interval=7)
    trainer.run()
    assert trainer.step == 6
    assert "steps: 4 -> 6" in caplog.text and "log_interval: 50 -> 7" in caplog.text


def test_a_run_killed_before_its_first_checkpoint_starts_again(make_trainer, caplog):
    trainer = make_trainer()
    trainer.output.mkdir()
    (trainer.output / "config.yaml").write_text("steps: 10\n")
    resumed = make_trainer(resume=True)
    assert resumed.step == 0 and "starting from the beginning" in caplog.text


def test_a_damaged_checkpoint_is_passed_over(make_trainer, caplog):
    make_trainer(steps=8).run()
    newest = make_trainer(steps=8, resume=True)
    path = store_of(newest).load().path / "network_state.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    trainer = make_trainer(steps=8, resume=True)
    assert trainer.step == 6 and "network_state.safetensors" in caplog.text


def test_damaged_logs_do_not_stop_a_resumed_run(make_trainer, caplog):
    output = make_trainer(steps=4).run().parent
    for name in ("log.jsonl", "validation.jsonl"):
        content = bytearray((output / name).read_bytes())
        content[20] ^= 1
        (output / name).write_bytes(content)
    make_trainer(steps=6, resume=True).run()
    for name, steps in (("log.jsonl", [1, 2, 3, 4, 5]), ("validation.jsonl", [3, 4, 6])):
        assert [entry["step"] for entry in read_log(output / name)] == steps
        assert caplog.text.count(f"{output / name}: left out damaged lines: 1.") == 1


def test_a_second_run_in_the_folder_is_refused_while_the_first_is_at_work(make_trainer):
    first, second = make_trainer(steps=3), make_trainer(steps=3)

    def start_second(number):
        if number == 1:
            with pytest.raises(ValueError, match=rf"another run, process {os.getpid()} on host"):
                second.run()
            with pytest.raises(ValueError, match=rf"another run, process {os.getpid()} on host"):
                check_output(dataclasses.replace(second.config, resume=True))

    first.task.on_batch = start_second
    assert first.run() is not None and store_of(first).load().step == 3
    check_output(dataclasses.replace(second.config, resume=True))


def test_the_newest_and_the_best_are_kept(make_trainer):
    trainer = make_trainer(steps=20)
    trainer.run()
    scores = {e["step"]: e["psnr"] for e in read_log(trainer.output / "validation.jsonl")}
    best = max(scores, key=scores.__getitem__)
    assert 0 < best < 18
    assert store_of(trainer).steps() == [best, 18, 20]


# -- steps that go wrong ---------------------------------------------------------------------------


def test_a_bad_batch_is_skipped_counted_and_listed(make_trainer):
    trainer = make_trainer(broken={5}, steps=7, checkpoint_interval=1)
    states = []
    save = trainer.save
    trainer.save = lambda **options: (states.append(state_of(trainer)), save(**options))
    trainer.run()
    assert trainer.guard.num_skipped == 1 and trainer.step == 7
    entries = read_log(trainer.output / "log.jsonl")
    assert [entry["is_applied"] for entry in entries] == [True] * 5 + [False, True]
    (listed,) = read_log(trainer.output / "bad_steps.jsonl")
    assert (listed["step"], listed["batch"]) == (5, 5) and listed["clips"][0] in ("a.mp4", "b.mp4")
    for state in states:
        assert all(np.isfinite(value).all() for value in state.values())
    # Saved after steps 0 to 5, not after the bad one, and at the end.
    assert len(states) == 7
    assert [state["num_updates.scale"] for state in states] == [0, 1, 2, 3, 4, 5, 6]


def test_many_bad_steps_in_a_row_lead_back_to_the_last_good_checkpoint(make_trainer, caplog):
    guards = GuardSettings(max_bad_steps=3, max_restores=1)
    trainer = make_trainer(broken={5, 6, 7}, guards=guards)
    trainer.run()
    entries = read_log(trainer.output / "log.jsonl")
    # Back to step 4, and on with the batches behind the bad ones.
    assert [entry["step"] for entry in entries] == list(range(10))
    assert [entry["batch"] for entry in entries] == [0, 1, 2, 3, 8, 9, 10, 11, 12, 13]
    assert all(entry["is_applied"] for entry in entries)
    assert trainer.guard.num_restores == 1 and trainer.guard.num_skipped == 3
    assert "Back to the checkpoint of step 4 (return 1 of at most 1)" in caplog.text
    assert len(read_log(trainer.output / "bad_steps.jsonl")) == 3


def test_a_return_is_repeated_exactly_by_a_resumed_run(make_trainer):
    guards = GuardSettings(max_bad_steps=3, max_restores=1)
    unbroken = make_trainer(broken={5, 6, 7}, guards=guards)
    unbroken.run()
    options = {"broken": {5, 6, 7}, "guards": guards, "folder": "pieces"}
    first = make_trainer(**options)
    first.task.on_batch = lambda number: number == 9 and signal.raise_signal(signal.SIGTERM)
    assert first.run() is None
    second = make_trainer(**options, resume=True)
    assert (second.step, second.batch_offset, second.guard.num_restores) == (6, 4, 1)
    second.run()
    assert largest_difference(state_of(unbroken), state_of(second)) == 0


def test_the_run_stops_with_a_report_after_too_many_returns(make_trainer):
    guards = GuardSettings(max_bad_steps=2, max_restores=1)
    trainer = make_trainer(broken=range(5, 100), steps=50, guards=guards)
    with pytest.raises(FloatingPointError, match=r"2 updates in a row.*after 1 return.*optim\.lr"):
        trainer.run()
    assert len(read_log(trainer.output / "bad_steps.jsonl")) == 4
    stored = store_of(trainer).load()
    assert stored.step == 4 and stored.document("progress")["num_bad_in_row"] == 0
    assert all(np.isfinite(value).all() for value in stored.tensors("network").values())


def test_an_update_of_the_discriminator_is_left_out_by_itself(make_trainer, caplog):
    trainer = make_trainer(broken={5}, kind=TaskOfTwo, steps=7)
    with caplog.at_level(logging.INFO, logger="mg"):
        trainer.run()
    entries = read_log(trainer.output / "log.jsonl")
    assert [entry["is_applied"] for entry in entries] == [True] * 7
    assert [entry["disc_is_applied"] for entry in entries] == [True] * 5 + [False, True]
    num_updates = {
        name: int(s.state()["num_updates.scale"]) for name, s in trainer.task.steps.items()
    }
    assert num_updates == {"network": 7, "discriminator": 6}
    assert (trainer.guard.num_skipped, trainer.guard.disc_num_skipped) == (0, 1)
    (listed,) = read_log(trainer.output / "bad_steps.jsonl")
    assert (listed["step"], listed["network"]) == (5, "discriminator")
    assert math.isnan(listed["loss"]) and listed["clips"]
    assert "step 5, discriminator: loss nan" in caplog.text
    assert "step 5, network" not in caplog.text
    assert "Done: 7 steps, 0 skipped (1 of the discriminator)." in caplog.text


def test_bad_updates_of_the_discriminator_lead_back_and_are_resumed_exactly(make_trainer):
    guards = GuardSettings(max_bad_steps=3, max_restores=1)
    options = {"broken": {5, 6, 7}, "guards": guards, "kind": TaskOfTwo}
    unbroken = make_trainer(**options)
    unbroken.run()
    entries = read_log(unbroken.output / "log.jsonl")
    assert [entry["batch"] for entry in entries] == [0, 1, 2, 3, 8, 9, 10, 11, 12, 13]
    assert (unbroken.guard.num_restores, unbroken.guard.disc_num_skipped) == (1, 3)
    first = make_trainer(**options, folder="pieces")
    # After two bad updates, so that the count of those in a row is carried.
    first.task.on_batch = lambda number: number == 6 and signal.raise_signal(signal.SIGTERM)
    assert first.run() is None
    second = make_trainer(**options, folder="pieces", resume=True)
    assert (second.step, second.guard.disc_num_bad_in_row) == (7, 2)
    second.run()
    assert largest_difference(state_of(unbroken), state_of(second)) == 0
    assert second.progress() == unbroken.progress()


def test_a_gradient_above_the_limit_is_left_out(make_trainer):
    trainer = make_trainer(steps=2, guards=GuardSettings(max_grad_norm=1e-6))
    start = state_of(trainer)
    trainer.run()
    assert largest_difference(start, state_of(trainer)) == 0
    assert [e["is_applied"] for e in read_log(trainer.output / "log.jsonl")] == [False, False]


def test_a_full_disk_while_saving_is_told_and_the_run_goes_on(make_trainer, monkeypatch, caplog):
    trainer = make_trainer(steps=8)
    write_weights, steps = checkpoint_store.write_weights, []

    def full_disk_at_step_4(path, *args, **kwargs):
        steps.append(trainer.step)
        if trainer.step == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_weights(path, *args, **kwargs)

    monkeypatch.setattr(checkpoint_store, "write_weights", full_disk_at_step_4)
    trainer.run()
    assert "the checkpoint was not written, the run goes on" in caplog.text
    assert 4 in steps and trainer.step == 8
    assert 4 not in store_of(trainer).steps() and store_of(trainer).load().step == 8


# -- stages ----------------------------------------------------------------------------------------


def test_frozen_parameters_stay_bit_equal_and_join_later(make_trainer):
    phases = [PhaseSettings(steps=4, freeze=["shift"]), PhaseSettings()]
    trainer = make_trainer(phases=phases, steps=8, checkpoint_interval=4)
    seen = {}
    trainer.task.on_batch = lambda number: seen.update({number: state_of(trainer)})
    trainer.run()
    assert np.array_equal(seen[0]["shift"], seen[3]["shift"])
    assert "first_moment.shift" not in seen[3]
    # The one that trained on keeps its state, the other one starts anew.
    assert seen[4]["num_updates.scale"] == 4 and seen[4]["num_updates.shift"] == 0
    assert not np.array_equal(seen[5]["shift"], seen[4]["shift"])
    resumed = make_trainer(phases=phases, steps=8, resume=True, folder="out")
    assert resumed.step == 8


def test_a_run_resumed_at_the_border_of_two_phases_is_the_unbroken_one(make_trainer):
    phases = [PhaseSettings(steps=4, freeze=["shift"]), PhaseSettings(steps=4, freeze=["scale"])]
    unbroken = make_trainer(phases=phases, steps=8)
    unbroken.run()
    first = make_trainer(phases=phases, steps=8, folder="pieces")
    first.task.on_batch = lambda number: number == 3 and signal.raise_signal(signal.SIGTERM)
    first.run()
    assert first.step == 4
    second = make_trainer(phases=phases, steps=8, folder="pieces", resume=True)
    second.run()
    assert largest_difference(state_of(unbroken), state_of(second)) == 0
