"""A lock file says which files a folder of weights was fetched with, by size and SHA-256."""

import json
import os
from pathlib import Path
from typing import Any

from mg.files import sha256_of_file, write_text
from mg.json_file import read_json_object

__all__ = ["LOCK_NAME", "file_record", "read_lock", "verify_file", "write_lock"]

LOCK_NAME = "mg_lock.json"


def file_record(path: str | os.PathLike) -> dict[str, Any]:
    """Return {"size": bytes, "sha256": hex digits} of a file."""
    return {"size": Path(path).stat().st_size, "sha256": sha256_of_file(path)}


def read_lock(folder: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """Return {file name: record} of a folder's lock file; empty where there is none.

    Raises:
        ValueError: it is damaged.
    """
    path = Path(folder) / LOCK_NAME
    try:
        files = read_json_object(path).get("files")
    except FileNotFoundError:
        return {}
    except ValueError:
        files = None
    if not isinstance(files, dict) or not all(map(_is_record, files.values())):
        raise ValueError(
            f"{path} is damaged; delete it, then the files beside it are taken as they are, or "
            "delete the folder and fetch it again"
        )
    return files


def _is_record(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and isinstance(record.get("size"), int)
        and isinstance(record.get("sha256"), str)
    )


def write_lock(folder: str | os.PathLike, files: dict[str, dict[str, Any]], *, source: str) -> None:
    """Write a folder's lock file, all of it or nothing; replaces an older one.

    Args:
        folder: of the files.
        files: {file name: record}.
        source: where the files are from.
    """
    text = json.dumps({"source": source, "files": files}, indent=1) + "\n"
    write_text(Path(folder) / LOCK_NAME, text, overwrite=True)


def verify_file(path: str | os.PathLike, expected: dict[str, Any]) -> None:
    """Raise ValueError unless a file has the size and the SHA-256 of its record."""
    path = Path(path)
    size = path.stat().st_size
    if size != expected["size"]:
        fault = f"it has {size} bytes instead of {expected['size']}"
    else:
        digest = sha256_of_file(path)
        if digest == expected["sha256"]:
            return
        fault = f"its SHA-256 is {digest} instead of {expected['sha256']}"
    raise ValueError(
        f"{path} is not the file that was fetched: {fault}. Delete it and fetch it again; if you "
        f"have changed it on purpose, delete {path.parent / LOCK_NAME}"
    )
