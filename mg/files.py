"""Files written whole or not at all, read within bounds; paths that stay in place; hashes."""

import contextlib
import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "atomic_path",
    "check_writable_folder",
    "open_regular_file",
    "path_under",
    "read_bytes",
    "remove_abandoned",
    "resolve_under",
    "sha256_of_content",
    "sha256_of_file",
    "write_text",
]

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

CHUNK_BYTES = 1 << 22
MIN_FREE_BYTES = 1 << 20

# Names of `atomic_path` while a file is written.
MAX_STEM = 40
TEMPORARY = re.compile(r"\..*\.[a-z0-9_]{8}\.tmp(\.[^.]*)?", re.DOTALL)
ABANDONED_AFTER_SECONDS = 60.0

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
    On any exception the temporary file is removed and `path` is as it was before. A process that
    is killed leaves its file to `remove_abandoned`.

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
        dir=path.parent, prefix=f".{path.stem[:MAX_STEM]}.", suffix=f".tmp{path.suffix}"
    )
    temporary = Path(name)
    try:
        _try_lock(descriptor)  # until it is closed: by us, or by the end of the process
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
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """Return whether an open file is now locked by this process, and was by no other."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # locked by another process, or a file system without locks
        return False
    return True


def remove_abandoned(folder: str | os.PathLike, *, below: bool = False) -> int:
    """Return how many files were removed that killed processes left half written in a folder.

    What another process writes at the moment stays: it holds a lock on it.

    Args:
        folder: where to look.
        below: also in all folders below it.
    """
    num_removed = 0
    pattern = ".*.tmp*"
    for path in Path(folder).rglob(pattern) if below else Path(folder).glob(pattern):
        with contextlib.suppress(OSError):
            age = time.time() - path.lstat().st_mtime
            is_ours = TEMPORARY.fullmatch(path.name) and path.is_file() and not path.is_symlink()
            if not is_ours or age < ABANDONED_AFTER_SECONDS:  # it may not be locked yet
                continue
            with open(path, "rb") as file:
                if _try_lock(file.fileno()):
                    path.unlink()
                    num_removed += 1
    return num_removed


def check_writable_folder(folder: str | os.PathLike) -> None:
    """Raise unless files can be written into a folder, there or not: to be asked before long work.

    Raises:
        OSError: it cannot be made or written to, or its disk is full; the message says which.
    """
    folder = Path(folder)
    # From there upwards, the first that exists.
    place = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not place.is_dir():
        raise NotADirectoryError(
            f"{folder} cannot be an output folder: {place} is a file, not a folder"
        )
    try:
        with tempfile.TemporaryFile(dir=place):
            free = shutil.disk_usage(place).free
    except OSError as error:
        raise type(error)(
            f"{folder} cannot be written to ({error.strerror}); choose another folder for outputs"
        ) from None
    if free < MIN_FREE_BYTES:
        raise OSError(f"{folder} cannot be written to: no space is left on its disk")


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
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"not found: {path} does not exist") from None
    if kind == stat.S_IFREG:  # devices are not even opened: some act on that
        descriptor = os.open(path, flags)
        kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
        if kind == stat.S_IFREG:
            return os.fdopen(descriptor, "rb")
        os.close(descriptor)
    raise ValueError(f"{path} is {KINDS.get(kind, 'not a file')}; a regular file is expected here")


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
    with open_regular_file(path) as file:
        return sha256_of_content(file)


def sha256_of_content(file: BinaryIO) -> str:
    """Return the SHA-256 of what an open file has left to read, in hexadecimal digits."""
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
