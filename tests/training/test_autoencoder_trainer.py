"""A whole run on a tiny network: what it trains, writes, resumes and refuses."""

import dataclasses
import re
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mg.cli import parse_config
from mg.commands.train_tae import TrainTAEConfig
from mg.data.clips import ClipBatch
from mg.data.video import probe_video
from mg.models.tae.tae import TemporalAutoencoder
from mg.training.autoencoder.autoencoder_trainer import AutoencoderTrainer
from mg.training.run.checkpoint_store import CheckpointStore
from mg.training.run.run_log import read_log
from mg.training.settings import ValidationSettings
from mg.weights.checkpoint_file import read_weights

pytestmark = pytest.mark.usefixtures("in_graph_mode")


# -- what a run does -------------------------------------------------------------------------------


def test_training_moves_weights_and_keeps_their_names(finished_run):
    trainer, start = finished_run.trainer, finished_run.start
    after = trainer.task.autoencoder.tensors()
    assert list(after) == list(start)
    assert [p.name for p in trainer.task.autoencoder.get_parameters()] == list(start)
    moved = [name for name in start if not np.array_equal(start[name], after[name])]
    assert len(moved) > 0.9 * len(start) - 4


def test_frozen_parameters_are_bit_equal(finished_run):
    start = finished_run.start
    frozen = [name for name in start if "decoder.norm_out" in name or "encoder.conv_in" in name]
    final = finished_run.trainer.task.autoencoder.tensors()
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
    label = finished_run.trainer.task.validation.protocol.label()
    assert re.fullmatch(r"validation v1 [0-9a-f]{12}", label)
    assert all(entry["protocol"] == label for entry in entries)
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
    after = trainer.task.autoencoder.tensors()
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
        AutoencoderTrainer(make_config(output))
    assert sorted(output.rglob("*")) == before


def test_overwriting_forgets_the_older_run(make_config, tmp_path, monkeypatch):
    """Checkpoints of a longer, replaced run must not be resumed or push out the new ones."""
    output = tmp_path / "out"
    store = CheckpointStore(output / "checkpoints", keep=2)
    store.save(9999, tensors={}, documents={"progress": {}})
    (output / "config.yaml").write_text("steps: 9999\n")
    trainer = AutoencoderTrainer(make_config(output, overwrite=True))
    monkeypatch.setattr(trainer, "validate", lambda: None)
    monkeypatch.setattr(trainer, "_train", lambda: None)  # no step is needed for this
    trainer.run()
    assert store.steps() == [0]


def test_crops_may_be_oblong(make_config, tmp_path, pynative_mode):
    config = make_config(tmp_path / "out", data={"size": (16, 24)}, steps=2)
    trainer = AutoencoderTrainer(config)
    clip, _ = trainer.task.dataset.sample(0, 0)
    assert clip.shape[1:3] == (16, 24)
    assert trainer.run() is not None and trainer.step == 2


# -- settings that no run can start from -----------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze": ["decodr.*"]}, r"no parameter matches 'decodr\.\*'"),
        ({"freeze": ["*"]}, "leave no parameter to train"),
        ({"data": {"size": 15}}, r"data\.size=15.*multiple of 2"),
        ({"dtype": "bfloat16"}, "bfloat16.*CPU"),
        ({"data": {"sample_n_frames": 100}}, "too short: 12 frames, 100 needed"),
        ({"data": {"mixed_image_ratio": 0.2}}, "has no effect"),
    ],
)
def test_settings_that_cannot_work_are_refused(make_config, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        AutoencoderTrainer(make_config(tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_missing_lpips_weights_say_how_to_get_them(make_config, tmp_path, monkeypatch):
    monkeypatch.setenv("MG_CACHE", str(tmp_path / "empty"))
    config = make_config(tmp_path / "out", loss={"perceptual_loss_weight": 1.0})
    with pytest.raises(FileNotFoundError, match="mg fetch-lpips"):
        AutoencoderTrainer(config)
    # Without the term no file is looked for.
    without = make_config(tmp_path / "out")
    assert without.loss.perceptual_loss_weight == 0
    assert AutoencoderTrainer(without).task.perceptual is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video_folder": "nowhere"}, "no such video folder or file: nowhere"),
        ({"csv_path": "nowhere.csv"}, "no such CSV file: nowhere.csv"),
        ({"pretrained": "nope.safetensors"}, "weights not found: nope.safetensors"),
        ({"loss": {"perceptual_loss_weight": 1.0}}, "mg fetch-lpips"),
        (
            {"validation": ValidationSettings(video_folder="nowhere")},
            "validation: no such video folder or file: nowhere",
        ),
    ],
)
def test_what_is_missing_is_told_before_videos_are_probed(
    make_config, tmp_path, monkeypatch, changes, message
):
    def probe(**_):
        raise AssertionError("videos were probed")

    monkeypatch.setenv("MG_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("mg.training.autoencoder.autoencoder_task.build_manifest", probe)
    config = make_config(tmp_path / "out")
    if "loss" in changes:
        config = make_config(tmp_path / "out", **changes)
    else:
        config = dataclasses.replace(config, **changes)
    with pytest.raises(FileNotFoundError, match=message):
        AutoencoderTrainer(config)


def test_held_out_clips_that_are_trained_on_are_told(make_config, videos, tmp_path, caplog):
    config = make_config(tmp_path / "out")
    settings = dataclasses.replace(config.validation, video_folder=str(videos / "train"))
    AutoencoderTrainer(dataclasses.replace(config, validation=settings))
    assert "2 of 2 held-out clips are trained on too, such as a.mp4" in caplog.text
    caplog.clear()
    AutoencoderTrainer(config)
    assert "trained on too" not in caplog.text


def test_training_starts_from_pretrained_weights_and_their_config(
    finished_run, make_config, tmp_path
):
    trainer = AutoencoderTrainer(
        make_config(tmp_path / "out", model=None, pretrained=str(finished_run.final))
    )
    assert trainer.task.autoencoder.config == finished_run.trainer.task.autoencoder.config
    expected = read_weights(finished_run.final)
    assert all(
        np.array_equal(expected[n], v) for n, v in trainer.task.autoencoder.tensors().items()
    )


def test_noise_and_frames_are_fixed_by_seed_and_number(finished_run, monkeypatch):
    trainer = finished_run.trainer
    batch = ClipBatch(np.zeros((2, 3, 5, 16, 16), np.float32), ("a", "b"))
    video, noise, indices = trainer.task.inputs(7, batch)
    assert isinstance(video, Tensor) and video.dtype == ms.float32
    assert noise.shape == (2, 4, 3, 8, 8)  # ceil(5 / 2) frames
    assert indices.asnumpy().tolist() == [0, 1, 2, 3, 4]
    again, other = trainer.task.inputs(7, batch)[1], trainer.task.inputs(8, batch)[1]
    assert np.array_equal(noise.asnumpy(), again.asnumpy())
    assert abs(np.corrcoef(noise.asnumpy().ravel(), other.asnumpy().ravel())[0, 1]) < 0.1
    assert Path(trainer.config.output_path).is_dir()
