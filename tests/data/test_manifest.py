"""What is usable, what is left out and why, and what stops a run."""

import shutil

import numpy as np
import pytest
from PIL import Image

from mg.data.captions import read_captions
from mg.data.manifest import build_manifest


@pytest.fixture
def mixed_folder(tmp_path, plain_video, audio_file, make_video, make_frames):
    folder = tmp_path / "videos"
    (folder / "sub").mkdir(parents=True)
    shutil.copy(plain_video, folder / "b_good.mp4")
    shutil.copy(plain_video, folder / "sub" / "a_good.MP4")
    make_video(folder / "odd.mp4", make_frames(5, 34, 50))
    (folder / "empty.mp4").touch()
    data = plain_video.read_bytes()
    (folder / "truncated.mp4").write_bytes(data[: len(data) // 2])
    shutil.copy(audio_file, folder / "sound.mp4")
    (folder / "notes.txt").write_text("not a video")
    (folder / ".hidden.mp4").touch()
    Image.fromarray(make_frames(1, 20, 30)[0]).save(folder / "image.png")
    return folder


def test_a_folder_is_searched_in_sorted_order(mixed_folder):
    manifest = build_manifest(video_folder=mixed_folder)
    names = [clip.name for clip in manifest.clips]
    assert names == ["b_good.mp4", "image.png", "odd.mp4", "sub/a_good.MP4"]
    assert [clip.num_frames for clip in manifest.clips] == [60, 1, 5, 60]
    assert (manifest.clips[2].height, manifest.clips[2].width) == (34, 50)


def test_left_out_files_come_with_their_reason(mixed_folder):
    manifest = build_manifest(video_folder=mixed_folder, min_frames=16)
    reasons = {entry.name: entry.reason for entry in manifest.rejected}
    assert sorted(reasons) == ["empty.mp4", "image.png", "odd.mp4", "sound.mp4", "truncated.mp4"]
    assert reasons["odd.mp4"] == "too short: 5 frames, 16 needed"
    assert "empty (0 bytes)" in reasons["empty.mp4"]
    assert "no video in this file" in reasons["sound.mp4"]
    assert reasons["truncated.mp4"].startswith("broken: ")
    table = manifest.table()
    assert "2 usable (120 frames), 5 left out" in table
    assert all(f"left out  {reason}" in table for reason in reasons.values())
    assert len(table.splitlines()) == 8


def test_images_stay_when_asked_for(mixed_folder):
    manifest = build_manifest(video_folder=mixed_folder, min_frames=16, keep_images=True)
    assert [clip.name for clip in manifest.clips] == ["b_good.mp4", "image.png", "sub/a_good.MP4"]


def test_a_single_file(plain_video):
    manifest = build_manifest(video_folder=plain_video)
    assert [(clip.name, clip.num_frames) for clip in manifest.clips] == [("plain.mp4", 60)]


def test_a_csv_names_the_videos_and_captions(mixed_folder, tmp_path, plain_video):
    shutil.copy(plain_video, mixed_folder / "video.dat")
    table = tmp_path / "list.csv"
    table.write_text(
        "video,caption\n"
        'sub/a_good.MP4,"a square, moving"\n'
        "video.dat,wrong extension\n"
        "notes.txt,text\n"
        "absent.mp4,\n",
        encoding="utf-8",
    )
    manifest = build_manifest(csv_path=table, video_folder=mixed_folder)
    assert [(clip.name, clip.caption) for clip in manifest.clips] == [
        ("sub/a_good.MP4", "a square, moving"),
        ("video.dat", "wrong extension"),
    ]
    reasons = {entry.name: entry.reason for entry in manifest.rejected}
    assert reasons["absent.mp4"] == "file not found"
    assert "not a video" in reasons["notes.txt"]


def test_a_csv_alone_uses_its_own_folder(clips_folder):
    train = build_manifest(csv_path=clips_folder / "train.csv")
    test = build_manifest(csv_path=clips_folder / "test.csv")
    assert [len(train.clips), len(test.clips)] == [5, 2]
    assert all(clip.caption for clip in (*train.clips, *test.clips))
    assert {clip.name for clip in test.clips} == {"test/city_b_cc0.mp4", "test/dog_ccbysa4.mp4"}
    assert not train.rejected + test.rejected


def test_a_csv_with_a_byte_order_mark(tmp_path, plain_video):
    (tmp_path / "list.csv").write_text(f"video\n{plain_video.name}\n", encoding="utf-8-sig")
    manifest = build_manifest(csv_path=tmp_path / "list.csv", video_folder=plain_video.parent)
    assert len(manifest.clips) == 1


def test_a_csv_without_the_column(tmp_path):
    (tmp_path / "list.csv").write_text("clip,text\na.mp4,b\n")
    with pytest.raises(ValueError, match=r"named 'video' .*columns found: \['clip', 'text'\]"):
        build_manifest(csv_path=tmp_path / "list.csv")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", 'Path,Text\nplain.mp4,"one, two"\n'),
        ("t.csv", 'id,description,file_name\n1,"one, two",plain\n'),
        ("t.jsonl", '{"video": "plain.mp4", "caption": "one, two"}\n'),
        ("t.json", '{"plain": "one, two"}'),
    ],
)
def test_every_table_of_captions_is_one_of_videos(tmp_path, plain_video, name, text):
    shutil.copy(plain_video, tmp_path / "plain.mp4")
    (tmp_path / name).write_text(text)
    (clip,) = build_manifest(csv_path=tmp_path / name).clips
    assert (clip.name, clip.caption, clip.num_frames) == ("plain.mp4", "one, two", 60)
    (video,) = read_captions(tmp_path / name).videos
    assert (video.path, video.caption) == (clip.path, clip.caption)


def test_an_empty_csv(tmp_path):
    (tmp_path / "list.csv").touch()
    with pytest.raises(ValueError, match="needs a column with the path of the video"):
        build_manifest(csv_path=tmp_path / "list.csv")
    (tmp_path / "list.csv").write_text("video\n")
    with pytest.raises(ValueError, match="no usable clip"):
        build_manifest(csv_path=tmp_path / "list.csv")


def test_a_csv_that_is_not_text(tmp_path, plain_video):
    table = shutil.copy(plain_video, tmp_path / "list.csv")
    with pytest.raises(ValueError, match=r"cannot be read as \.csv in UTF-8"):
        build_manifest(csv_path=table)
    with pytest.raises(ValueError, match=r"tables are read from \.csv, \.jsonl, \.json; not from"):
        build_manifest(csv_path=plain_video)


@pytest.mark.parametrize("escape", ["../secret.mp4", "/etc/passwd", "link/../../secret.mp4"])
def test_a_csv_path_that_escapes_stops_the_run(tmp_path, plain_video, escape):
    folder = tmp_path / "videos"
    folder.mkdir()
    shutil.copy(plain_video, tmp_path / "secret.mp4")
    (folder / "link").symlink_to(tmp_path)
    (tmp_path / "list.csv").write_text(f"video\n{escape}\n")
    with pytest.raises(ValueError, match="leads outside the folder"):
        build_manifest(csv_path=tmp_path / "list.csv", video_folder=folder)


def test_an_empty_result_is_an_error_with_the_table(mixed_folder):
    with pytest.raises(ValueError, match=r"no usable clip in .*(?s:.)*too short: 60 frames, 61"):
        build_manifest(video_folder=mixed_folder, min_frames=61)


def test_missing_inputs(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such video folder"):
        build_manifest(video_folder=tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="no such CSV file"):
        build_manifest(csv_path=tmp_path / "absent.csv")
    with pytest.raises(ValueError, match="give video_folder"):
        build_manifest()


def test_a_csv_needs_a_folder_not_a_file(tmp_path, plain_video):
    (tmp_path / "list.csv").write_text("video\na.mp4\n")
    with pytest.raises(ValueError, match="must be a folder"):
        build_manifest(csv_path=tmp_path / "list.csv", video_folder=plain_video)


def test_a_folder_of_arrays(tmp_path, make_frames):
    np.save(tmp_path / "clip.npy", make_frames(7, 16, 16))
    assert build_manifest(video_folder=tmp_path).clips[0].num_frames == 7


def test_files_that_hang_or_crash_the_decoder_are_left_out(
    tmp_path, plain_video, hostile, monkeypatch
):
    for name in ("a", "b_hangs", "c_crashes", "d"):
        shutil.copy(plain_video, tmp_path / f"{name}.mp4")
    monkeypatch.setattr("mg.data.manifest._probe", hostile.probe_task)
    manifest = build_manifest(video_folder=tmp_path, probe_seconds_limit=2)
    assert [clip.name for clip in manifest.clips] == ["a.mp4", "d.mp4"]
    assert {entry.name: entry.reason for entry in manifest.rejected} == {
        "b_hangs.mp4": "broken: decoder hung for more than 2 s",
        "c_crashes.mp4": "broken: decoder crashed (signal 11)",
    }


def test_probing_in_this_process_finds_the_same(mixed_folder):
    assert build_manifest(video_folder=mixed_folder) == build_manifest(
        video_folder=mixed_folder, probe_seconds_limit=None
    )
