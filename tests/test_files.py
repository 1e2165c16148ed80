"""Atomic writing, and paths that stay under their folder."""

import os

import pytest

from mg.files import atomic_path, resolve_under, write_text


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
