"""Reading and writing weight files of any supported kind: safetensors and MindSpore `.ckpt`."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mg.weights.mindspore_ckpt import read_mindspore_ckpt, write_mindspore_ckpt
from mg.weights.safetensors_file import (
    INDEX_SUFFIX,
    find_in_folder,
    read_safetensors,
    write_safetensors,
)

__all__ = [
    "WRITABLE_SUFFIXES",
    "check_writable_suffix",
    "find_weights",
    "read_weights",
    "write_weights",
]

WRITABLE_SUFFIXES = (".safetensors", ".ckpt")

ZIP_MAGIC = b"PK\x03\x04"
PICKLE_MAGIC = b"\x80"


def read_weights(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Return the tensors of a weight file, its kind told by its content.

    Args:
        path: a `.safetensors` or MindSpore `.ckpt` file, a `*.safetensors.index.json` of shards,
            or a folder that holds one of these.

    Raises:
        FileNotFoundError: no such file, or nothing usable in the folder.
        ValueError: damaged file, or another format (with what to do about it).
    """
    path = find_weights(path)
    if path.name.endswith(INDEX_SUFFIX):
        return read_safetensors(path)
    with open(path, "rb") as file:
        head = file.read(9)
    # A safetensors file begins with its header's length in 8 bytes, then the header's brace. It is
    # asked first: a length may begin with the byte that pickles begin with.
    if head[8:] == b"{":
        return read_safetensors(path)
    if head.startswith((ZIP_MAGIC, PICKLE_MAGIC)):
        raise ValueError(
            f"{path} is a PyTorch file (pickle), which is not read here; use the .safetensors file "
            "of the same weights"
        )
    if path.suffix == ".safetensors":
        return read_safetensors(path)  # which says what is wrong with it
    if path.suffix == ".ckpt":
        return read_mindspore_ckpt(path)
    raise ValueError(
        f"{path} is no weight file that is known here; expected .safetensors, .ckpt (MindSpore), "
        f"*{INDEX_SUFFIX}, or a folder with one of them"
    )


def find_weights(path: str | os.PathLike) -> Path:
    """Return the weight file that `path` means: itself, or the one in the folder it names.

    Raises:
        FileNotFoundError: no such file, or nothing usable in the folder.
        ValueError: several candidates in the folder.
    """
    path = Path(path)
    if path.is_dir():
        return find_in_folder(path, [f"*{INDEX_SUFFIX}", "*.safetensors", "*.ckpt"])
    if not path.exists():
        raise FileNotFoundError(f"weights not found: {path} does not exist")
    return path


def write_weights(
    path: str | os.PathLike,
    tensors: Mapping[str, np.ndarray],
    *,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write `tensors` as safetensors or MindSpore checkpoint, by the extension of `path`.

    Args:
        path: a name ending in `.safetensors` or `.ckpt`; parent folders are made.
        tensors: the arrays by name.
        metadata: texts for the header of a safetensors file; a `.ckpt` has no place for them.
        overwrite: whether an existing file may be replaced.

    Raises:
        FileExistsError: `path` exists and `overwrite` is false.
        ValueError: another extension, metadata for a `.ckpt`, or a type the format cannot hold.
        OSError: the file could not be written; nothing is left behind.
    """
    check_writable_suffix(path)
    if Path(path).suffix == ".safetensors":
        write_safetensors(path, tensors, metadata=metadata, overwrite=overwrite)
        return
    if metadata:
        raise ValueError(f"{path}: a .ckpt file holds no metadata; write a .safetensors file")
    write_mindspore_ckpt(path, tensors, overwrite=overwrite)


def check_writable_suffix(path: str | os.PathLike) -> None:
    """Raise ValueError unless `path` ends in an extension that `write_weights` knows."""
    if Path(path).suffix not in WRITABLE_SUFFIXES:
        raise ValueError(
            f"{path}: the extension decides the format and must be one of "
            f"{', '.join(WRITABLE_SUFFIXES)}"
        )
