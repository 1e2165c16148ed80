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
from mg.training import tae_trainer
from mg.training.checkpoint import Progress
from mg.training.config import TrainTAEConfig
from mg.training.run_log import read_log
from mg.training.tae_trainer import TAETrainer
from mg.weights.checkpoint_file import read_weights

pytestmark = pytest.mark.usefixtures("in_graph_mode")


# -- what a run does -------------------------------------------------------------------------------


def test_training_moves_weights_and_keeps_their_names(finished_run):
    trainer, start = finished_run.trainer, finished_run.start
    after = trainer.tae.tensors()
    assert list(after) == list(start)
    assert [p.name for p in trainer.tae.get_parameters()] == list(start)
    moved = [name for name in start if not np.array_equal(start[name], after[name])]
    assert len(moved) > 0.9 * len(start) - 4


def test_frozen_parameters_are_bit_equal(finished_run):
    start = finished_run.start
    frozen = [name for name in start if "decoder.norm_out" in name or "encoder.conv_in" in name]
    final = finished_run.trainer.tae.tensors()
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
    averages = trainer.step_cell.average.average
    assert len(averages) > 40
    for mean in averages:
        name = mean.name.removeprefix("average.")
        assert np.array_equal(tensors[name], mean.asnumpy()), name
    # The trained weights are back in their place afterwards.
    trained = read_weights(trainer.output / "checkpoints" / "step_00000004" / "tae.safetensors")
    after = trainer.tae.tensors()
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
    old = output / "checkpoints" / "step_00009999"
    old.mkdir(parents=True)
    (old / "progress.json").write_text("{}")
    (output / "config.yaml").write_text("steps: 9999\n")
    trainer = TAETrainer(make_config(output, overwrite=True))
    monkeypatch.setattr(trainer, "validate", lambda step: None)
    monkeypatch.setattr(trainer, "_train", lambda log: None)  # no step is needed for this
    trainer.run()
    assert [path.name for path in (output / "checkpoints").iterdir()] == ["step_00000000"]


def test_a_full_disk_ends_the_run_and_keeps_the_older_checkpoint(
    finished_run, monkeypatch, tmp_path
):
    from mg.training import checkpoint

    trainer = finished_run.trainer
    shutil.copytree(trainer.output / "checkpoints", tmp_path / "checkpoints")

    def full_disk(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_weights", full_disk)
    monkeypatch.setattr(trainer, "output", tmp_path)
    monkeypatch.setattr(trainer, "progress", Progress(step=6, loss_scale=1.0))
    with pytest.raises(OSError, match="could not save the checkpoint"):
        trainer.save()
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step_00000002", "step_00000004"]


# -- steps that go wrong ---------------------------------------------------------------------------


@pytest.fixture
def judging(finished_run, make_config, monkeypatch):
    """Return a function: (gradient norms, dtype) -> loss scales after each."""
    trainer = finished_run.trainer
    batch = Batch(np.zeros((1, 3, 1, 8, 8), np.float32), ("a.mp4",))

    def judge(norms, dtype, first_scale):
        monkeypatch.setattr(trainer, "config", make_config("unused", dtype=dtype))
        monkeypatch.setattr(trainer, "progress", Progress(step=0, loss_scale=first_scale))
        monkeypatch.setattr(trainer, "num_bad_in_row", 0)
        scales = []
        for step, norm in enumerate(norms):
            scale = trainer._judge(step, norm, [batch])
            trainer.progress = Progress(step + 1, scale, trainer.progress.num_good_steps)
            scales.append(scale)
        return scales

    return judge


def test_the_loss_scale_of_float16_halves_on_overflow_and_never_below_one(judging):
    bad = [math.inf, math.nan, 1.0, math.inf, math.inf]
    assert judging(bad, "float16", 8.0) == [4.0, 2.0, 2.0, 1.0, 1.0]
    assert judging(bad, "float32", 1.0) == [1.0] * 5


def test_the_loss_scale_doubles_after_many_good_steps_in_a_row(judging, monkeypatch):
    monkeypatch.setattr(tae_trainer, "LOSS_SCALE_GROWTH_STEPS", 3)
    norms = [1.0, 1.0, math.inf, 1.0, 1.0, 1.0, 1.0]
    assert judging(norms, "float16", 8.0) == [8.0, 8.0, 4.0, 4.0, 4.0, 8.0, 8.0]
    assert judging(norms, "float32", 1.0) == [1.0] * 7


def test_the_run_gives_up_after_many_bad_steps_in_a_row(judging):
    with pytest.raises(FloatingPointError, match=r"20 steps in a row.*a\.mp4.*Lower optim\.lr"):
        judging([math.nan] * 20, "float32", 1.0)


def test_a_bad_batch_is_skipped_and_the_loss_scale_is_logged(finished_run, monkeypatch, caplog):
    trainer = finished_run.trainer
    monkeypatch.setattr(trainer, "progress", trainer.progress)
    before = trainer.tae.tensors()
    frames = np.full((1, 3, 4, 16, 16), np.nan, np.float32)
    entry = trainer._update(4, [Batch(frames, ("nan.mp4",))])
    assert not math.isfinite(entry["grad_norm"]) and "nan.mp4" in caplog.text
    assert all(np.array_equal(before[name], value) for name, value in trainer.tae.tensors().items())


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
    assert TAETrainer(without).step_cell.loss.perceptual is None


def test_training_starts_from_pretrained_weights_and_their_config(
    finished_run, make_config, tmp_path
):
    trainer = TAETrainer(
        make_config(tmp_path / "out", model=None, pretrained=str(finished_run.final))
    )
    assert trainer.tae.config == finished_run.trainer.tae.config
    expected = read_weights(finished_run.final)
    assert all(np.array_equal(expected[n], v) for n, v in trainer.tae.tensors().items())


def test_noise_and_frames_are_fixed_by_seed_and_number(finished_run, monkeypatch):
    trainer = finished_run.trainer
    batch = Batch(np.zeros((2, 3, 5, 16, 16), np.float32), ("a", "b"))
    video, noise, indices = trainer._inputs(7, batch)
    assert isinstance(video, Tensor) and video.dtype == ms.float32
    assert noise.shape == (2, 4, 3, 8, 8)  # ceil(5 / 2) frames
    assert indices.asnumpy().tolist() == [0, 1, 2, 3, 4]
    again, other = trainer._inputs(7, batch)[1], trainer._inputs(8, batch)[1]
    assert np.array_equal(noise.asnumpy(), again.asnumpy())
    assert abs(np.corrcoef(noise.asnumpy().ravel(), other.asnumpy().ravel())[0, 1]) < 0.1
    assert Path(trainer.config.output_path).is_dir()
