"""Writing PyTorch checkpoints (`.pt`) without PyTorch: a zip archive of a pickle and storages.

`mg.weights.torch_zip` describes the format. What is written here is a plain dict of tensors, one
storage each, which `torch.load(path, weights_only=True)` reads.
"""

import os
import struct
import zipfile
from collections.abc import Mapping

import numpy as np

from mg.files import atomic_path
from mg.weights.bfloat16 import is_bfloat16

__all__ = ["write_torch_zip"]

STORAGE_TYPES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
    "complex64": "ComplexFloatStorage",
    "complex128": "ComplexDoubleStorage",
}

ROOT = "archive/"
ALIGNMENT = 64  # bytes; PyTorch's own, so that storages can be mapped into memory
LOCAL_HEADER_BYTES = 30
ZIP64_EXTRA_BYTES = 20
ZIP64_FROM_BYTES = 2**30  # below the sizes from which zipfile itself would choose zip64
EARLIEST_DATE = (1980, 1, 1, 0, 0, 0)  # the same tensors give the same file at any time
PADDING_ID = b"FB"  # the id under which PyTorch pads the header before a storage


def write_torch_zip(
    path: str | os.PathLike, tensors: Mapping[str, np.ndarray], *, overwrite: bool = False
) -> None:
    """Write `tensors` as a PyTorch checkpoint (a state dict): all of it, or nothing.

    Args:
        path: the file to write; parent folders are made.
        tensors: arrays of booleans, integers, floats or complex numbers, of any memory layout.
            bfloat16 (`mg.weights.bfloat16`) is stored as bfloat16.
        overwrite: whether an existing file may be replaced.

    Raises:
        FileExistsError: `path` exists and `overwrite` is false.
        ValueError: no tensors, or a tensor's number type has no storage type in PyTorch.
        OSError: the file could not be written (full disk); nothing is left behind.
    """
    if not tensors:
        raise ValueError(f"no tensors to write to {path}")
    kinds = {name: _storage_type(name, np.asarray(array)) for name, array in tensors.items()}
    shapes = {name: np.shape(array) for name, array in tensors.items()}
    with (
        atomic_path(path, overwrite=overwrite) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
        _add(archive, "data.pkl", _pickled(kinds, shapes))
        _add(archive, "byteorder", b"little")
        for key, array in enumerate(tensors.values()):
            _add(archive, f"data/{key}", _content(np.asarray(array)))
        _add(archive, "version", b"3\n")


def _storage_type(name: str, array: np.ndarray) -> str:
    if is_bfloat16(array.dtype):
        return "BFloat16Storage"
    if array.dtype.name not in STORAGE_TYPES:
        raise ValueError(
            f"tensor {name!r} has type {array.dtype}, which PyTorch files do not hold here; use "
            "booleans, signed integers, uint8 or floats"
        )
    return STORAGE_TYPES[array.dtype.name]


def _content(array: np.ndarray) -> memoryview:
    """Return the numbers of an array in C order, little-endian, as bytes; uncopied if they are."""
    if not is_bfloat16(array.dtype):
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return memoryview(np.require(array, requirements="C").reshape(-1).view(np.uint8))


def _add(archive: zipfile.ZipFile, name: str, content: bytes | memoryview) -> None:
    """Add an uncompressed member whose content begins at a multiple of `ALIGNMENT`."""
    entry = zipfile.ZipInfo(ROOT + name, EARLIEST_DATE)
    entry.file_size = len(content)
    is_large = len(content) >= ZIP64_FROM_BYTES
    unpadded = archive.start_dir + LOCAL_HEADER_BYTES + len(entry.filename) + 4
    if is_large:
        unpadded += ZIP64_EXTRA_BYTES
    padding = -unpadded % ALIGNMENT
    entry.extra = PADDING_ID + struct.pack("<H", padding) + bytes(padding)
    with archive.open(entry, "w", force_zip64=is_large) as member:
        member.write(content)


# --- the pickle, protocol 2 ------------------------------------------------------------------

TENSOR_FUNCTION = b"ctorch._utils\n_rebuild_tensor_v2\n"
NO_HOOKS = b"\x89ccollections\nOrderedDict\n)R"  # requires_grad False, an empty OrderedDict


def _pickled(kinds: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """Return the pickle of {name: tensor}, tensor number i in storage i, in C order."""
    items = [
        _text(name) + _tensor(str(key), kinds[name], shape)
        for key, (name, shape) in enumerate(shapes.items())
    ]
    return b"\x80\x02}(" + b"".join(items) + b"u."


def _tensor(key: str, kind: str, shape: tuple[int, ...]) -> bytes:
    """Return the instructions that push one tensor: its storage, offset, shape and strides."""
    storage_type = f"ctorch\n{kind}\n".encode()
    num_elements = int(np.prod(shape, dtype=object))
    storage = (
        b"(" + _text("storage") + storage_type + _text(key) + _text("cpu") + _integer(num_elements)
    )
    strides = [int(np.prod(shape[axis + 1 :], dtype=object)) for axis in range(len(shape))]
    arguments = storage + b"tQ" + _integer(0) + _integers(shape) + _integers(strides) + NO_HOOKS
    return TENSOR_FUNCTION + b"(" + arguments + b"tR"


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _integers(numbers: tuple[int, ...] | list[int]) -> bytes:
    return b"(" + b"".join(map(_integer, numbers)) + b"t"


def _integer(number: int) -> bytes:
    if number < 2**31:
        return b"J" + struct.pack("<i", number)
    return b"\x8a\x08" + struct.pack("<q", number)
