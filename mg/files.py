"""Writing files so that a crash never leaves half of one, paths that stay in place, and hashes."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["atomic_path", "resolve_under", "sha256_of_file", "write_text"]

CHUNK_BYTES = 1 << 22


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


def sha256_of_file(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
