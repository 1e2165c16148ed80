"""Atomic writing, and paths that stay under their folder."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import pytest

from mg.files import (
    atomic_path,
    check_writable_folder,
    remove_abandoned,
    resolve_under,
    write_text,
)

WRITER = """
import sys
from mg.files import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    print(temporary, flush=True)
    sys.stdin.read()
"""


def test_the_file_appears_only_when_all_of_it_is_written(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("all of it")
        assert not path.exists()
        assert temporary.parent == path.parent and temporary.suffix == ".txt"
    assert path.read_text() == "all of it"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="disk"), atomic_path(path, overwrite=True) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_nothing_is_replaced_unless_asked(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(FileExistsError, match="exists already"):
        write_text(path, "new")
    assert path.read_text() == "old"
    write_text(path, "new é", overwrite=True)
    assert path.read_text(encoding="utf-8") == "new é"


def test_permissions_are_those_of_an_ordinary_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file.txt", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "file.txt").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("path", ["../x.mp4", "a/../../x.mp4", "/etc/passwd", "link/x.mp4"])
def test_paths_that_leave_the_folder_are_refused(tmp_path, path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="leads outside the folder"):
        resolve_under(root, path)


def test_paths_below_the_folder_are_resolved(tmp_path):
    assert resolve_under(tmp_path, "a/../b/c.mp4") == (tmp_path / "b" / "c.mp4").resolve()
    assert resolve_under(tmp_path, ".") == tmp_path.resolve()


def make_old(path):
    os.utime(path, (1e9, 1e9))


def test_what_a_killed_process_left_is_removed_but_not_what_one_is_writing(tmp_path):
    path = tmp_path / "a.npz"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    temporary = tmp_path / writer.stdout.readline().strip()
    make_old(temporary)
    assert remove_abandoned(tmp_path) == 0 and temporary.is_file()
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    os.utime(temporary)  # it may be that of a process that has not locked it yet
    assert remove_abandoned(tmp_path) == 0 and temporary.is_file()
    make_old(temporary)
    assert remove_abandoned(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_never_taken_for_abandoned_ones(tmp_path):
    kept = ["a.tmp", ".a.tmp", "a.abcdefgh.tmp.npz", ".a.ABCDEFGH.tmp.npz", ".a.abcdefgh.tmp.b.c"]
    for name in kept:
        (tmp_path / name).touch()
    (tmp_path / ".b.abcdefgh.tmp.npz").symlink_to(tmp_path / "a.tmp")
    (tmp_path / ".c.abcdefgh.tmp.npz").mkdir()
    for path in tmp_path.iterdir():
        make_old(path)
    assert remove_abandoned(tmp_path) == 0
    assert len(list(tmp_path.iterdir())) == len(kept) + 2
    assert remove_abandoned(tmp_path / "nowhere") == 0


def test_names_as_long_as_a_folder_can_hold_are_written(tmp_path):
    path = tmp_path / ("é" * 125 + ".txt")
    write_text(path, "text")
    assert path.read_text() == "text"


def test_a_folder_is_tried_before_long_work(tmp_path, monkeypatch):
    check_writable_folder(tmp_path / "new" / "one")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(NotADirectoryError, match="file is a file, not a folder"):
            check_writable_folder(folder)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(NotADirectoryError, match="dangling is a file"):
        check_writable_folder(tmp_path / "dangling")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        with pytest.raises(OSError, match="no space is left"):
            check_writable_folder(tmp_path)

    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(PermissionError, match=r"cannot be written to \(Permission denied\)"):
        check_writable_folder(tmp_path)
