"""Folders of every layout: what is found, what is followed, what is counted as passed over."""

import os
import shutil
from pathlib import Path

import pytest

from mg.data.captions import read_captions
from mg.data.folder_scan import FolderScan
from mg.data.manifest import build_manifest

MEDIA = Path(__file__).parents[1] / "fixtures" / "media"


def names_of(**settings):
    return [clip.name for clip in build_manifest(**settings, probe_seconds_limit=None).clips]


def test_every_input_of_a_folder_is_found_or_counted():
    manifest = build_manifest(video_folder=MEDIA)
    assert {clip.name: clip.num_frames for clip in manifest.clips} == {
        "animated.webp": 11,
        "camera.wmv": 8,
        "gray16.png": 1,
        "hflip.mp4": 20,
        "plain.mp4": 20,
        "sar_2_1.mp4": 20,
        "two_streams.mov": 20,
    }
    assert manifest.rejected == ()
    assert manifest.passed_over == ((".csv", 2),)
    assert manifest.table().endswith(
        "7 usable (100 frames), 0 left out; 1 with pixels 2:1, made square; "
        "1 with variable frame rate; 1 with video stream 2 of 2; "
        "passed over: 2 without video or image (2 .csv)"
    )
    assert "128x48  25 fps  (pixels 2:1, made square)\n" in manifest.table()


def test_files_of_any_name_are_found_by_their_content(tmp_path):
    names = ["a.camera", "b", "c.MOV", "d.txt"]
    for name in names:
        shutil.copy(MEDIA / "plain.mp4", tmp_path / name)
    (tmp_path / "notes.txt").write_text("words")
    (tmp_path / "model.safetensors").write_bytes(bytes(range(256)) * 64)
    (tmp_path / "empty").touch()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden.mp4").touch()
    manifest = build_manifest(video_folder=tmp_path)
    assert [clip.name for clip in manifest.clips] == names
    assert manifest.rejected == ()
    assert dict(manifest.passed_over) == {
        ". (no suffix)": 1,
        ".safetensors": 1,
        ".txt": 1,
        "hidden files or folders": 2,
    }


@pytest.fixture
def snapshot(tmp_path):
    """Return the folder of a revision in a cache of Hugging Face; a table is part of it."""
    repository = tmp_path / "datasets--someone--clips"
    blobs, revision = repository / "blobs", repository / "snapshots" / "0123abc"
    blobs.mkdir(parents=True)
    (revision / "videos").mkdir(parents=True)
    shutil.copy(MEDIA / "plain.mp4", blobs / "aaaa")
    shutil.copy(MEDIA / "gray16.png", blobs / "bbbb")
    (blobs / "cccc").write_text('video,caption\nvideos/a.mp4,"one, two"\nb.png,three\n')
    (revision / "videos" / "a.mp4").symlink_to("../../../blobs/aaaa")
    (revision / "b.png").symlink_to("../../blobs/bbbb")
    (revision / "metadata.csv").symlink_to("../../blobs/cccc")
    return revision


def test_a_snapshot_of_hugging_face(snapshot):
    names = ["b.png", "videos/a.mp4"]
    assert names_of(video_folder=snapshot) == names
    table = snapshot / "metadata.csv"
    assert sorted(names_of(csv_path=table)) == names
    assert sorted(names_of(csv_path=table, video_folder=snapshot)) == names
    videos = read_captions(table).videos
    assert [(v.name, v.caption) for v in videos] == [
        ("videos/a.mp4", "one, two"),
        ("b.png", "three"),
    ]
    assert all(video.path.exists() for video in videos)


def test_the_whole_cache_of_hugging_face_holds_each_file_once(snapshot):
    manifest = build_manifest(video_folder=snapshot.parents[1], probe_seconds_limit=None)
    names = [clip.name for clip in manifest.clips]
    assert names == ["snapshots/0123abc/b.png", "snapshots/0123abc/videos/a.mp4"]
    assert ("files that links in the folder lead to", 2) in manifest.passed_over


def test_linked_folders_and_images_without_suffix(tmp_path):
    folder, elsewhere = tmp_path / "videos", tmp_path / "elsewhere"
    (elsewhere / "sub").mkdir(parents=True)
    folder.mkdir()
    shutil.copy(MEDIA / "plain.mp4", elsewhere / "sub" / "a.mp4")
    shutil.copy(MEDIA / "gray16.png", elsewhere / "hash")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "image").symlink_to(elsewhere / "hash")
    names = ["image", "linked/hash", "linked/sub/a.mp4"]
    assert names_of(video_folder=folder) == names
    table = folder / "t.csv"
    table.write_text("video\n" + "\n".join(names) + "\n")
    assert names_of(csv_path=table) == names
    clips = build_manifest(video_folder=folder, min_frames=5, keep_images=True).clips
    assert [clip.name for clip in clips] == names  # a still stays whatever it is called


def test_circles_of_links_end(tmp_path):
    folder = tmp_path / "videos"
    (folder / "sub").mkdir(parents=True)
    shutil.copy(MEDIA / "plain.mp4", folder / "sub" / "a.mp4")
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "again").symlink_to(folder / "sub")
    (folder / "self").symlink_to(folder / "self")
    scan = FolderScan(folder)
    assert scan.names == ["self", "sub/a.mp4"]
    assert scan.passed_over == {"links to folders that are read already": 2}


def test_links_upon_links_do_not_multiply(tmp_path):
    for level in range(30):  # 2**30 ways to the last of them
        (tmp_path / f"level{level}").mkdir()
        for name in ("x", "y"):
            (tmp_path / f"level{level}" / name).symlink_to(tmp_path / f"level{level + 1}")
    (tmp_path / "level30").mkdir()
    shutil.copy(MEDIA / "plain.mp4", tmp_path / "level30" / "a.mp4")
    scan = FolderScan(tmp_path / "level0")
    assert len(scan.names) == 1
    assert scan.passed_over == {"links to folders that are read already": 30}


def test_folders_that_may_not_be_read_are_counted(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def scandir_as_a_user(path):
        if str(path).endswith("closed"):
            raise PermissionError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scandir_as_a_user)
    assert FolderScan(tmp_path).passed_over == {"folders that may not be read": 1}


NAME = "caf\u00e9.mp4"  # composed (NFC)
DECOMPOSED = "cafe\u0301.mp4"


@pytest.mark.parametrize(("on_disk", "in_table"), [(NAME, DECOMPOSED), (DECOMPOSED, NAME)])
@pytest.mark.parametrize("suffix", [".mp4", ""])
def test_composed_and_decomposed_names_match(tmp_path, on_disk, in_table, suffix):
    folder = tmp_path / on_disk.removesuffix(".mp4")
    folder.mkdir()
    shutil.copy(MEDIA / "plain.mp4", folder / on_disk)
    in_table = f"{in_table.removesuffix('.mp4')}/{in_table.removesuffix('.mp4')}{suffix}"
    (tmp_path / "t.csv").write_text(f"video,caption\n{in_table},one\n", encoding="utf-8")
    assert names_of(csv_path=tmp_path / "t.csv") == [f"{folder.name}/{on_disk}"]
    (video,) = read_captions(tmp_path / "t.csv").videos
    assert video.path == folder.resolve() / on_disk
    assert names_of(video_folder=tmp_path) == [f"{folder.name}/{on_disk}"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.mp4 ", "file not found; the name 'a.mp4 ' begins or ends with a blank"),
        (" a.mp4", "file not found; the name ' a.mp4' begins or ends with a blank"),
        ("sub\\a.mp4", "file not found; the name has backslashes: write folders with /, as in a/b"),
        ("b.mp4", "file not found"),
    ],
)
def test_what_may_be_wrong_with_a_name_is_told(tmp_path, name, reason):
    (tmp_path / "sub").mkdir()
    for place in (tmp_path, tmp_path / "sub"):
        shutil.copy(MEDIA / "plain.mp4", place / "a.mp4")
    (tmp_path / "t.csv").write_text(f"video\na.mp4\n{name}\n")
    manifest = build_manifest(csv_path=tmp_path / "t.csv", probe_seconds_limit=None)
    assert [clip.name for clip in manifest.clips] == ["a.mp4"]
    assert manifest.rejected[0].reason.startswith(reason)
