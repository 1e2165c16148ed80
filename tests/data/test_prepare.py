"""Prepared clips hold the decoded frames, restart where they stopped, and never mix settings."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mg.data import manifest, prepare
from mg.data.clips import ClipConfig, ClipDataset
from mg.data.manifest import build_manifest
from mg.data.media_rules import READING_VERSION, Reading
from mg.data.prepare import open_prepared, prepare_clips
from mg.data.prepared_index import INDEX_NAME, PrepareSettings, read_index
from mg.data.transforms import resize_and_crop
from mg.data.video import iterate_frames

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def videos(tmp_path, make_video, make_frames):
    folder = tmp_path / "videos"
    (folder / "sub").mkdir(parents=True)
    make_video(folder / "a.mp4", make_frames(20, 48, 64))
    make_video(folder / "sub" / "a.mp4", make_frames(9, 64, 48))
    return folder


def run(videos, output, overwrite=False, **settings):
    settings = PrepareSettings(**{"short_side": 24, **settings})
    manifest = build_manifest(video_folder=videos)
    return prepare_clips(manifest, output, settings=settings, overwrite=overwrite)


def test_prepared_frames_are_the_scaled_decoded_frames(videos, tmp_path):
    run(videos, tmp_path / "out")
    manifest = open_prepared(tmp_path / "out")
    assert [(c.name, c.num_frames, c.height, c.width, c.fps) for c in manifest.clips] == [
        ("a.mp4.0000.npy", 20, 24, 32, 25.0),
        ("sub/a.mp4.0000.npy", 9, 32, 24, 25.0),
    ]
    frames = np.stack(list(iterate_frames(videos / "a.mp4")))
    stored = np.load(manifest.clips[0].path, allow_pickle=False)
    assert stored.dtype == np.uint8
    np.testing.assert_array_equal(stored, resize_and_crop(frames, size=(24, 32)))


def test_a_dataset_reads_prepared_clips(videos, tmp_path):
    run(videos, tmp_path / "out")
    config = ClipConfig(sample_n_frames=8, size=16)
    batch = ClipDataset(build_manifest(video_folder=tmp_path / "out"), config).batch(0, 2)
    assert batch.frames.shape == (2, 3, 8, 16, 16)
    assert sorted(batch.names) == ["a.mp4.0000.npy", "sub/a.mp4.0000.npy"]


def test_captions_and_rates_are_kept(videos, tmp_path):
    (videos / "list.csv").write_text("video,caption\na.mp4,a square\n")
    manifest = build_manifest(csv_path=videos / "list.csv")
    prepare_clips(manifest, tmp_path / "out", settings=PrepareSettings(short_side=24))
    (clip,) = open_prepared(tmp_path / "out").clips
    assert (clip.caption, clip.fps) == ("a square", 25.0)


def test_a_table_of_originals_selects_prepared_clips(videos, tmp_path):
    run(videos, tmp_path / "out", max_frames_per_clip=12)
    table = tmp_path / "list.csv"
    table.write_text("video,caption\na.mp4,a square\nabsent.mp4,\n")
    manifest = build_manifest(csv_path=table, video_folder=tmp_path / "out")
    assert [(c.name, c.caption, c.num_frames) for c in manifest.clips] == [
        ("a.mp4.0000.npy", "a square", 12),
        ("a.mp4.0001.npy", "a square", 8),
    ]
    assert [entry.name for entry in manifest.rejected] == ["absent.mp4"]


def test_small_sources_are_not_enlarged(videos, tmp_path):
    run(videos, tmp_path / "out", short_side=100)
    assert [c.height for c in open_prepared(tmp_path / "out").clips] == [48, 64]


def test_hard_cuts_become_clips_of_their_own(tmp_path, make_video):
    frames = np.zeros((30, 48, 64, 3), dtype=np.uint8)
    frames[:12], frames[12:15], frames[15:] = 20, 200, 90
    frames[15:, :, :, 0] += np.arange(15, dtype=np.uint8)[:, None, None]  # a slow change: no cut
    path = make_video(tmp_path / "cuts.mp4", frames)
    run(path, tmp_path / "whole")
    assert [c.num_frames for c in open_prepared(tmp_path / "whole").clips] == [30]
    index = run(path, tmp_path / "cut", split_scenes=True, min_frames_per_clip=5)
    pieces = index.pieces()
    assert [(p.start_frame, p.num_frames) for p in pieces] == [(0, 12), (15, 15)]
    assert index.sources["cuts.mp4"].num_dropped_frames == 3
    assert np.load(tmp_path / "cut" / pieces[1].file).mean() == pytest.approx(92, abs=3)


def test_long_clips_are_cut_into_pieces_without_loss(videos, tmp_path):
    run(videos / "a.mp4", tmp_path / "out", max_frames_per_clip=8)
    clips = open_prepared(tmp_path / "out").clips
    assert [c.num_frames for c in clips] == [8, 8, 4]
    run(videos / "a.mp4", tmp_path / "whole")
    whole = np.load(open_prepared(tmp_path / "whole").clips[0].path)
    np.testing.assert_array_equal(np.concatenate([np.load(c.path) for c in clips]), whole)


def test_an_interrupted_run_goes_on(videos, tmp_path, monkeypatch):
    decoded = []

    def stop_at_second(path, *, reading):
        decoded.append(path.parent.name)
        if len(decoded) == 2:
            raise KeyboardInterrupt
        return iterate_frames(path, reading=reading)

    monkeypatch.setattr(manifest, "iterate_frames", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        run(videos, tmp_path / "out")
    assert len(open_prepared(tmp_path / "out").clips) == 1
    run(videos, tmp_path / "out")
    assert decoded == ["videos", "sub", "sub"]
    assert len(open_prepared(tmp_path / "out").clips) == 2


def test_a_full_disk_leaves_the_finished_clips_only(videos, tmp_path, monkeypatch):
    save = np.save

    def full_after_first(path, frames, **settings):
        if "sub" in str(path):
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(path, frames, **settings)

    monkeypatch.setattr(prepare.np, "save", full_after_first)
    with pytest.raises(OSError, match="No space left"):
        run(videos, tmp_path / "out")
    files = sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert files == ["a.mp4.0000.npy", INDEX_NAME]


def test_other_settings_need_permission(videos, tmp_path):
    run(videos, tmp_path / "out")
    with pytest.raises(FileExistsError, match="other settings"):
        run(videos, tmp_path / "out", short_side=16)
    run(videos, tmp_path / "out", short_side=16, overwrite=True)
    assert [c.height for c in open_prepared(tmp_path / "out").clips] == [16, 21]


def test_a_changed_source_needs_permission(videos, tmp_path, make_video, make_frames):
    run(videos, tmp_path / "out")
    make_video(videos / "a.mp4", make_frames(30, 48, 64))
    with pytest.raises(FileExistsError, match="has changed"):
        run(videos, tmp_path / "out")
    run(videos, tmp_path / "out", overwrite=True)
    assert open_prepared(tmp_path / "out").clips[0].num_frames == 30


def test_a_source_damaged_inside_is_listed(tmp_path, videos, make_video, make_frames):
    path = make_video(videos / "b.mp4", make_frames(60, 48, 64), options={"g": "12", "bf": "0"})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle - 300 : middle + 300] = bytes(600)
    path.write_bytes(data)
    run(videos, tmp_path / "out")
    manifest = open_prepared(tmp_path / "out")
    assert len(manifest.clips) == 2
    assert [entry.name for entry in manifest.rejected] == ["b.mp4"]
    assert "damaged" in manifest.rejected[0].reason or "decod" in manifest.rejected[0].reason


def test_a_folder_without_index_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a folder of prepared clips"):
        open_prepared(tmp_path)


PIECE = {"file": "a.npy", "start_frame": 0, "num_frames": 1, "height": 8, "width": 8, "fps": 1}


def index_with(piece=None, source=None, settings=None):
    """Return the text of an index of one piece, with some fields changed."""
    pieces = [{**PIECE, **(piece or {})}]
    sources = [{"name": "a", "num_bytes": 1, "mtime_ns": 1, "pieces": pieces, **(source or {})}]
    settings = {"short_side": 8, **(settings or {})}
    content = {"version": 1, "reading": READING_VERSION, "settings": settings, "sources": sources}
    return json.dumps(content)


def test_a_small_index_is_read(tmp_path):
    (tmp_path / INDEX_NAME).write_text(index_with())
    assert read_index(tmp_path).pieces()[0].file == "a.npy"


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"version": 99}',
        '{"version": 1}',
        "[" * 9999,
        index_with({"num_frames": "1"}),
        index_with({"num_frames": -1}),
        index_with({"fps": None}),
        index_with({"file": 3}),
        index_with({"file": ["a"]}),
        index_with({"caption": {}}),
        index_with(source={"pieces": 3}),
        index_with(source={"name": ["a"]}),
        index_with(source={"mtime_ns": "now"}),
        index_with(settings={"short_side": "8"}),
        index_with().replace('"fps": 1', '"fps": NaN'),
        index_with().replace('"fps": 1', '"fps": 1, "fps": 2'),
    ],
)
def test_a_damaged_index_is_refused(tmp_path, content):
    (tmp_path / INDEX_NAME).write_text(content)
    with pytest.raises(ValueError, match="cannot be read as an index"):
        read_index(tmp_path)


def test_an_index_cannot_point_outside(videos, tmp_path):
    run(videos, tmp_path / "out")
    index = tmp_path / "out" / INDEX_NAME
    content = json.loads(index.read_text())
    content["sources"][0]["pieces"][0]["file"] = "../../secret.npy"
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="leads outside"):
        open_prepared(tmp_path / "out")
    (tmp_path / "secret.npy").touch()
    content["sources"][0]["pieces"][0]["file"] = "../secret.npy"
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="leads outside"):
        run(videos, tmp_path / "out", overwrite=True, short_side=9)
    assert (tmp_path / "secret.npy").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"short_side": 4},
        {"scene_threshold": 0},
        {"min_frames_per_clip": 0},
        {"min_frames_per_clip": 9, "max_frames_per_clip": 8},
    ],
)
def test_settings_check_themselves(settings):
    with pytest.raises(ValueError, match="must"):
        PrepareSettings(**{"short_side": 24, **settings})


def call_tool(*arguments):
    return subprocess.run(
        [sys.executable, str(PROJECT / "tools" / "prepare_clips.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )


def test_the_tool_prints_a_table_and_refuses_with_an_exit_code(videos, tmp_path):
    (videos / "empty.mp4").touch()
    flags = ["--video_folder", videos, "--output_path", tmp_path / "out", "--short_side", 24]
    result = call_tool(*flags)
    assert result.returncode == 0, result.stderr
    assert "empty.mp4  left out  broken: the file is empty" in result.stdout
    assert "2 usable (29 frames)" in result.stdout
    result = call_tool(*flags, "--split_scenes")
    assert result.returncode == 1
    assert "other settings" in result.stderr
    assert "Traceback" not in result.stderr


def test_clips_of_older_rules_of_reading_are_not_used(videos, tmp_path):
    run(videos, tmp_path / "out")
    path = tmp_path / "out" / INDEX_NAME
    content = json.loads(path.read_text())
    del content["reading"]  # as before there was such a version
    path.write_text(json.dumps(content))
    words = r"the rules by which videos are read have changed .* prepare the clips again"
    with pytest.raises(ValueError, match=words):
        open_prepared(tmp_path / "out")
    with pytest.raises(ValueError, match=words):
        run(videos, tmp_path / "out")


def test_pixels_made_square_are_other_clips(tmp_path):
    source = Path(__file__).parents[1] / "fixtures" / "media" / "sar_2_1.mp4"
    settings = PrepareSettings(short_side=48)
    for square, width in ((True, 128), (False, 64)):
        clips = build_manifest(video_folder=source, reading=Reading(square_pixels=square))
        if not square:
            with pytest.raises(FileExistsError, match="read in another way"):
                prepare_clips(clips, tmp_path / "out", settings=settings)
        prepare_clips(clips, tmp_path / "out", settings=settings, overwrite=True)
        (clip,) = open_prepared(tmp_path / "out").clips
        assert (clip.height, clip.width) == (48, width)
