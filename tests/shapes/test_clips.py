"""Synthetic clips: the same for ever, held-out combinations even, shapes where captions say."""

import csv
import itertools
import subprocess
import sys
import zlib
from collections import Counter

import cv2
import numpy as np
import pytest

from mg.commands import make_sample_videos
from mg.data.captions import read_captions
from mg.data.contact_sheet import contact_sheet, write_contact_sheet
from mg.data.manifest import build_manifest
from mg.data.video import VideoReader
from mg.shapes.clips import (
    ALL_COLOURS,
    BACKGROUNDS,
    COLOURS,
    FPS,
    MOTIONS,
    NEW_COLOUR,
    SHAPES,
    Combination,
    captioned_clip,
    combinations,
    parse_caption,
    synthetic_clip,
)

FACTORS = ("colour", "shape", "motion")


def count(split, *names):
    """Return how often each tuple of values of these attributes comes in a split."""
    return Counter(tuple(getattr(c, name) for name in names) for c in combinations(split))


def shape_mask(frames, combination):
    """Return where (T, H, W) a pixel differs from the background at all."""
    return np.any(frames != BACKGROUNDS[combination.background], axis=-1)


def test_splits_are_disjoint_and_whole():
    train, held_out, both = (set(combinations(s)) for s in ("train", "held_out", "both"))
    assert (len(train), len(held_out), len(both)) == (168, 48, 216)
    assert train.isdisjoint(held_out) and train | held_out == both


def test_the_new_colour_is_in_splits_of_its_own():
    train, held_out = (set(combinations(s)) for s in ("new_colour", "new_colour_held_out"))
    assert (len(train), len(held_out)) == (27, 9) and train.isdisjoint(held_out)
    assert {c.colour for c in train | held_out} == {NEW_COLOUR}
    assert NEW_COLOUR not in {c.colour for c in combinations("both") + combinations("changing")}
    # Every shape and every motion is trained with it.
    assert {c.shape for c in train} == set(SHAPES) and {c.motion for c in train} == set(MOTIONS)
    combination, frames = synthetic_clip(0, split="new_colour_held_out")
    centre = frames[shape_mask(frames, combination)]
    assert np.median(centre, axis=0).tolist() == list(ALL_COLOURS[NEW_COLOUR])


def test_held_out_set_never_changes():
    captions = "\n".join(sorted(c.caption for c in combinations("held_out")))
    assert zlib.crc32(captions.encode()) == 1378903632
    assert captions.startswith("a blue circle moving up on a black background")


def test_held_out_set_is_even():
    # 16 combinations of colour, shape and motion on 3 backgrounds each.
    assert sorted(count("held_out", "colour").values()) == [6, 6, 9, 9, 9, 9]
    assert sorted(count("held_out", "shape").values()) == [15, 15, 18]
    assert set(count("held_out", "motion").values()) == {12}
    assert set(count("held_out", "background").values()) == {16}
    for pair in itertools.combinations(FACTORS, 2):
        assert max(count("held_out", *pair).values()) <= (3 if "colour" in pair else 6)


def test_every_value_and_pair_stays_in_training():
    sizes = {"colour": 6, "shape": 3, "motion": 4}
    for first, second in itertools.combinations(FACTORS, 2):
        pairs = count("train", first, second)
        assert len(pairs) == sizes[first] * sizes[second]
        assert min(pairs.values()) >= 6
    triples = count("train", *FACTORS)
    assert set(triples).isdisjoint(count("held_out", *FACTORS))


def test_captions_and_back():
    example = Combination("red", "circle", "moving left", "black")
    assert example.caption == "a red circle moving left on a black background"
    assert [parse_caption(c.caption) for c in combinations("both")] == list(combinations("both"))
    assert parse_caption("  A red circle MOVING left on a black background ") == example


@pytest.mark.parametrize(
    "caption",
    ["", "a red circle", "FPS-16 a red circle moving left on a black background", "a red circle "
     "moving left on a blue background"],
)  # fmt: skip
def test_other_sentences_are_refused(caption):
    with pytest.raises(ValueError, match="expected one like 'a red"):
        parse_caption(caption)


def test_unknown_words_are_refused():
    with pytest.raises(ValueError, match=r"colour must be one of red, .*'pink'"):
        Combination("pink", "circle", "moving left", "black")
    with pytest.raises(ValueError, match="split must be one of train, held_out, both"):
        combinations("test")


def test_clips_never_change():
    _, frames = synthetic_clip(7, seed=3)
    again, repeated = synthetic_clip(7, seed=3)
    np.testing.assert_array_equal(frames, repeated)
    assert frames.dtype == np.uint8 and frames.shape == (16, 64, 64, 3)
    assert again.caption == "a magenta square moving left on a white background"
    # Sines and roots may differ in the last bit between machines, pixels by one level.
    means = (250.2979, 226.1252, 250.2979)
    np.testing.assert_allclose(frames.mean(axis=(0, 1, 2)), means, rtol=0, atol=0.01)


def test_clips_differ_by_index_seed_and_split():
    clips = [
        synthetic_clip(k, seed=s, split=split)[1]
        for k, s, split in ((0, 0, "train"), (1, 0, "train"), (0, 1, "train"), (0, 0, "both"))
    ]
    assert all(np.any(a != b) for a, b in itertools.combinations(clips, 2))


@pytest.mark.parametrize(("split", "num"), [("train", 168), ("held_out", 48), ("both", 216)])
def test_each_combination_comes_once_per_round(split, num):
    for first in (0, num):
        shown = [
            synthetic_clip(k, split=split, size=16, num_frames=2)[0]
            for k in range(first, first + num)
        ]
        assert sorted(c.caption for c in shown) == sorted(c.caption for c in combinations(split))


@pytest.mark.parametrize("size", [64, 96])
def test_shape_stays_inside_and_moves_its_way(size):
    for index in range(72):
        combination, frames = synthetic_clip(index, seed=5, split="both", size=size)
        mask = shape_mask(frames, combination)
        border = np.ones((size, size), bool)
        border[2:-2, 2:-2] = False
        assert not mask[:, border].any()
        areas = mask.sum(axis=(1, 2))
        assert areas.max() < 1.2 * areas.min()  # nothing is cut off on the way
        centres = [np.array(np.nonzero(frame)).mean(axis=1)[::-1] for frame in mask]  # (x, y)
        way = (centres[-1] - centres[0]) / size
        along = np.dot(way, MOTIONS[combination.motion])
        assert 0.24 < along < 0.36
        np.testing.assert_allclose(
            way, along * np.array(MOTIONS[combination.motion]), rtol=0, atol=0.02
        )
        steps = np.diff(centres, axis=0) @ np.array(MOTIONS[combination.motion])
        np.testing.assert_allclose(steps, along * size / 15, rtol=0, atol=1)  # even speed


def test_colours_are_exact_inside_and_mixed_at_the_edge():
    for index in range(36):
        combination, frames = synthetic_clip(index, split="both")
        inside = cv2.erode(shape_mask(frames, combination)[0].astype(np.uint8), np.ones((5, 5)))
        shown = frames[0][inside.astype(bool)]
        assert len(shown) > 50 and np.all(shown == COLOURS[combination.colour])
        # Anti-aliased: more than the two pure colours, even of a square.
        assert len(np.unique(frames[0].reshape(-1, 3), axis=0)) >= 3


@pytest.mark.parametrize(("shape", "fill"), [("circle", 0.785), ("square", 1), ("triangle", 0.5)])
def test_shapes_fill_their_bounding_box_as_they_should(shape, fill):
    index = next(k for k in range(40) if synthetic_clip(k, size=256)[0].shape == shape)
    combination, frames = synthetic_clip(index, size=256, num_frames=2)
    mask = shape_mask(frames, combination)[0]
    rows, columns = np.nonzero(mask)
    box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    np.testing.assert_allclose(mask.sum() / box, fill, rtol=0, atol=0.03)


def test_other_sizes_and_lengths_show_the_same_scene():
    _, small = synthetic_clip(4, size=64)
    _, large = synthetic_clip(4, size=128)
    halved = np.stack([cv2.resize(f, (64, 64), interpolation=cv2.INTER_AREA) for f in large])
    assert np.abs(halved.astype(int) - small).mean() < 0.3
    _, long = synthetic_clip(4, num_frames=31)
    np.testing.assert_array_equal(long[::2], small)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"index": -1}, "index must be at least 0, not -1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"size": 8}, "size must be at least 16"),
        ({"num_frames": 1}, "num_frames must be at least 2"),
        ({"split": "all"}, "split must be one of"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        synthetic_clip(**{"index": 0, **arguments})


def test_tool_writes_exact_clips_and_captions(tmp_path):
    folder = tmp_path / "clips"
    flags = ["--output_folder", str(folder), "--num_videos", "3", "--size", "32", "--seed", "2"]
    sheet = tmp_path / "sheet.png"
    assert make_sample_videos.main([*flags, "--contact_sheet", str(sheet)]) == 0
    with open(folder / "captions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["video", "caption"] and len(rows) == 3
    manifest = build_manifest(csv_path=folder / "captions.csv", probe_seconds_limit=None)
    for index, clip in enumerate(manifest.clips):
        combination, frames = synthetic_clip(index, seed=2, size=32)
        assert (clip.caption, clip.fps) == (combination.caption, FPS)
        with VideoReader(clip.path) as reader:
            np.testing.assert_array_equal(reader.read(range(16)), frames)
    assert cv2.imread(str(sheet)).shape[2] == 3
    assert sorted(path.suffix for path in folder.iterdir()) == [".csv", ".mp4", ".mp4", ".mp4"]


def test_tool_lossy_clips_are_close(tmp_path):
    folder = tmp_path / "clips"
    flags = ["--output_folder", str(folder), "--num_videos", "2", "--split", "held_out"]
    assert make_sample_videos.main([*flags, "--lossy"]) == 0
    _, frames = synthetic_clip(1, split="held_out")
    with VideoReader(folder / "held_out_00001.mp4") as reader:
        assert np.abs(reader.read(range(16)).astype(int) - frames).mean() < 3


def test_tool_replaces_nothing_unless_asked(tmp_path, capsys):
    flags = ["--output_folder", str(tmp_path), "--num_videos", "1", "--size", "16"]
    (tmp_path / "mine.txt").write_text("mine")
    assert make_sample_videos.main(flags) == 1
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert make_sample_videos.main([*flags, "--overwrite"]) == 0
    assert make_sample_videos.main([*flags, "--overwrite"]) == 0
    assert make_sample_videos.main([*flags, "--overwrite", "--num_videos", "0"]) == 1
    assert "num_videos must be at least 1" in capsys.readouterr().err


def test_tool_draws_what_captions_say(tmp_path, capsys):
    captions = [
        "a red line rotating on a gray background",
        "A blue circle moving up on a black background",
    ]
    flags = ["--output_folder", str(tmp_path / "clips"), "--size", "16", "--num_frames", "4"]
    assert make_sample_videos.main([*flags, "--captions", *captions, "--num_videos", "3"]) == 0
    videos = read_captions(tmp_path / "clips" / "captions.csv").videos
    assert [video.caption for video in videos] == [captions[0], captions[1].lower(), captions[0]]
    clips = []
    for video in videos:
        with VideoReader(video.path) as reader:
            clips.append(reader.read(range(4)))
    assert not np.array_equal(clips[0], clips[2])  # another clip of the same caption
    np.testing.assert_array_equal(
        clips[1], captioned_clip(captions[1], 1, size=16, num_frames=4)[1]
    )
    for more, message in (
        (["--captions", "a red dog"], "is not a caption of the synthetic clips"),
        (["--table", "a.txt"], "--table a.txt: expected a name that ends in .csv or .json"),
        (["--table", "../a.csv"], "expected a name"),
    ):
        assert make_sample_videos.main([*flags, "--overwrite", *more]) == 1
        assert message in capsys.readouterr().err


def test_tool_writes_tables_of_pairs_as_json(tmp_path):
    flags = ["--output_folder", str(tmp_path), "--num_videos", "2", "--size", "16"]
    assert make_sample_videos.main([*flags, "--pairs", "--table", "pairs.json"]) == 0
    videos = read_captions(tmp_path / "pairs.json").videos
    assert [video.source for video in videos] == [f"train_0000{i}_source.mp4" for i in (0, 1)]


def test_contact_sheet_shows_frames_and_captions():
    clips = [np.full((5, 20, 30, 3), value, np.uint8) for value in (0, 255, 60)]
    sheet = contact_sheet(clips, ["first", "", "third"], num_columns=2, frame_height=20)
    # 2 rows of 20 pixels of frames and 20 of text; 2 columns of 4 frames and a pixel after each.
    assert sheet.shape == (8 + 2 * (40 + 8), 8 + 2 * (4 * 31 + 8), 3)
    assert np.all(sheet[8:28, 8:38] == 0)
    assert np.all(sheet[8:28, 140:170] == 255)
    paper = sheet[0, 0]
    text = sheet[28:48]
    assert np.any(text[:, 8:132] != paper) and np.all(text[:, 140:] == paper)


def test_contact_sheet_wraps_long_captions():
    clip = [np.zeros((2, 32, 32, 3), np.uint8)]
    short = contact_sheet(clip, ["word"])
    long = contact_sheet(clip, ["many words that need several lines\nand one more"])
    assert long.shape[1] == short.shape[1]
    assert long.shape[0] >= short.shape[0] + 2 * 16


def test_contact_sheet_refuses(tmp_path):
    clip = np.zeros((2, 16, 16, 3), np.uint8)
    with pytest.raises(ValueError, match="one caption per clip, got 2 for 1"):
        contact_sheet([clip], ["a", "b"])
    with pytest.raises(ValueError, match="at least 1"):
        contact_sheet([clip], ["a"], num_columns=0)
    with pytest.raises(ValueError, match=r"uint8 clips \(T, H, W, 3\)"):
        contact_sheet([clip.astype(np.float32)], ["a"])
    (tmp_path / "sheet.png").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"sheet\.png exists already"):
        write_contact_sheet(tmp_path / "sheet.png", [clip], ["a"])
    with pytest.raises(ValueError, match=r"a \.png or \.jpg file"):
        write_contact_sheet(tmp_path / "sheet.unknown", [clip], ["a"])


def test_nothing_imports_mindspore():
    code = (
        "import sys, mg.data.contact_sheet, mg.data.captions, mg.shapes.judge; "
        "assert 'mindspore' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
