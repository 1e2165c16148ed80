"""A demonstration of training a denoiser, of any family, on clips that are drawn for it."""

from pathlib import Path

import numpy as np

from mg.data.video_table import write_video_table
from mg.data.video_writer import write_video
from mg.device import DeviceConfig
from mg.progress import with_progress
from mg.shapes.clips import FPS, synthetic_clip
from mg.training.denoiser.denoiser_config import SamplingSettings, TextSettings, TrainDenoiserConfig
from mg.training.run.run_log import read_log
from mg.training.settings import OptimSettings

__all__ = ["ENCODERS", "demo_training", "epoch_losses", "write_clips"]

TABLE = "captions.csv"
# HunyuanVideo has a second text input, of one token for the whole caption.
ENCODERS = {"hunyuan": ["word,max_tokens=256", "text"]}


def write_clips(
    folder: Path,
    num_videos: int,
    *,
    size: int = 64,
    num_frames: int = 16,
    overwrite: bool = False,
) -> None:
    """Write clips of shapes that move, grow, shrink or rotate, and a table of their captions.

    Args:
        folder: for all of it.
        num_videos: how many.
        size: side of the frames in pixels.
        num_frames: per clip.
        overwrite: replace what is there.

    Raises:
        FileExistsError: a file is there and `overwrite` is false.
    """
    rows = []
    for index in with_progress(range(num_videos), "drawing clips", unit="clip"):
        split = "changing" if index % 2 else "train"
        combination, frames = synthetic_clip(
            index // 2, split=split, size=size, num_frames=num_frames
        )
        name = f"{index:05d}.mp4"
        write_video(folder / name, frames, fps=FPS, overwrite=overwrite, lossless=True)
        rows.append((name, combination.caption))
    write_video_table(folder / TABLE, ("video", "caption"), rows, overwrite=overwrite)


def demo_training(
    folder: Path,
    *,
    family: str,
    tae: Path,
    steps_per_epoch: int,
    num_epochs: int,
    batch_size: int,
    lr: float,
    overwrite: bool,
    device: DeviceConfig,
) -> TrainDenoiserConfig:
    """Return the settings of the run on the clips of `write_clips(folder / "clips", ...)`.

    Args:
        folder: for everything.
        family: of the denoiser; its preset `tiny` is trained.
        tae: weights of the autoencoder.
        steps_per_epoch, num_epochs: how long.
        batch_size, lr: of the training.
        overwrite: whether a run that is there may be replaced.
        device: where it runs, and how.
    """
    steps = steps_per_epoch * num_epochs
    return TrainDenoiserConfig(
        output_path=str(folder / "run"),
        csv_path=str(folder / "clips" / TABLE),
        latent_folder=str(folder / "latents"),
        tae=str(tae),
        steps=steps,
        batch_size=batch_size,
        overwrite=overwrite,
        checkpoint_interval=steps,
        log_interval=steps_per_epoch,
        model={"family": family, "preset": "tiny"},
        text=TextSettings(encoders=ENCODERS.get(family, ["word"])),
        optim=OptimSettings(lr=lr, ema_decay=0.9),
        sampling=SamplingSettings(guidance=3.0, steps=20),
        device=device.device,
        mode=device.mode,
    )


def epoch_losses(training: TrainDenoiserConfig, num_epochs: int) -> list[float]:
    """Return the mean loss of the steps of each epoch of a finished run."""
    losses = [entry["loss"] for entry in read_log(Path(training.output_path) / "log.jsonl")]
    return [float(np.mean(part)) for part in np.array_split(losses, num_epochs)]
