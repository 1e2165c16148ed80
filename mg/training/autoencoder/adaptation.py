"""Adapting an autoencoder to clips of one's own: trained on first halves, judged by the second.

The second half of a clip resembles the first and was not trained on, so that a run of minutes
shows what training does.
"""

import dataclasses
import logging
from pathlib import Path

import numpy as np

from mg.data.animation import write_gif
from mg.data.contact_sheet import captioned
from mg.data.manifest import Manifest, build_manifest
from mg.data.transforms import resize_frame
from mg.data.video import VideoReader, probe_video
from mg.data.video_writer import write_video
from mg.training.autoencoder.autoencoder_config import TrainAutoencoderConfig

__all__ = ["halve_clips", "write_before_and_after"]

logger = logging.getLogger("mg")

# Of a longer clip the first frames only: what comes much later shows something else.
MAX_FRAMES = 96
GIF_SIDE = 192  # height of a frame in the GIF; 96 pixels are hard to see
HALVES = ("first_half", "second_half")


def halve_clips(config: TrainAutoencoderConfig) -> TrainAutoencoderConfig:
    """Return the config that trains on first halves and validates on second halves.

    The halves are written, lossless, into the folders first_half and second_half of the output
    path. Clips that are too short are left out; longer ones count with their first 96 frames.

    Args:
        config: its clips are those to halve, and its validation's clips are replaced.

    Raises:
        ValueError, FileNotFoundError: there is no clip with two halves of sample_n_frames frames.
    """
    least = (config.data.sample_n_frames - 1) * config.data.sample_stride + 1
    manifest = build_manifest(
        csv_path=config.csv_path, video_folder=config.video_folder, min_frames=2 * least
    )
    folders = [Path(config.output_path) / name for name in HALVES]
    shortest = _write_halves(manifest, folders)
    logger.info(
        "Trains on the first half of %s, and is judged by the second.",
        ", ".join(clip.name for clip in manifest.clips),
    )
    validation = dataclasses.replace(
        config.validation,
        csv_path=None,
        video_folder=str(folders[1]),
        num_frames=min(config.validation.num_frames, shortest),
    )
    return dataclasses.replace(
        config, csv_path=None, video_folder=str(folders[0]), validation=validation
    )


def _write_halves(manifest: Manifest, folders: list[Path]) -> int:
    """Write the halves of each clip; return the frames of the shortest second half."""
    lengths = []
    for number, clip in enumerate(manifest.clips):
        half = min(clip.num_frames, MAX_FRAMES) // 2
        with clip.open() as reader:
            frames = reader.read(np.arange(2 * half))
        name = f"{number:04d}_{clip.path.stem}.mp4"
        for folder, part in zip(folders, (frames[:half], frames[half:]), strict=True):
            write_video(folder / name, part, fps=clip.fps, lossless=True, overwrite=True)
        lengths.append(half)
    return min(lengths)


def write_before_and_after(validation_folder: Path, path: Path, *, last_step: int) -> None:
    """Write a GIF: original | before | after, from the videos of the first and last validation.

    Args:
        validation_folder: with the videos original | reconstruction of both validations.
        path: the GIF to write.
        last_step: number of the last validation.
    """
    videos = []
    for step in (0, last_step):
        file = validation_folder / f"step_{step:08d}.mp4"
        info = probe_video(file)
        with VideoReader(file) as reader:
            videos.append(reader.read(np.arange(info.num_frames)))
    original, before = np.split(videos[0], 2, axis=2)
    _, after = np.split(videos[1], 2, axis=2)
    columns = {"original": original, "before": before, "after": after}
    frames = [
        np.concatenate([_shown(clip[t], name) for name, clip in columns.items()], axis=1)
        for t in range(len(original))
    ]
    write_gif(path, frames, fps=info.fps, overwrite=True)


def _shown(frame: np.ndarray, name: str) -> np.ndarray:
    width = round(frame.shape[1] * GIF_SIDE / frame.shape[0])
    return captioned(resize_frame(frame, GIF_SIDE, width), name)
