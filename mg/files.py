"""Files written whole or not at all, read within bounds; paths that stay in place; hashes."""

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "atomic_path",
    "open_regular_file",
    "path_under",
    "read_bytes",
    "resolve_under",
    "sha256_of_file",
    "write_text",
]

CHUNK_BYTES = 1 << 22

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and renamed to `path`.

    The temporary name keeps the suffix of `path`, since many writers choose the format by it.
    On any exception the temporary file is removed and `path` is as it was before.

    Args:
        path: the file to write. Missing parent folders are made.
        overwrite: whether an existing `path` may be replaced.

    Raises:
        FileExistsError: `path` exists and `overwrite` is false.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"{path} exists already; choose another name or allow overwriting it (--overwrite)"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.stem}.", suffix=f".tmp{path.suffix}"
    )
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; the result gets the permissions the user's umask asks for.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike, text: str, *, overwrite: bool = False) -> None:
    """Write `text` as UTF-8 to `path`, all of it or nothing (see `atomic_path`)."""
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")


def open_regular_file(path: str | os.PathLike) -> BinaryIO:
    """Return an open file for reading bytes; never waits, whatever stands under the name.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is a folder, a named pipe, a device or a socket, whose content may never end.
        OSError: it may not be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist") from None
    if kind == stat.S_IFREG:  # devices are not even opened: some act on that
        descriptor = os.open(path, flags)
        kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
        if kind == stat.S_IFREG:
            return os.fdopen(descriptor, "rb")
        os.close(descriptor)
    raise ValueError(f"{path} is {KINDS.get(kind, 'not a file')}; a regular file is expected")


def read_bytes(path: str | os.PathLike, *, max_bytes: int) -> bytes:
    """Return the content of a file that is small by its nature, such as a config.

    Args:
        path: of a regular file.
        max_bytes: never more than these are read.

    Raises:
        FileNotFoundError, OSError: as `open_regular_file`.
        ValueError: no regular file, or one of more than `max_bytes`.
    """
    with open_regular_file(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"{path} has more than {max_bytes} bytes, the most that is read here")
    return content


def resolve_under(root: str | os.PathLike, relative: str | os.PathLike) -> Path:
    """Return `root / relative`, resolved, if it lies under `root`.

    Raises:
        ValueError: the path leaves `root` (through `..`, an absolute path or a symbolic link).
    """
    root = Path(root).resolve()
    resolved = (root / relative).resolve()
    if not resolved.is_relative_to(root):
        raise ValueError(f"path {str(relative)!r} leads outside the folder {root}")
    return resolved


def path_under(root: str | os.PathLike, relative: str | os.PathLike) -> Path:
    """Return `root / relative`, without `..` in it, if it lies under `root` by its name.

    For files to be read: links inside `root` are followed, wherever they lead, since whoever put
    them there decided so. For files to be written see `resolve_under`.

    Raises:
        ValueError: the path leaves `root`, through `..` or as an absolute one.
    """
    for base in (Path(root).resolve(), Path(os.path.abspath(root))):
        path = Path(os.path.normpath(base / relative))
        if path.is_relative_to(base):
            return path
    raise ValueError(f"path {str(relative)!r} leads outside the folder {root}")


def sha256_of_file(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
