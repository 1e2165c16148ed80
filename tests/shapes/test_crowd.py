"""Crowds of shapes: the same for ever, full of edges and motion, any size the same scene."""

import csv
import zlib

import numpy as np
import pytest

from mg.commands import make_sample_videos
from mg.data.video import VideoReader
from mg.shapes.clips import synthetic_clip
from mg.shapes.crowd import CROWD_CAPTION, crowd_clip

CRC_OF_FIRST = 2643408510


def share_that_changes(frames):
    """Return the share of the pixels that are not the same in the first and the last frame."""
    return np.any(frames[0] != frames[-1], axis=-1).mean()


def test_a_crowd_is_fixed_by_its_seed_and_its_number():
    first = crowd_clip(0, size=16, num_frames=4)
    assert zlib.crc32(first.tobytes()) == zlib.crc32(crowd_clip(0, size=16, num_frames=4).tobytes())
    for other in (
        crowd_clip(1, size=16, num_frames=4),
        crowd_clip(0, seed=1, size=16, num_frames=4),
    ):
        assert np.abs(first.astype(int) - other).mean() > 10


def test_a_crowd_moves_in_more_places_than_one_shape():
    crowds = np.mean([share_that_changes(crowd_clip(i, num_frames=2)) for i in range(12)])
    alone = np.mean([share_that_changes(synthetic_clip(i, num_frames=2)[1]) for i in range(12)])
    assert crowds > 0.4 and crowds > 1.5 * alone


def test_a_crowd_is_the_same_scene_at_another_size():
    small, large = crowd_clip(3, size=32, num_frames=3), crowd_clip(3, size=128, num_frames=3)
    means = large.reshape(3, 32, 4, 32, 4, 3).mean((2, 4))
    assert np.abs(means - small).mean() < 3


@pytest.mark.parametrize("wrong", [{"index": -1}, {"seed": -1}, {"size": 8}, {"num_frames": 1}])
def test_numbers_out_of_range_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        crowd_clip(**({"index": 0} | wrong))


def test_the_command_writes_crowds(tmp_path):
    folder = tmp_path / "crowds"
    flags = ["--output_folder", str(folder), "--crowd", "--num_videos", "2", "--size", "16"]
    assert make_sample_videos.main([*flags, "--num_frames", "4"]) == 0
    with open(folder / "captions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{"video": f"crowd_0000{i}.mp4", "caption": CROWD_CAPTION} for i in range(2)]
    with VideoReader(folder / rows[1]["video"]) as reader:
        frames = reader.read(range(4))
    assert np.array_equal(frames, crowd_clip(1, size=16, num_frames=4))
