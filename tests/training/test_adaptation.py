"""Halves of clips for the demo, and what it shows of them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mg.commands.train_tae import TrainTAEConfig
from mg.data.animation import write_gif
from mg.data.video import VideoReader, probe_video
from mg.data.video_writer import write_video
from mg.training.autoencoder.adaptation import MAX_FRAMES, halve_clips, write_before_and_after
from mg.training.autoencoder.autoencoder_config import DataSettings, ValidationSettings


def clip(num_frames, seed=0, size=(16, 24)):
    frames = np.random.default_rng(seed).integers(0, 256, (num_frames, *size, 3))
    return frames.astype(np.uint8)


def read(path):
    with VideoReader(path) as reader:
        return reader.read(np.arange(probe_video(path).num_frames))


def config_for(folder, tmp_path, **changes):
    config = TrainTAEConfig(
        output_path=str(tmp_path / "out"),
        video_folder=str(folder),
        data=DataSettings(sample_n_frames=4, size=16),
        validation=ValidationSettings(num_frames=32, size=16),
    )
    return dataclasses.replace(config, **changes)


def test_first_halves_train_and_second_halves_are_held_out_to_the_bit(tmp_path):
    frames = {"a": clip(21), "b": clip(8, seed=1)}
    for name, pixels in frames.items():
        write_video(tmp_path / "clips" / f"{name}.mp4", pixels, fps=10, lossless=True)
    config = halve_clips(config_for(tmp_path / "clips", tmp_path))
    first, second = Path(config.video_folder), Path(config.validation.video_folder)
    assert (first, second) == (tmp_path / "out/first_half", tmp_path / "out/second_half")
    for number, (name, half) in enumerate((("a", 10), ("b", 4))):
        file = f"{number:04d}_{name}.mp4"
        np.testing.assert_array_equal(read(first / file), frames[name][:half])
        np.testing.assert_array_equal(read(second / file), frames[name][half : 2 * half])
    assert config.validation.num_frames == 4  # the shortest second half
    assert halve_clips(config_for(tmp_path / "clips", tmp_path)) == config  # as resuming does


def test_of_a_long_clip_the_beginning_counts(tmp_path):
    write_video(tmp_path / "long.mp4", clip(MAX_FRAMES + 30), fps=10)
    config = halve_clips(config_for(tmp_path / "long.mp4", tmp_path))
    (half,) = Path(config.video_folder).iterdir()
    assert probe_video(half).num_frames == MAX_FRAMES // 2
    assert config.validation.num_frames == 32


def test_clips_that_are_too_short_are_refused(tmp_path):
    write_video(tmp_path / "short.mp4", clip(7), fps=10)
    with pytest.raises(ValueError, match=r"short\.mp4.*8"):
        halve_clips(config_for(tmp_path / "short.mp4", tmp_path))


def test_the_animation_has_original_before_and_after(tmp_path):
    original, before, after = (np.full((6, 32, 32, 3), level, np.uint8) for level in (0, 128, 255))
    for step, right in ((0, before), (12, after)):
        both = np.concatenate([original, right], axis=2)
        write_video(tmp_path / f"step_{step:08d}.mp4", both, fps=10)
    write_before_and_after(tmp_path, tmp_path / "a.gif", last_step=12)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames >= 1 and image.width == 3 * 192 and image.height > 192
        pixels = np.asarray(image.convert("RGB")).astype(int)
    for column, level in enumerate((0, 128, 255)):
        part = pixels[:192, 192 * column + 8 : 192 * (column + 1) - 8]
        assert np.abs(part - level).max() <= 6  # the video's and the palette's rounding
    assert np.abs(np.diff(pixels[193:].reshape(-1, 3), axis=0)).max() > 50  # the captions


def test_a_gif_keeps_its_frames_and_its_speed(tmp_path):
    frames = [np.full((8, 12, 3), 40 * t, np.uint8) for t in range(5)]
    write_gif(tmp_path / "a.gif", frames, fps=12.5)
    with Image.open(tmp_path / "a.gif") as image:
        assert (image.n_frames, image.size, image.info["loop"]) == (5, (12, 8), 0)
        for number, frame in enumerate(frames):
            image.seek(number)
            assert image.info["duration"] == 80
            assert np.abs(np.asarray(image.convert("RGB")).astype(int) - frame).max() <= 4
    with pytest.raises(FileExistsError):
        write_gif(tmp_path / "a.gif", frames, fps=12.5)
    for wrong in ([], [frames[0], frames[0][:4]], [frames[0].astype(float)]):
        with pytest.raises(ValueError, match="expected uint8 frames"):
            write_gif(tmp_path / "b.gif", wrong, fps=12.5)
