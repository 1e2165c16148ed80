"""Written videos come back; failures leave nothing behind."""

import os
import subprocess
import sys

import numpy as np
import pytest

from mg.data.video import VideoReader, probe_video
from mg.data.video_writer import VideoWriter, write_video


def read_all(path):
    with VideoReader(path) as reader:
        return reader.read(range(reader.info.num_frames)), reader.info


def smooth_frames(num_frames, height, width):
    rows, columns = np.mgrid[:height, :width]
    frames = np.empty((num_frames, height, width, 3), dtype=np.uint8)
    for t in range(num_frames):
        frames[t, ..., 0] = 40 + 2 * rows + t
        frames[t, ..., 1] = 200 - columns
        frames[t, ..., 2] = 30 + rows + columns
    return frames


def test_written_frames_come_back_close(tmp_path):
    frames = smooth_frames(10, 48, 64)
    write_video(tmp_path / "v.mp4", frames, fps=24)
    result, info = read_all(tmp_path / "v.mp4")
    assert (info.num_frames, info.height, info.width) == (10, 48, 64)
    assert info.fps == pytest.approx(24, rel=1e-6)
    difference = np.abs(result.astype(int) - frames)
    assert difference.mean() < 2
    assert difference.max() <= 12


def test_flat_colours_come_back(tmp_path):
    # A wrong colour matrix or range would shift these by ten and more.
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (128, 128, 128), (255, 255, 255)]
    frames = np.stack([np.full((16, 16, 3), colour, np.uint8) for colour in colours])
    write_video(tmp_path / "v.mp4", frames, fps=5, crf=0)
    difference = np.abs(read_all(tmp_path / "v.mp4")[0].astype(int) - frames)
    assert difference.max() <= 3


@pytest.mark.parametrize("crf", [0, 18])
def test_five_rounds_keep_the_mean_of_every_channel(tmp_path, crf):
    """The quick conversions of swscale darken by more than one level of 255 in each round."""
    original = frames = smooth_frames(8, 64, 96)
    for number in range(5):
        path = tmp_path / f"{number}.mp4"
        write_video(path, frames, fps=24, crf=crf)
        frames = read_all(path)[0]
        if crf == 0:
            error = np.square(frames.astype(float) - original).mean()
            assert 10 * np.log10(255**2 / error) > 50  # dB; measured: 53.0, in every round
    shift = frames.mean(axis=(0, 1, 2)) - original.mean(axis=(0, 1, 2))
    assert np.abs(shift).max() < 0.5


WRITE = """
import sys
import numpy as np
from mg.data.video_writer import write_video

small = np.random.default_rng(0).integers(0, 255, (13, 24, 24, 3), np.uint8)
write_video(sys.argv[1], small.repeat(4, 1).repeat(4, 2), fps=25)
"""


def test_equal_frames_give_equal_files_whatever_is_in_memory(tmp_path):
    # glibc fills new memory with a byte made from MALLOC_PERTURB_: who reads it before it is set
    # gets another result in each of these processes.
    contents = set()
    for fill in ("7", "77", "200"):
        path = tmp_path / f"{fill}.mp4"
        environment = {**os.environ, "MALLOC_PERTURB_": fill}
        subprocess.run([sys.executable, "-c", WRITE, path], check=True, env=environment)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_lossless_is_bit_exact(tmp_path, make_frames):
    frames = make_frames(5, 48, 64)
    write_video(tmp_path / "v.mp4", frames, fps=25, lossless=True)
    np.testing.assert_array_equal(read_all(tmp_path / "v.mp4")[0], frames)


@pytest.mark.parametrize("size", [(33, 47), (32, 47), (33, 48), (1, 1)])
def test_odd_sizes_are_padded_by_repeating_the_edge(tmp_path, size):
    frames = smooth_frames(3, *size)
    write_video(tmp_path / "v.mp4", frames, fps=10, crf=0)
    result, info = read_all(tmp_path / "v.mp4")
    height, width = size
    assert (info.height, info.width) == (height + height % 2, width + width % 2)
    assert np.abs(result[:, :height, :width].astype(int) - frames).mean() < 2
    assert np.abs(result[:, -1].astype(int) - result[:, height - 1]).max() <= 6


@pytest.mark.parametrize("fps", [23.976, 29.97, 12.5, 60])
def test_fractional_rates(tmp_path, fps):
    write_video(tmp_path / "v.mp4", smooth_frames(20, 16, 16), fps=fps)
    assert probe_video(tmp_path / "v.mp4").fps == pytest.approx(fps, rel=1e-3)


def test_frames_and_blocks_can_be_mixed(tmp_path):
    frames = smooth_frames(6, 16, 16)
    with VideoWriter(tmp_path / "v.mp4", fps=8) as writer:
        writer.write(frames[0])
        writer.write(frames[1:6])
    assert writer.num_frames == probe_video(tmp_path / "v.mp4").num_frames == 6


def test_an_existing_file_is_kept(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="exists already"):
        write_video(path, smooth_frames(2, 16, 16), fps=8)
    assert path.read_bytes() == b"precious"
    write_video(path, smooth_frames(2, 16, 16), fps=8, overwrite=True)
    assert probe_video(path).num_frames == 2


def test_an_exception_leaves_nothing_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(b"precious")
    with (
        pytest.raises(RuntimeError, match="stop"),
        VideoWriter(path, fps=8, overwrite=True) as writer,
    ):
        writer.write(smooth_frames(2, 16, 16))
        raise RuntimeError("stop")
    assert [p.name for p in tmp_path.iterdir()] == ["v.mp4"]
    assert path.read_bytes() == b"precious"


def test_no_frames_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        write_video(tmp_path / "v.mp4", [], fps=8)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((2, 8, 8, 3), dtype=np.float32), "expected uint8"),
        (np.zeros((8, 8), dtype=np.uint8), "expected uint8"),
        (np.zeros((2, 8, 8, 4), dtype=np.uint8), "expected uint8"),
    ],
)
def test_wrong_frames_are_refused(tmp_path, frames, message):
    with pytest.raises(ValueError, match=message), VideoWriter(tmp_path / "v.mp4", fps=8) as writer:
        writer.write(frames)
    assert list(tmp_path.iterdir()) == []


def test_another_size_on_the_way_is_refused(tmp_path):
    frames = [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 16, 3), np.uint8)]
    with pytest.raises(ValueError, match=r"all frames of v\.mp4 must be"):
        write_video(tmp_path / "v.mp4", frames, fps=8)


@pytest.mark.parametrize(("fps", "crf"), [(0, 18), (-3, 18), (float("nan"), 18), (8, 52)])
def test_settings_out_of_range(tmp_path, fps, crf):
    with pytest.raises(ValueError, match="must lie in"):
        VideoWriter(tmp_path / "v.mp4", fps=fps, crf=crf)
