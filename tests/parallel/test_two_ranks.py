"""Two ranks do what one does: training in stages 0, 1 and 2 of ZeRO, and inference."""

import importlib.util
import json
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from mg.data.latent_files import read_latent
from mg.data.video import VideoReader
from mg.data.video_writer import write_video
from mg.parallel.ranks import ONE_RANK
from mg.parameters import set_values

PROGRAM = Path(__file__).parent / "programs" / "together.py"
LIMIT = 1e-6


@pytest.fixture(scope="module")
def together():
    """Return the program as a module."""
    spec = importlib.util.spec_from_file_location("together", PROGRAM)
    module = sys.modules["together"] = importlib.util.module_from_spec(spec)  # to be compiled
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Return a folder with three videos of 24x32 pixels: a.mp4, b.mp4, sub/a.mp4."""
    folder = tmp_path_factory.mktemp("videos")
    for number, (name, length) in enumerate((("a.mp4", 20), ("b.mp4", 13), ("sub/a.mp4", 9))):
        rng = np.random.default_rng(number)
        small = rng.integers(0, 255, (length, 6, 8, 3), np.uint8)
        write_video(folder / name, small.repeat(4, 1).repeat(4, 2), fps=25, lossless=True)
    return folder


@pytest.fixture(scope="module")
def two(videos, run_limited, free_port, tmp_path_factory):
    """Return the folder in which two ranks, started by msrun, have left their results."""
    folder, logs = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("logs")
    # fmt: off
    command = [
        "msrun", "--worker_num=2", "--local_worker_num=2", f"--master_port={free_port}",
        "--join=True", f"--log_dir={logs}", PROGRAM, folder, videos,
    ]
    # fmt: on
    code, output = run_limited(command, seconds=400, log_folder=logs)
    assert code == 0, output
    return folder


@pytest.fixture(scope="module")
def one(together, videos, tmp_path_factory):
    """Return the folder with the results of one rank, here in this process."""
    folder = tmp_path_factory.mktemp("one")
    before = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE)
    for kind in together.KINDS:
        together.train_kind(ONE_RANK, folder, kind)
    together.infer(ONE_RANK, folder, videos)
    ms.set_context(mode=before)
    return folder


def load(path):
    return dict(np.load(path)) if path.suffix == ".npz" else json.loads(path.read_text())


def largest_difference(first, second):
    assert first.keys() == second.keys()
    return max(float(np.abs(first[name] - second[name]).max()) for name in first)


@pytest.mark.parametrize("kind", ["whole", "zero1", "zero2"])
def test_two_ranks_train_like_one_with_twice_the_batch(kind, one, two):
    expected = load(one / "whole_0.json")["log"]
    for rank in (0, 1):
        facts = load(two / f"{kind}_{rank}.json")
        np.testing.assert_allclose(facts["log"], expected, rtol=LIMIT)
        assert facts["spread"] == 0  # the ranks' weights are equal bit for bit
        assert facts["change_by_nan"] == 0  # both skip a step that is bad on one of them
    weights = load(two / f"{kind}_weights.npz")
    assert largest_difference(weights, load(one / "whole_weights.npz")) < LIMIT
    assert any(name.startswith("average.") for name in weights)


@pytest.mark.parametrize("kind", ["zero1", "zero2"])
def test_each_rank_holds_its_rows_only(kind, one, two):
    whole = load(one / f"{kind}_0.json")
    assert whole["num_moments"] == whole["num_gradients"] == 851
    for rank in (0, 1):
        facts = load(two / f"{kind}_{rank}.json")
        own = (851 - 27) // 2 + 27  # the last layer, of three rows, is not shared
        assert facts["num_moments"] == own
        assert facts["num_gradients"] == (own if kind == "zero2" else 851)


@pytest.mark.parametrize("kind", ["zero1", "zero2"])
def test_state_of_two_ranks_goes_on_like_that_of_one(kind, together, one, two, graph_mode):
    """Three more updates: on two ranks from the saved state, and on one rank from that of two."""
    unbroken = load(one / f"{kind}_resumed_weights.npz")
    assert largest_difference(load(two / f"{kind}_resumed_weights.npz"), unbroken) < LIMIT
    state = load(two / f"{kind}_state.npz")
    assert largest_difference(state, load(one / f"{kind}_state.npz")) < LIMIT
    if kind == "zero2":  # the same state: once is enough
        return
    step = together.make_step(ONE_RANK, zero_stage=0)
    saved = {**state, **load(two / "zero1_weights.npz")}
    for parameter in step.parameters:
        set_values(parameter, saved[parameter.name])
    shapes = {name for name in step.state_shapes() if name != "num_averaged"}
    assert shapes | {p.name for p in step.parameters} == saved.keys()
    step.load_state({**saved, "num_averaged": np.float32(together.NUM_UPDATES)})
    together.train(step, ONE_RANK, together.NUM_UPDATES)
    assert largest_difference(together.weights(step), unbroken) < LIMIT


def test_two_ranks_tell_each_other(two):
    for rank in (0, 1):
        facts = load(two / f"facts_{rank}.json")
        assert facts["ranks"] == [{"rank": 0, "text": ""}, {"rank": 1, "text": "é"}]
        assert facts["any"] == [True, False]


@pytest.mark.parametrize(("name", "clips"), [("three", ["a", "b", "sub/a"]), ("one", ["a"])])
def test_two_ranks_encode_and_decode_what_one_does(name, clips, one, two):
    for clip in clips:
        first, second = (
            read_latent(folder / name / "latents" / f"{clip}.safetensors") for folder in (one, two)
        )
        assert first.info.num_frames == second.info.num_frames
        np.testing.assert_array_equal(first.mean, second.mean)
        np.testing.assert_array_equal(first.logvar, second.logvar)
        paths = [folder / name / "videos" / f"{clip}.mp4" for folder in (one, two)]
        frames = []
        for path in paths:
            with VideoReader(path) as reader:
                frames.append(reader.read(range(first.info.num_frames)))
        np.testing.assert_array_equal(*frames)


def test_tiles_of_one_tensor_computed_on_two_ranks_are_the_same_on_each(one, two):
    alone = load(one / "tiled_0.npz")
    for rank in (0, 1):
        assert largest_difference(load(two / f"tiled_{rank}.npz"), alone) == 0
    assert alone["video"].shape == (2, 3, 22, 24, 40)


def test_the_work_is_shared(one, two):
    """Three files: two on rank 0, one on rank 1. One file: every second tile on each rank."""
    alone = load(one / "infer_0.json")
    facts = [load(two / f"infer_{rank}.json") for rank in (0, 1)]
    for name in ("three", "one"):
        assert facts[0][name] == facts[1][name] == alone[name]  # the merged outcome, on each rank
        tiles = np.array([part["tiles"][name] for part in facts])
        assert tiles.min() > 0 and tiles.sum(axis=0).tolist() == alone["tiles"][name]
    tiles = np.array([part["tiles"]["one"] for part in facts])
    assert np.abs(tiles[0] - tiles[1]).max() <= 1


def test_two_ranks_write_one_report(one, two):
    first, second = (load(folder / "reconstruction" / "report.json") for folder in (one, two))
    assert first["num_clips"] == 3 and first == second
