"""numpy `.npz` archives as dicts of arrays. Nothing pickled is read."""

import math
import os
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np

from mg.input_files import check_input_file
from mg.weights.tensor_entry import TensorEntry
from mg.weights.zip_members import ZipMembers

__all__ = ["is_npz", "list_npz", "read_npz", "read_npz_text"]

Result = TypeVar("Result")

SUFFIX = ".npy"
HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
NUMBER_KINDS = "biufc"
MAX_REASON = 300  # characters; zipfile quotes what it finds
MAX_COMPRESSION = 1100  # deflate cannot do better than about 1032


class _Header(NamedTuple):
    shape: tuple[int, ...]
    is_fortran_ordered: bool
    dtype: np.dtype


def is_npz(members: ZipMembers) -> bool:
    """Return whether a zip archive is numpy's, by the names of its members."""
    return bool(members.entries) and all(name.endswith(SUFFIX) for name in members.entries)


def read_npz(
    path: str | os.PathLike, names: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """Return the arrays of an `.npz` archive, checked against the archive's checksums.

    Args:
        path: of the archive.
        names: of the arrays to read, as far as they are there; None reads all.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such archive, damaged or truncated, or an array of anything but numbers.
    """
    return _for_each_array(Path(path), _numbers, names)


def read_npz_text(path: str | os.PathLike, name: str, *, max_bytes: int) -> str | None:
    """Return the text that an archive holds as an array of one string; None if it has no `name`.

    Raises:
        FileNotFoundError, ValueError: as `read_npz`; or it is not text, or has over `max_bytes`.
    """

    def text_of(file: BinaryIO, header: _Header) -> str:
        if header.dtype.kind != "U" or header.shape != () or header.dtype.itemsize > max_bytes:
            raise ValueError(
                f"{name!r} is {header.dtype} {header.shape}, not a text of at most "
                f"{max_bytes} bytes"
            )
        # Not by numpy, which makes texts of characters that there cannot be.
        coding = "utf-32-be" if header.dtype.str.startswith(">") else "utf-32-le"
        return file.read().decode(coding).rstrip("\0")

    return _for_each_array(Path(path), text_of, [name], kinds="U").get(name)


def list_npz(
    path: str | os.PathLike, names: Collection[str] | None = None
) -> dict[str, TensorEntry]:
    """Return type and shape of each array; only the header before each is read.

    Args:
        path, names: as `read_npz`.

    Raises:
        FileNotFoundError, ValueError: as `read_npz`.
    """
    return _for_each_array(
        Path(path),
        lambda _, header: TensorEntry(header.dtype.newbyteorder("=").name, header.shape),
        names,
    )


def _for_each_array(
    path: Path,
    convert: Callable[[BinaryIO, _Header], Result],
    names: Collection[str] | None = None,
    *,
    kinds: str = NUMBER_KINDS,
) -> dict[str, Result]:
    """Return what `convert` makes of each array's numbers (an open file) and header, by name.

    Args:
        path: of the archive.
        convert: reads the file to its end, which checks the checksum.
        names: of the arrays wanted; None for all.
        kinds: of types that they may have.
    """
    check_input_file(path)
    found = {}
    try:
        members = ZipMembers.open(path)
        with zipfile.ZipFile(path) as archive:
            for member, entry in members.entries.items():
                name = member.removesuffix(SUFFIX)
                if names is None or name in names:
                    with archive.open(entry) as file:
                        found[name] = convert(file, _read_header(file, entry, kinds))
    # On damaged archives zipfile, zlib and numpy raise whatever their parts raise.
    except Exception as error:
        reason = str(error)[:MAX_REASON]
        raise ValueError(f"{path} cannot be read as a numpy archive: {reason}") from error
    return found


def _read_header(file: BinaryIO, entry: zipfile.ZipInfo, kinds: str) -> _Header:
    """Return the header before an array, after checking it against the member's size."""
    if entry.file_size > MAX_COMPRESSION * (entry.compress_size + 1):
        raise ValueError(f"the size of its member {entry.filename!r} is impossible")
    version = np.lib.format.read_magic(file)
    if version not in HEADER_READERS:
        raise ValueError(f"its member {entry.filename!r} has the unknown version {version}")
    header = _Header(*HEADER_READERS[version](file))
    if header.dtype.kind not in kinds:
        raise ValueError(f"its member {entry.filename!r} holds {header.dtype}, not numbers")
    if any(isinstance(size, bool) or size < 0 for size in header.shape):
        raise ValueError(f"its member {entry.filename!r} has the impossible shape {header.shape}")
    num_bytes = math.prod(header.shape) * header.dtype.itemsize
    if num_bytes != entry.file_size - file.tell():
        raise ValueError(
            f"its member {entry.filename!r} has {entry.file_size - file.tell()} bytes of numbers "
            f"instead of {num_bytes}"
        )
    return header


def _numbers(file: BinaryIO, header: _Header) -> np.ndarray:
    flat = np.frombuffer(file.read(), header.dtype)  # reading to the end checks the checksum
    array = flat.reshape(header.shape, order="F" if header.is_fortran_ordered else "C")
    return array.astype(header.dtype.newbyteorder("="), copy=False)
