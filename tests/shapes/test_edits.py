"""Shapes that change, and pairs for editing: what is drawn is what is said."""

import csv
import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from mg.commands import make_sample_videos
from mg.data.captions import read_captions
from mg.data.video import VideoReader
from mg.shapes.clips import ALL_SHAPES, CHANGES, combinations, parse_caption, synthetic_clip
from mg.shapes.edits import EDITED, synthetic_edit
from mg.shapes.judge import ATTRIBUTES, judge_clip

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))


def test_the_set_of_changing_shapes_has_its_own_combinations():
    changing = combinations("changing")
    assert len(set(changing)) == len(changing) == 270
    assert set(changing).isdisjoint(combinations("both"))
    assert {c.shape for c in changing} == set(ALL_SHAPES)
    assert {c.motion for c in changing} > set(CHANGES)
    assert ("circle", "rotating") not in {(c.shape, c.motion) for c in changing}
    assert [parse_caption(c.caption) for c in changing] == list(changing)
    assert parse_caption("a blue line rotating on a white background").shape == "line"
    assert not any(c.is_held_out for c in changing)


def test_every_change_is_judged_right_and_stays_inside():
    seen = set()
    for index in range(40):
        wanted, frames = synthetic_clip(index, seed=3, split="changing")
        seen.add(wanted.motion)
        assert all(judge_clip(frames).agreement(wanted).values()), wanted.caption
        for border in (frames[:, [0, -1]], frames[:, :, [0, -1]]):
            assert (border == frames[0, 0, 0]).all()
        changes = np.abs(np.diff(frames.astype(int), axis=0)).max(axis=(1, 2, 3))
        assert changes.min() > 0  # in every frame
    assert len(seen) == 7


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_an_edit_changes_one_thing_and_says_which(split):
    train, instructions = set(combinations("train")), set()
    for index in range(16):
        edit, source, target = synthetic_edit(index, seed=2, split=split)
        assert edit.edited == EDITED[index % 4]
        differing = [
            f.name
            for f in dataclasses.fields(edit.source)
            if getattr(edit.source, f.name) != getattr(edit.target, f.name)
        ]
        assert differing == [edit.edited]
        assert (edit.target in train) == (split == "train")
        begins_held_out = split == "held_out" and edit.edited == "background"
        assert (edit.source in train) != begins_held_out
        for combination, frames in ((edit.source, source), (edit.target, target)):
            assert frames.shape == (16, 64, 64, 3) and frames.dtype == np.uint8
            agreement = judge_clip(frames).agreement(combination)
            assert set(agreement) == set(ATTRIBUTES) and all(agreement.values()), edit
        if edit.edited == "colour":  # the same way, to the pixel
            moves = [np.any(f != f[0, 0, 0], axis=-1) for f in (source, target)]
            np.testing.assert_array_equal(*moves)
        instructions.add(edit.instruction)
    starts = ("make it ", "turn it into a ", "move it ", "put it on a ")
    assert {next(s for s in starts if i.startswith(s)) for i in instructions} == set(starts)


def test_pairs_are_fixed_by_their_number():
    first = synthetic_edit(7, seed=1, size=32, num_frames=4)
    again = synthetic_edit(7, seed=1, size=32, num_frames=4)
    other = synthetic_edit(11, seed=1, size=32, num_frames=4)
    assert first[0] == again[0] != other[0]
    for one, two in zip(first[1:], again[1:], strict=True):
        np.testing.assert_array_equal(one, two)
    for wrong in ({"split": "both"}, {"index": -1}, {"size": 8}, {"num_frames": 1}):
        with pytest.raises(ValueError, match="must be"):
            synthetic_edit(**({"index": 0} | wrong))


def test_the_tool_writes_pairs_as_a_table(tmp_path):
    flags = ["--output_folder", str(tmp_path / "edits"), "--num_videos", "4", "--size", "32"]
    flags += ["--num_frames", "4", "--pairs", "--contact_sheet", str(tmp_path / "sheet.png")]
    assert make_sample_videos.main(flags) == 0
    table = tmp_path / "edits" / "captions.csv"
    with open(table, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["source"] for row in rows] == [f"train_0000{n}_source.mp4" for n in range(4)]
    videos = read_captions(table).videos
    assert [video.source for video in videos] == [row["source"] for row in rows]
    for number, video in enumerate(videos):
        edit, source, target = synthetic_edit(number, size=32, num_frames=4)
        assert video.caption == edit.instruction
        for path, frames in ((video.path, target), (table.parent / video.source, source)):
            with VideoReader(path) as reader:
                np.testing.assert_array_equal(reader.read(range(4)), frames)
    assert make_sample_videos.main([*flags, "--overwrite", "--split", "changing"]) == 1


def test_all_instructions_fit_the_encoder_of_words():
    from mg.conditions.text.build import build_text_encoder

    texts = {synthetic_edit(i, size=16, num_frames=2)[0].instruction for i in range(200)}
    build_text_encoder("word").check_lengths(sorted(texts))
    assert len(texts) == 6 + 3 + 4 + 3  # one for each word of the grammar
