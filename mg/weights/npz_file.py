"""numpy `.npz` archives as dicts of arrays. Nothing pickled is read."""

import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np

from mg.input_files import check_input_file
from mg.weights.tensor_entry import TensorEntry
from mg.weights.zip_members import ZipMembers

__all__ = ["is_npz", "list_npz", "read_npz"]

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


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Return the arrays of an `.npz` archive, checked against the archive's checksums.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such archive, damaged or truncated, or an array of anything but numbers.
    """
    return _for_each_array(Path(path), _numbers)


def list_npz(path: str | os.PathLike) -> dict[str, TensorEntry]:
    """Return type and shape of each array; only the header before each is read.

    Raises:
        FileNotFoundError, ValueError: as `read_npz`.
    """
    return _for_each_array(
        Path(path),
        lambda _, header: TensorEntry(header.dtype.newbyteorder("=").name, header.shape),
    )


def _for_each_array(
    path: Path, convert: Callable[[BinaryIO, _Header], Result]
) -> dict[str, Result]:
    """Return what `convert` makes of each array's numbers (an open file) and header, by name."""
    check_input_file(path)
    found = {}
    try:
        members = ZipMembers.open(path)
        with zipfile.ZipFile(path) as archive:
            for name, entry in members.entries.items():
                with archive.open(entry) as file:
                    found[name.removesuffix(SUFFIX)] = convert(file, _read_header(file, entry))
    # On damaged archives zipfile, zlib and numpy raise whatever their parts raise.
    except Exception as error:
        reason = str(error)[:MAX_REASON]
        raise ValueError(f"{path} cannot be read as a numpy archive: {reason}") from error
    return found


def _read_header(file: BinaryIO, entry: zipfile.ZipInfo) -> _Header:
    """Return the header before an array, after checking it against the member's size."""
    if entry.file_size > MAX_COMPRESSION * (entry.compress_size + 1):
        raise ValueError(f"the size of its member {entry.filename!r} is impossible")
    version = np.lib.format.read_magic(file)
    if version not in HEADER_READERS:
        raise ValueError(f"its member {entry.filename!r} has the unknown version {version}")
    header = _Header(*HEADER_READERS[version](file))
    if header.dtype.kind not in NUMBER_KINDS:
        raise ValueError(f"its member {entry.filename!r} holds {header.dtype}, not numbers")
    if any(size < 0 for size in header.shape):
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
