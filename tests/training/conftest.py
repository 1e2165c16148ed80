"""Two small videos, and one finished training run that many tests look at."""

import contextlib
import dataclasses

import mindspore as ms
import numpy as np
import pytest

from mg.commands.train_tae import TrainTAEConfig
from mg.data.video_writer import write_video
from mg.training.autoencoder.autoencoder_config import (
    DataSettings,
    LossSettings,
    OptimSettings,
    ValidationSettings,
)
from mg.training.autoencoder.autoencoder_trainer import AutoencoderTrainer
from tests.tiny import TAE

NUM_FRAMES, SIZE = 4, 16
MODEL = TAE
FROZEN = ["decoder.norm_out.*", "encoder.conv_in.*"]


@contextlib.contextmanager
def graph_mode():
    before = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        yield
    finally:
        ms.set_context(mode=before)


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """Return a folder: train/a.mp4, train/b.mp4 (12 frames 24x32), held_out/c.mp4 (6 frames)."""
    folder = tmp_path_factory.mktemp("videos")
    for name, num_frames, speed in (
        ("train/a.mp4", 12, 4),
        ("train/b.mp4", 12, -3),
        ("held_out/c.mp4", 6, 2),
    ):
        t, y, x = np.mgrid[:num_frames, :24, :32]
        channels = [127 + 120 * np.sin((x * a + 2 * y + speed * t) / 11) for a in (1, 2, 3)]
        frames = np.stack(channels, axis=-1).astype(np.uint8)
        write_video(folder / name, frames, fps=25, lossless=True)
    return folder


@pytest.fixture(scope="session")
def make_config(videos):
    """Return a function that makes the settings of a tiny run; nested changes by section."""

    def make(output_path, *, data=None, loss=None, optim=None, **changes):
        values = {
            "model": MODEL,
            "steps": 4,
            "checkpoint_interval": 2,
            "keep_checkpoints": 2,
            "freeze": FROZEN,
            "device": "CPU",
            **changes,
        }
        clips = {"sample_n_frames": NUM_FRAMES, "size": SIZE, "num_workers": 0, **(data or {})}
        terms = {"perceptual_loss_weight": 0.0, "mse_weight": 1.0, **(loss or {})}
        adamw = {"lr": 1e-3, "warmup_steps": 1, "weight_decay": 0.1, **(optim or {})}
        return TrainTAEConfig(
            output_path=str(output_path),
            video_folder=str(videos / "train"),
            data=DataSettings(**clips),
            loss=LossSettings(**terms),
            optim=OptimSettings(**adamw),
            validation=ValidationSettings(
                video_folder=str(videos / "held_out"), interval=2, num_frames=4, size=SIZE
            ),
            **values,
        )

    return make


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A run of four steps: its trainer, its weights before the first step, its final file."""

    trainer: AutoencoderTrainer
    start: dict[str, np.ndarray]
    final: object


@pytest.fixture(scope="session")
def finished_run(make_config, tmp_path_factory):
    """Return a run of 4 steps, with checkpoints after steps 2 and 4."""
    with graph_mode():
        output = tmp_path_factory.mktemp("run") / "out"
        trainer = AutoencoderTrainer(make_config(output, trackers=["tensorboard"]))
        start = trainer.task.autoencoder.tensors()
        return FinishedRun(trainer, start, trainer.run())


@pytest.fixture
def in_graph_mode():
    """Compile networks during the test."""
    with graph_mode():
        yield
