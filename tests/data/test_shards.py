"""Shards: the same clips as from a folder, whatever a tar holds beside them, and back into tars."""

import io
import json
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mg.commands import make_shards
from mg.data import tar_index
from mg.data.captions import add_captions, read_captions
from mg.data.clips import ClipConfig, ClipDataset
from mg.data.loader import ClipLoader
from mg.data.manifest import build_manifest, check_sources
from mg.data.shard_writer import write_shards
from mg.data.shards import _expanded, shard_names, shard_paths

CUT = {"sample_n_frames": 4, "size": 16, "crop": "random", "flip": True}


def write_tar(path, files, *, others=()):
    """Write a tar of {name: content, or path of a file}, then other members as they are."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            content = content.read_bytes() if isinstance(content, Path) else content
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in others:
            tar.addfile(member)
    return path


def array_bytes(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def reasons_of(manifest):
    return {entry.name: entry.reason for entry in manifest.rejected}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, plain_video, make_video, make_frames):
    """Return a folder of five clips of all kinds."""
    folder = tmp_path_factory.mktemp("clips")
    shutil.copy(plain_video, folder / "a.mp4")
    make_video(folder / "b.mkv", make_frames(9, 32, 48))
    make_video(folder / "c.avi", make_frames(8, 32, 32), codec="mpeg4")
    np.save(folder / "d.npy", make_frames(12, 24, 32))
    pictures = [Image.fromarray(frame) for frame in make_frames(6, 24, 24)]
    pictures[0].save(folder / "e.webp", save_all=True, append_images=pictures[1:], lossless=True)
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory, folder):
    """Return the pattern of two shards of these clips."""
    place = tmp_path_factory.mktemp("shards")
    files = sorted(folder.iterdir())
    write_tar(place / "s-08.tar", {f"x/{path.name}": path for path in files[:3]})
    write_tar(place / "s-09.tar", {f"x/{path.name}": path for path in files[3:]})
    return str(place / "s-{08..09}.tar")


def manifest_of(source, **options):
    """Return the manifest, probed in this process, which is quick."""
    return build_manifest(video_folder=source, probe_seconds_limit=None, **options)


def dataset(manifest, **options):
    return ClipDataset(manifest, ClipConfig(**CUT), **options)


def test_clips_of_shards_are_those_of_the_folder(folder, shards):
    of_folder, of_shards = (build_manifest(video_folder=source) for source in (folder, shards))
    names = [f"s-0{8 + (n > 2)}.tar/x/{clip.name}" for n, clip in enumerate(of_folder.clips)]
    assert [clip.name for clip in of_shards.clips] == names
    assert of_shards.rejected == ()
    for file, member in zip(of_folder.clips, of_shards.clips, strict=True):
        for what in ("num_frames", "height", "width", "fps", "notes"):
            assert getattr(file, what) == getattr(member, what), (file.name, what)
        numbers = [3, 0, file.num_frames - 1]
        with file.open() as of_file, member.open() as of_member:
            np.testing.assert_array_equal(of_file.read(numbers), of_member.read(numbers))
        np.testing.assert_array_equal(list(file.frames()), list(member.frames()))


def test_batches_are_the_folders_for_any_rank_and_from_any_step(folder, shards):
    """So resuming is exact, and ranks share the clips: what is drawn knows nothing of shards."""
    folder, shards = manifest_of(folder), manifest_of(shards)
    whole = [dataset(folder).batch(step, 2) for step in range(6)]
    with ClipLoader(dataset(shards), 2, start_step=3, num_steps=3, num_workers=1) as loader:
        for batch, expected in zip(loader, whole[3:], strict=True):
            np.testing.assert_array_equal(batch.frames, expected.frames)
            names = [name.partition("/x/")[2] for name in batch.names]
            assert names == list(expected.names)
    ranks = [dataset(shards, rank=rank, num_ranks=2).batch(1, 1) for rank in (0, 1)]
    np.testing.assert_array_equal(
        dataset(shards).batch(1, 2).names, [name for batch in ranks for name in batch.names]
    )


def test_a_folder_may_have_shards_beside_clips(folder, shards, tmp_path):
    shutil.copy(folder / "d.npy", tmp_path)
    (tmp_path / "sub").mkdir()
    shutil.copy(shard_paths(shards)[1], tmp_path / "sub")
    names = [clip.name for clip in manifest_of(tmp_path).clips]
    assert names == ["d.npy", "sub/s-09.tar/x/d.npy", "sub/s-09.tar/x/e.webp"]


def test_captions_stand_beside_their_clips(folder, tmp_path):
    clip = folder / "d.npy"
    files = {
        "1.npy": clip, "1.txt": b" a dog \n", "1.json": b'{"caption": "no", "fps": 12}',
        "2.npy": clip, "2.json": b'{"Text": "a cat", "more": [1]}', "2.cls": b"7",
        "3.left.npy": clip, "3.right.npy": clip, "3.txt": b"both",
        "4.npy": clip, "4.txt": b"\xff\xfe",
        "5.npy": clip, "5.json": b"[1]",
        "6.npy": clip, "6.txt": b"x" * 200_000,
        "7.npy": clip, "7.jpg": b"a cover",
        "._8.npy": b"what macOS adds", "9.md": b"read me",
    }  # fmt: skip
    manifest = manifest_of(write_tar(tmp_path / "s.tar", files))
    captions = {clip.path.member: clip.caption for clip in manifest.clips}
    assert captions == {
        "1.npy": "a dog", "2.npy": "a cat", "3.left.npy": "both", "3.right.npy": "both",
        "4.npy": "", "5.npy": "", "6.npy": "", "7.npy": "",
    }  # fmt: skip
    assert [clip.fps for clip in manifest.clips] == [12.0] + [0.0] * 7
    reasons = reasons_of(manifest)
    assert sorted(reasons) == ["s.tar/4.txt", "s.tar/5.json", "s.tar/6.txt"]
    assert "no caption: " in reasons["s.tar/4.txt"] and "utf-8" in reasons["s.tar/4.txt"]
    assert "expected an object" in reasons["s.tar/5.json"]
    assert "200000 characters; at most 131072" in reasons["s.tar/6.txt"]
    passed_over = dict(manifest.passed_over)
    assert passed_over == {"hidden files or folders": 1, ".md": 1, ".cls": 1}


def test_what_is_no_clip_is_listed_and_nothing_is_unpacked(folder, tmp_path):
    link, sparse = tarfile.TarInfo("link.mp4"), tarfile.TarInfo("pipe.mp4")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    sparse.type = tarfile.FIFOTYPE
    files = {
        "good.mp4": folder / "a.mp4",
        "../out.mp4": folder / "a.mp4",
        "/root.mp4": folder / "a.mp4",
        "a\\b.mp4": folder / "a.mp4",
        "empty.mp4": b"",
        "text.mp4": b"no video" * 100,
        "half.mp4": (folder / "a.mp4").read_bytes()[:3000],
        "playlist.mp4": b"#EXTM3U\n/etc/passwd\n",
        "object.npy": array_bytes(np.array([1], dtype=np.float64)),
        "short.npy": array_bytes(np.zeros((9, 8, 8, 3), np.uint8))[:500],
    }
    path = write_tar(tmp_path / "s.tar", files, others=[link, sparse])
    with tarfile.open(path, "a") as tar:
        tar.add(folder / "b.mkv", "good.mp4")
    before = sorted(tmp_path.rglob("*"))
    manifest = manifest_of(path)
    assert [clip.name for clip in manifest.clips] == ["s.tar/good.mp4"]
    assert manifest.clips[0].num_frames == 60  # of the first of its name
    reasons = [(entry.name, entry.reason) for entry in manifest.rejected]
    parts = {
        "s.tar/../out.mp4": "leads out of the tar",
        "s.tar//root.mp4": "leads out of the tar",
        "s.tar/a\\b.mp4": "leads out of the tar",
        "s.tar/link.mp4": "only plain files",
        "s.tar/pipe.mp4": "only plain files",
        "s.tar/good.mp4": "a second member of this name",
        "s.tar/empty.mp4": "the file is empty",
        "s.tar/text.mp4": "not a video",
        "s.tar/half.mp4": "broken",
        "s.tar/playlist.mp4": "a list of other files",
        "s.tar/object.npy": "expected uint8",
        "s.tar/short.npy": "not what is in its 500 bytes",
    }
    assert sorted(name for name, _ in reasons) == sorted(parts)
    assert all(parts[name] in reason for name, reason in reasons)
    assert sorted(tmp_path.rglob("*")) == before


def cut(content, end):
    return content[:end]


def with_damage(content, end):
    return content[:end] + b"\x01" * 512 + content[end + 512 :]


@pytest.mark.parametrize(
    ("damage", "num_clips", "reason"),
    [
        (lambda content: cut(content, len(content) // 2), 1, "cut off: "),
        (lambda content: with_damage(content, second_header(content)), 1, "no header of a member"),
        (lambda content: content[:1024] + b"\x1f" * 99, 0, "cut off: "),
        (lambda _: b"", 0, "damaged after 0 files: empty file"),
        (lambda _: b"no tar" * 1000, 0, "damaged after 0 files: "),
        (lambda _: b"\x1f\x8b" + b"x" * 1000, 0, "a compressed tar; unpack it"),
    ],
)
def test_a_damaged_shard_gives_what_is_whole_and_is_listed(
    damage, num_clips, reason, folder, tmp_path
):
    good = write_tar(tmp_path / "good.tar", {"1.npy": folder / "d.npy"})
    bad = write_tar(tmp_path / "bad.tar", {"2.npy": folder / "d.npy", "3.npy": folder / "d.npy"})
    bad.write_bytes(damage(bad.read_bytes()))
    manifest = manifest_of([str(good), str(bad)])
    names = ["good.tar/1.npy", "bad.tar/2.npy"][: 1 + num_clips]
    assert [clip.name for clip in manifest.clips] == names
    assert any(reason in entry.reason for entry in manifest.rejected)
    assert all(entry.name.startswith("bad.tar") for entry in manifest.rejected)


def second_header(content):
    return content.index(b"3.npy")


def test_headers_are_bounded(folder, tmp_path, monkeypatch):
    long = "n" * 100_000 + ".npy"
    path = write_tar(tmp_path / "s.tar", {"1.npy": folder / "d.npy", long: b"x"})
    manifest = manifest_of(path)
    assert [clip.name for clip in manifest.clips] == ["s.tar/1.npy"]
    assert "a header of 100" in reasons_of(manifest)["s.tar"]
    monkeypatch.setattr(tar_index, "MAX_MEMBERS", 2)
    path = write_tar(tmp_path / "t.tar", dict.fromkeys("abcd", b"x") | {"1.npy": folder / "d.npy"})
    with pytest.raises(ValueError, match="more than 2 members; write several tars"):
        manifest_of(path)


def test_a_bad_clip_is_replaced_and_listed_while_training(folder, tmp_path):
    content = bytearray((folder / "a.mp4").read_bytes())
    content[len(content) // 3 : len(content) // 3 + 400] = bytes(400)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(content)
    path = write_tar(tmp_path / "s.tar", {"1.mp4": damaged, "2.npy": folder / "d.npy"})
    reads = dataset(manifest_of(path), max_bad_share=1.0)
    assert len(reads.names) == 2
    for step in range(20):
        assert reads.batch(step, 1).frames.shape == (1, 3, 4, 16, 16)
    assert list(reads.bad) == ["s.tar/1.mp4"]
    assert "cannot be decoded (damaged data)" in reads.bad["s.tar/1.mp4"]


def test_a_shard_that_changes_is_told(folder, tmp_path):
    path = write_tar(tmp_path / "s.tar", {"1.mp4": folder / "a.mp4", "2.npy": folder / "d.npy"})
    clips = manifest_of(path).clips
    write_tar(path, {"0.npy": folder / "d.npy", "1.mp4": folder / "a.mp4"})
    for clip in clips:
        with pytest.raises(ValueError, match=r"s\.tar has changed since its members were listed"):
            clip.open()


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("{08..10}.tar", ["08.tar", "09.tar", "10.tar"]),
        ("{8..10}.tar", ["8.tar", "9.tar", "10.tar"]),
        ("{0..1}{a,b}.tar", ["0a.tar", "0b.tar", "1a.tar", "1b.tar"]),
        ("{3..2}.tar", []),
    ],
)
def test_patterns_stand_for_names(pattern, names):
    assert list(_expanded(pattern)) == names


def test_lists_and_patterns_name_shards_below_one_folder(tmp_path):
    for name in ("x/1.tar", "x/2.tar", "y/1.tar", "{1,2}.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    paths = shard_paths([str(tmp_path / "x/{1..2}.tar"), str(tmp_path / "y/1.tar")])
    assert shard_names(paths) == ["x/1.tar", "x/2.tar", "y/1.tar"]
    assert shard_names(shard_paths(tmp_path / "{1,2}.tar")) == ["{1,2}.tar"]  # a file's own name
    assert shard_paths(tmp_path) is None
    (tmp_path / "folder.tar").mkdir()
    assert shard_paths(tmp_path / "folder.tar") is None


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("s-{0..3}.tar", FileNotFoundError, r"no such shard: s-0\.tar \(4 of 4 are missing\)"),
        ("none.tar", FileNotFoundError, r"no such shard: none\.tar"),
        ("s-{0..999999999}.tar", ValueError, "100000 shards or more"),
        ("https://host/a.tar", ValueError, "download them first"),
        ("pipe:cat a.tar", ValueError, "download them first"),
        (["a.tar", "folder"], ValueError, "a list names tars, .* found folder"),
        ([], ValueError, "an empty list"),
    ],
)
def test_what_cannot_be_shards(source, error, message):
    with pytest.raises(error, match=message):
        check_sources(None, source)


def test_a_table_has_no_place_beside_shards(shards, tmp_path):
    with pytest.raises(ValueError, match="has no place beside shards"):
        check_sources(tmp_path / "table.csv", shards)


def test_clips_are_packed_and_come_back(folder, tmp_path):
    manifest = manifest_of(folder)
    table = tmp_path / "table.csv"
    add_captions(table, {clip.name: f"clip, {clip.name}" for clip in manifest.clips[1:]})
    manifest = manifest_of(folder, csv_path=table)
    sizes = [clip.path.stat().st_size for clip in manifest.clips]
    paths = write_shards(manifest.clips, tmp_path / "s", max_bytes=sum(sizes) - 1)
    assert [path.name for path in paths] == ["clips-000000.tar", "clips-000001.tar"]
    packed = manifest_of(tmp_path / "s")
    assert [clip.path.member for clip in packed.clips] == [clip.name for clip in manifest.clips]
    assert [clip.caption for clip in packed.clips] == [clip.caption for clip in manifest.clips]
    for clip, other in zip(manifest.clips, packed.clips, strict=True):
        with other.path.open() as file:
            assert file.read() == clip.path.read_bytes()
    again = write_shards(packed.clips, tmp_path / "t", max_bytes=10**9)
    assert [path.name for path in again] == ["clips-000000.tar"]
    with pytest.raises(FileExistsError, match="shards already, such as clips-000000"):
        write_shards(manifest.clips, tmp_path / "s", max_bytes=10**9)
    write_shards(manifest.clips, tmp_path / "s", max_bytes=10**9, overwrite=True)
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["clips-000000.tar"]
    content = (tmp_path / "s" / "clips-000000.tar").read_bytes()
    write_shards(manifest.clips, tmp_path / "u", max_bytes=10**9)
    assert (tmp_path / "u" / "clips-000000.tar").read_bytes() == content


def test_the_command_packs_each_file_as_it_is(folder, tmp_path, monkeypatch):
    arguments = ["mg", "--video_folder", str(folder), "--output_path", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--max_megabytes", "0.000001"])
    make_shards.main()
    paths = sorted(tmp_path.iterdir())
    assert [path.name for path in paths] == [f"clips-{number:06d}.tar" for number in range(5)]
    with tarfile.open(paths[0]) as tar:
        assert tar.extractfile("a.mp4").read() == (folder / "a.mp4").read_bytes()
    with pytest.raises(FileExistsError, match="shards already"):
        make_shards.main()
    with pytest.raises(ValueError, match="max_megabytes=0"):
        make_shards.MakeShardsConfig(max_megabytes=0)


def test_keys_differ_and_odd_names_get_a_suffix(folder, tmp_path):
    for name in ("a.b.npy", "a_b.npy", "film.dat"):
        shutil.copy(folder / ("a.mp4" if name == "film.dat" else "d.npy"), tmp_path / name)
    clips = manifest_of(tmp_path).clips
    (path,) = write_shards(clips, tmp_path / "s", max_bytes=10**9)
    with tarfile.open(path) as tar:
        assert tar.getnames() == ["a_b.npy", "a_b_2.npy", "film.mp4"]


def test_the_frame_rate_of_prepared_clips_is_packed(folder, tmp_path):
    shard = write_tar(tmp_path / "s.tar", {"1.npy": folder / "d.npy", "1.json": b'{"fps": 12.5}'})
    (path,) = write_shards(manifest_of(shard).clips, tmp_path / "t", max_bytes=1)
    with tarfile.open(path) as tar:
        assert json.load(tar.extractfile("s_tar/1.json")) == {"fps": 12.5}


def test_captions_are_added_to_a_table(tmp_path):
    add_captions(tmp_path / "t.csv", {"a": "one", "b": 'two, "three"'})
    add_captions(tmp_path / "t.csv", {"b": "new", "c": "four"})
    table = read_captions(tmp_path / "t.csv")
    found = [(video.name, video.caption) for video in table.videos]
    assert found == [("a", "one"), ("b", "new"), ("c", "four")]
