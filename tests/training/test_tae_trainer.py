"""A whole run on a tiny network: what it trains, writes, resumes and refuses."""

import errno
import math
import shutil
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mg.cli import parse_config
from mg.data.clips import Batch
from mg.data.video import probe_video
from mg.models.tae.tae import TemporalAutoencoder
from mg.training import checkpoint_store
from mg.training.checkpoint_store import CheckpointStore
from mg.training.config import GuardSettings, TrainTAEConfig
from mg.training.run_log import RunLog, read_log
from mg.training.tae_trainer import TAETrainer
from mg.weights.checkpoint_file import read_weights

pytestmark = pytest.mark.usefixtures("in_graph_mode")


# -- what a run does -------------------------------------------------------------------------------


def test_training_moves_weights_and_keeps_their_names(finished_run):
    trainer, start = finished_run.trainer, finished_run.start
    after = trainer.task.tae.tensors()
    assert list(after) == list(start)
    assert [p.name for p in trainer.task.tae.get_parameters()] == list(start)
    moved = [name for name in start if not np.array_equal(start[name], after[name])]
    assert len(moved) > 0.9 * len(start) - 4


def test_frozen_parameters_are_bit_equal(finished_run):
    start = finished_run.start
    frozen = [name for name in start if "decoder.norm_out" in name or "encoder.conv_in" in name]
    final = finished_run.trainer.task.tae.tensors()
    assert len(frozen) == 6  # two of the norm, four of the two halves of the convolution
    assert finished_run.trainer.config.optim.weight_decay > 0
    for name in frozen:
        assert np.array_equal(start[name], final[name]), name


def test_the_log_has_one_entry_per_step(finished_run):
    entries = read_log(finished_run.trainer.output / "log.jsonl")
    assert [entry["step"] for entry in entries] == [0, 1, 2, 3]
    for entry in entries:
        assert entry["loss"] == pytest.approx(
            entry["l1"] + entry["mse"] + 1e-6 * entry["kl"], rel=1e-5
        )
        assert entry["lpips"] == entry["opl"] == 0.0 and entry["grad_norm"] > 0
        assert entry["lr"] == 1e-3 and entry["num_frames"] == 4


def test_validation_writes_numbers_curves_and_side_by_side_videos(finished_run):
    output = finished_run.trainer.output
    entries = read_log(output / "validation.jsonl")
    assert [entry["step"] for entry in entries] == [0, 2, 4]
    assert all(list(entry["psnr_per_clip"]) == ["c.mp4"] for entry in entries)
    assert all(0 < entry["psnr"] < 60 for entry in entries)
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")
    for step in (0, 2, 4):
        info = probe_video(output / "validation" / f"step_{step:08d}.mp4")
        assert (info.num_frames, info.height, info.width) == (4, 16, 32)


def test_final_weights_are_the_averaged_ones_and_load_with_their_config(finished_run):
    trainer = finished_run.trainer
    loaded = TemporalAutoencoder(pretrained=finished_run.final)
    assert loaded.config == trainer.config.model
    tensors = loaded.tensors()
    averages = trainer.task.steps["tae"].average.average
    assert len(averages) > 40
    for mean in averages:
        name = mean.name.removeprefix("average.")
        assert np.array_equal(tensors[name], mean.asnumpy()), name
    # The trained weights are back in their place afterwards.
    trained = read_weights(trainer.output / "checkpoints" / "step_00000004" / "tae.safetensors")
    after = trainer.task.tae.tensors()
    assert all(np.array_equal(after[name], trained[name]) for name in after)


def test_the_saved_config_gives_an_equal_one(finished_run):
    path = finished_run.trainer.output / "config.yaml"
    parsed = parse_config(TrainTAEConfig, ["--config", str(path)], description="")
    assert parsed == finished_run.trainer.config


# -- an output folder that is in use --------------------------------------------------------------


def test_an_output_folder_with_another_run_is_refused(finished_run, make_config):
    output = finished_run.trainer.output
    before = sorted(output.rglob("*"))
    with pytest.raises(FileExistsError, match=r"holds a run already.*--resume=true"):
        TAETrainer(make_config(output))
    assert sorted(output.rglob("*")) == before


def test_overwriting_forgets_the_older_run(make_config, tmp_path, monkeypatch):
    """Checkpoints of a longer, replaced run must not be resumed or push out the new ones."""
    output = tmp_path / "out"
    store = CheckpointStore(output / "checkpoints", keep=2)
    store.save(9999, tensors={}, documents={"progress": {}})
    (output / "config.yaml").write_text("steps: 9999\n")
    trainer = TAETrainer(make_config(output, overwrite=True))
    monkeypatch.setattr(trainer, "validate", lambda: None)
    monkeypatch.setattr(trainer, "_train", lambda: None)  # no step is needed for this
    trainer.run()
    assert store.steps() == [0]


# -- steps that go wrong ---------------------------------------------------------------------------


@pytest.fixture
def broken(finished_run, make_config, tmp_path, monkeypatch):
    """Return a function that resumes the finished run for more steps, some batches being NaN."""

    def run(bad_batches, *, steps=10, **changes):
        output = tmp_path / "out"
        shutil.copytree(finished_run.trainer.output, output)
        config = make_config(output, resume=True, steps=steps, **changes)
        trainer = TAETrainer(config)
        inputs = trainer.task.inputs

        def poisoned(number, batch):
            video, *rest = inputs(number, batch)
            return (video * math.nan if number in bad_batches else video), *rest

        monkeypatch.setattr(trainer.task, "inputs", poisoned)
        return trainer

    return run


def test_a_bad_batch_is_skipped_counted_and_listed(broken):
    trainer = broken({5}, steps=7)
    states = {}

    def remember(entry):
        states[entry["step"]] = trainer.task.tae.tensors(), trainer.task.steps["tae"].state()

    write, log = RunLog.write, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunLog, "write", lambda s, e: (log.append(e), remember(e), write(s, e)))
        trainer.run()
    assert trainer.guard.num_skipped == 1 and trainer.step == 7
    entries = read_log(trainer.output / "log.jsonl")
    assert [entry["is_applied"] for entry in entries] == [True] * 5 + [False, True]
    listed = read_log(trainer.output / "bad_steps.jsonl")
    assert [(entry["step"], entry["batch"]) for entry in listed] == [(5, 5)]
    assert set(listed[0]["clips"]) <= {"a.mp4", "b.mp4"} and listed[0]["clips"]
    for before, after in zip(states[4], states[5], strict=True):
        assert all(np.array_equal(before[name], after[name]) for name in before)
    assert any(not np.array_equal(states[5][0][n], states[6][0][n]) for n in states[5][0])


def test_many_bad_steps_in_a_row_lead_back_to_the_last_good_checkpoint(broken, caplog):
    guards = GuardSettings(max_bad_steps=3, max_restores=1)
    trainer = broken({6, 7, 8}, steps=10, guards=guards, checkpoint_interval=5)
    trainer.run()
    entries = read_log(trainer.output / "log.jsonl")
    # Back to step 5, and on with the batches behind the bad ones.
    assert [entry["step"] for entry in entries] == list(range(10))
    assert [entry["batch"] for entry in entries] == [0, 1, 2, 3, 4, 9, 10, 11, 12, 13]
    assert all(entry["is_applied"] for entry in entries)
    assert trainer.guard.num_restores == 1 and trainer.guard.num_skipped == 3
    assert "Back to the checkpoint of step 5" in caplog.text
    assert len(read_log(trainer.output / "bad_steps.jsonl")) == 3


def test_the_run_stops_with_a_report_after_too_many_returns(broken):
    guards = GuardSettings(max_bad_steps=2, max_restores=1)
    trainer = broken(set(range(5, 100)), steps=50, guards=guards)
    with pytest.raises(FloatingPointError, match=r"2 updates in a row.*after 1 returns.*optim\.lr"):
        trainer.run()
    assert len(read_log(trainer.output / "bad_steps.jsonl")) == 4
    restored = CheckpointStore(trainer.output / "checkpoints", keep=2).load()
    assert restored.document("progress")["num_bad_in_row"] == 0
    assert all(np.isfinite(value).all() for value in restored.tensors("tae").values())


def test_a_gradient_above_the_limit_is_left_out(broken):
    trainer = broken(set(), steps=6, guards=GuardSettings(max_grad_norm=1e-6))
    trainer.run()
    entries = read_log(trainer.output / "log.jsonl")[4:]
    assert [entry["is_applied"] for entry in entries] == [False, False]


def test_a_full_disk_while_saving_is_told_and_the_run_goes_on(broken, monkeypatch, caplog):
    trainer = broken(set(), steps=8, checkpoint_interval=2)
    write_weights, calls = checkpoint_store.write_weights, []

    def full_disk_at_first(path, *args, **kwargs):
        calls.append(path)
        if len(calls) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_weights(path, *args, **kwargs)

    monkeypatch.setattr(checkpoint_store, "write_weights", full_disk_at_first)
    trainer.run()
    assert "the checkpoint was not written, the run goes on" in caplog.text
    assert trainer.step == 8
    store = CheckpointStore(trainer.output / "checkpoints", keep=2)
    assert 6 not in store.steps() and store.load().step == 8


# -- settings that no run can start from -----------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze": ["decodr.*"]}, r"no parameter matches 'decodr\.\*'"),
        ({"freeze": ["*"]}, "leaves no parameter to train"),
        ({"data": {"size": 15}}, r"data\.size=15.*multiple of 2"),
        ({"dtype": "bfloat16"}, "bfloat16.*CPU"),
        ({"data": {"sample_n_frames": 100}}, "too short: 12 frames, 100 needed"),
        ({"data": {"mixed_image_ratio": 0.2}}, "has no effect"),
    ],
)
def test_settings_that_cannot_work_are_refused(make_config, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        TAETrainer(make_config(tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_missing_lpips_weights_say_how_to_get_them(make_config, tmp_path, monkeypatch):
    monkeypatch.setenv("MG_CACHE", str(tmp_path / "empty"))
    config = make_config(tmp_path / "out", loss={"perceptual_loss_weight": 1.0})
    with pytest.raises(FileNotFoundError, match=r"tools/fetch_lpips\.py"):
        TAETrainer(config)
    # Without the term no file is looked for.
    without = make_config(tmp_path / "out")
    assert without.loss.perceptual_loss_weight == 0
    assert TAETrainer(without).task.perceptual is None


def test_training_starts_from_pretrained_weights_and_their_config(
    finished_run, make_config, tmp_path
):
    trainer = TAETrainer(
        make_config(tmp_path / "out", model=None, pretrained=str(finished_run.final))
    )
    assert trainer.task.tae.config == finished_run.trainer.task.tae.config
    expected = read_weights(finished_run.final)
    assert all(np.array_equal(expected[n], v) for n, v in trainer.task.tae.tensors().items())


def test_noise_and_frames_are_fixed_by_seed_and_number(finished_run, monkeypatch):
    trainer = finished_run.trainer
    batch = Batch(np.zeros((2, 3, 5, 16, 16), np.float32), ("a", "b"))
    video, noise, indices = trainer.task.inputs(7, batch)
    assert isinstance(video, Tensor) and video.dtype == ms.float32
    assert noise.shape == (2, 4, 3, 8, 8)  # ceil(5 / 2) frames
    assert indices.asnumpy().tolist() == [0, 1, 2, 3, 4]
    again, other = trainer.task.inputs(7, batch)[1], trainer.task.inputs(8, batch)[1]
    assert np.array_equal(noise.asnumpy(), again.asnumpy())
    assert abs(np.corrcoef(noise.asnumpy().ravel(), other.asnumpy().ravel())[0, 1]) < 0.1
    assert Path(trainer.config.output_path).is_dir()
