"""Exact streaming in tiles on two ranks: the outcome of one, with each tile's past on one rank."""

import importlib.util
import json
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from mg.data.latent_files import read_latent
from mg.data.video import VideoReader
from mg.data.video_writer import write_video
from mg.parallel.ranks import ONE_RANK

PROGRAM = Path(__file__).parent / "programs" / "stream_tiles.py"
LIMIT = 1e-5
# Pieces of 17 frames: 1 and 4 x 4, or 9 and 8; of their latents: 5 x 1, or 3 and 2.
NUM_PIECES = {"wan": 5, "cogvideox": 2}
families = pytest.mark.parametrize("family", NUM_PIECES)


@pytest.fixture(scope="module")
def program():
    """Return the program as a module."""
    spec = importlib.util.spec_from_file_location("stream_tiles", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def results(program, run_limited, launch_script, tmp_path_factory):
    """Return the folders with the results of one rank, made in this process, and of two."""
    one, two, logs = (tmp_path_factory.mktemp(name) for name in ("one", "two", "logs"))
    video = tmp_path_factory.mktemp("video") / "clip.mp4"
    shape = (program.NUM_FRAMES, program.HEIGHT // 4, program.WIDTH // 4, 3)
    frames = np.random.default_rng(1).integers(0, 255, shape, np.uint8)
    write_video(video, frames.repeat(4, 1).repeat(4, 2), fps=25, lossless=True)
    code, output = run_limited(launch_script(logs, PROGRAM, two, video), log_folder=logs)
    assert code == 0, output
    before = ms.get_context("mode")
    ms.runtime.launch_blocking()
    ms.set_context(mode=ms.PYNATIVE_MODE)
    program.stream(ONE_RANK, one, video)
    ms.set_context(mode=before)
    return one, two


def facts_of(folder, family, rank):
    return json.loads((folder / family / f"{rank}.json").read_text())


@families
def test_a_tensor_is_coded_as_on_one_rank(family, results):
    one, two = results
    expected = dict(np.load(one / family / "0.npz"))
    assert expected["video"].shape == (1, 3, 17, 16, 56)
    for rank in (0, 1):
        found = np.load(two / family / f"{rank}.npz")
        for name, values in expected.items():
            assert np.abs(found[name] - values).max() <= LIMIT, name


@families
def test_a_file_is_encoded_and_decoded_as_on_one_rank(family, results):
    latents = [read_latent(f / family / "latents" / "clip.safetensors") for f in results]
    assert latents[0].info.num_frames == latents[1].info.num_frames == 17
    for name in ("mean", "logvar"):
        first, second = (getattr(latent, name) for latent in latents)
        assert np.abs(first - second).max() <= LIMIT, name
    for path in ("videos/clip.mp4", "again/clips/clip.mp4"):
        videos = []
        for folder in results:
            with VideoReader(folder / family / path) as reader:
                videos.append(reader.read(range(17)))
        np.testing.assert_array_equal(*videos)
    reports = [(f / family / "again" / "report.json").read_text() for f in results]
    assert reports[0] == reports[1]


@families
def test_a_tile_stays_on_its_rank(family, results, program):
    """Tiles 0 and 2 are rank 0's in each piece and tile 1 is rank 1's: nobody sends a past."""
    one, two = results
    for job in ("files", "both"):
        for name in program.PIECES:
            assert facts_of(one, family, 0)[job][name] == 3 * NUM_PIECES[family]
            on_each = [facts_of(two, family, rank)[job][name] for rank in (0, 1)]
            assert on_each == [2 * NUM_PIECES[family], NUM_PIECES[family]]
    reports = [facts_of(two, family, rank)["report"] for rank in (0, 1)]
    assert reports[0] == reports[1] == facts_of(one, family, 0)["report"]
