"""MindSpore `.ckpt` files as dicts of numpy arrays, read and written without MindSpore.

The format is a protobuf message (mindspore/ccsrc/utils/checkpoint.proto, proto2):

    Checkpoint   { repeated Value value = 1; }
    Value        { string tag = 1; oneof { TensorProto tensor = 2; MapTensorProto maptensor = 3; } }
    TensorProto  { repeated int64 dims = 1; string tensor_type = 2; bytes tensor_content = 3; }

Conventions on top of it: a large tensor is written as consecutive values with the same tag, whose
contents are joined; a scalar may have dims `[0]`; texts have type `str` and UTF-32 content; the
file may end in `crc_num` and ten big-endian bytes, the CRC-32 of all that comes before.
Protobuf libraries stop at 2 GB; the walk below goes through a memory map and has no such limit.
"""

import contextlib
import math
import mmap
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mg.files import atomic_path
from mg.input_files import check_input_file
from mg.weights.bfloat16 import is_bfloat16, widen_bfloat16
from mg.weights.tensor_entry import TensorEntry

__all__ = ["list_mindspore_ckpt", "read_mindspore_ckpt", "write_mindspore_ckpt"]

NUMPY_TYPES = {
    "Float64": "<f8",
    "Float32": "<f4",
    "Float16": "<f2",
    "BFloat16": "<u2",
    "Int64": "<i8",
    "UInt64": "<u8",
    "Int32": "<i4",
    "UInt32": "<u4",
    "Int16": "<i2",
    "UInt16": "<u2",
    "Int8": "i1",
    "UInt8": "u1",
    "Bool": "?",
}
TYPE_NAMES = {np.dtype(code): name for name, code in NUMPY_TYPES.items() if name != "BFloat16"}

CRC_MARK = b"crc_num"
CRC_LENGTH = len(CRC_MARK) + 10
SLICE_BYTES = 512 * 2**20  # MindSpore's own limit for one value; a message must stay below 2 GB

MAX_TENSORS = 50_000
MAX_DIMENSIONS = 32  # numpy's limit
MAX_SIZE = 2**62
MAX_NAME_BYTES = 1024

VARINT, LENGTH_DELIMITED = 0, 2  # protobuf wire types


@dataclass
class _Record:
    """One tensor as found in the file; `pieces` are (offset, length) of its content."""

    kind: str
    dims: list[int]
    pieces: list[tuple[int, int]] = field(default_factory=list)


def read_mindspore_ckpt(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Return the tensors of a MindSpore checkpoint, in the order of the file.

    bfloat16 is widened to float32 (exactly); a stored text comes back as a 0-d array of str.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a MindSpore checkpoint, encrypted, truncated, damaged (its checksum does
            not fit), or holding what numpy arrays cannot represent.
    """
    with _opened(path) as data:
        _check_checksum(data)
        records = _read_records(data, _content_end(data))
        return {name: _to_array(data, name, record) for name, record in records.items()}


def list_mindspore_ckpt(path: str | os.PathLike) -> dict[str, TensorEntry]:
    """Return type and shape of each tensor; neither the tensors nor the checksum are read.

    Raises:
        FileNotFoundError, ValueError: as `read_mindspore_ckpt`, checksum aside.
    """
    with _opened(path) as data:
        records = _read_records(data, _content_end(data))
        return {name: _to_entry(name, record) for name, record in records.items()}


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[mmap.mmap]:
    """Yield the file as a memory map; a ValueError inside becomes one that names the file."""
    path = Path(path)
    check_input_file(path)
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes); fetch or save it again")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            yield data
        except ValueError as error:
            raise ValueError(
                f"{path} ({len(data)} bytes) cannot be read as a MindSpore checkpoint: {error}"
            ) from error


def write_mindspore_ckpt(
    path: str | os.PathLike, tensors: Mapping[str, np.ndarray], *, overwrite: bool = False
) -> None:
    """Write `tensors` as a MindSpore checkpoint with a checksum: all of it, or nothing.

    Args:
        path: the file to write; parent folders are made.
        tensors: arrays of booleans, integers or floats, of any memory layout. The bfloat16 type
            that other packages add to numpy is stored as BFloat16.
        overwrite: whether an existing file may be replaced.

    Raises:
        FileExistsError: `path` exists and `overwrite` is false.
        ValueError: no tensors, or a tensor's number type has no place in the format.
        OSError: the file could not be written (full disk); nothing is left behind.
    """
    if not tensors:
        raise ValueError(f"no tensors to write to {path}")
    for name, array in tensors.items():
        _type_name(name, np.asarray(array))
    with atomic_path(path, overwrite=overwrite) as temporary, open(temporary, "wb") as file:
        checksum = 0
        for name, array in tensors.items():
            for part in _encode(name, np.asarray(array)):
                checksum = zlib.crc32(part, checksum)
                file.write(part)
        file.write(CRC_MARK + checksum.to_bytes(10, "big"))


# --- reading ---------------------------------------------------------------------------------


def _content_end(data: mmap.mmap) -> int:
    """Return where the protobuf message ends: before the checksum, if there is one."""
    end = len(data) - CRC_LENGTH
    return end if end >= 0 and data[end : end + len(CRC_MARK)] == CRC_MARK else len(data)


def _check_checksum(data: mmap.mmap) -> None:
    """Raise ValueError if there is a checksum that does not fit."""
    end = _content_end(data)
    if end == len(data):
        return
    stored = int.from_bytes(data[end + len(CRC_MARK) :], "big")
    with memoryview(data) as view:
        actual = zlib.crc32(view[:end])
    if stored != actual:
        raise ValueError(
            f"its checksum is {stored:#010x}, its content has {actual:#010x}; it is damaged, "
            "fetch or save it again"
        )


def _read_records(data: mmap.mmap, end: int) -> dict[str, _Record]:
    """Return what the file says about each tensor, without touching the contents."""
    if data[0] != 0x0A:
        raise ValueError("it does not begin like one; it is of another format, or encrypted")
    records: dict[str, _Record] = {}
    previous = None
    for number, begin, stop in _fields(data, 0, end):
        if number != 1:
            raise ValueError(f"unknown entry {number} near byte {begin}")
        name, piece = _read_value(data, begin, stop)
        if name != previous:
            if name in records:
                raise ValueError(f"tensor {name!r} occurs twice")
            if len(records) == MAX_TENSORS:
                raise ValueError(f"it has more than {MAX_TENSORS} tensors")
            records[name] = piece
        else:
            if (piece.kind, piece.dims) != (records[name].kind, records[name].dims):
                raise ValueError(f"the slices of tensor {name!r} disagree about its type or shape")
            records[name].pieces += piece.pieces
        previous = name
    return records


def _read_value(data: mmap.mmap, begin: int, end: int) -> tuple[str, _Record]:
    """Return (name, record with one piece) of one `Value` message."""
    found = {}
    for number, start, stop in _fields(data, begin, end):
        if number not in (1, 2, 3) or number in found:
            raise ValueError(f"the entry at byte {begin} has the field {number}, unknown or twice")
        found[number] = (start, stop)
    if 3 in found:
        raise ValueError("it holds a hash-table parameter (MapParameter), which is not supported")
    if 1 not in found or 2 not in found:
        raise ValueError(f"the entry at byte {begin} has no name or no tensor")
    name = _text(data, *found[1])
    record = _Record(kind="", dims=[])
    for number, start, stop in _fields(data, *found[2]):
        if number == 1:
            record.dims += _sizes(data, start, stop)
            if len(record.dims) > MAX_DIMENSIONS:
                raise ValueError(f"tensor {name!r} has more than {MAX_DIMENSIONS} axes")
        elif number == 2:
            record.kind = _text(data, start, stop)
        elif number == 3 and not record.pieces:
            record.pieces.append((start, stop - start))
        else:
            raise ValueError(f"tensor {name!r} has the field {number}, unknown or twice")
    return name, record


def _fields(data: mmap.mmap, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (field number, begin, end) of each field between `position` and `end`.

    For a varint field the bounds are those of the varint itself.
    """
    while position < end:
        key, position = _varint(data, position, end)
        number, wire_type = key >> 3, key & 7
        if wire_type == VARINT:
            begin = position
            _, position = _varint(data, position, end)
        elif wire_type == LENGTH_DELIMITED:
            length, begin = _varint(data, position, end)
            position = begin + length
        else:
            raise ValueError(f"no known field at byte {position}; it is damaged or another format")
        if position > end:
            raise ValueError(f"it ends at byte {end}, in the middle of a field; it is truncated")
        yield number, begin, position


def _varint(data: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    """Return (value, position behind it) of the base-128 integer at `position`."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise ValueError(f"it ends at byte {end}, in the middle of a number; it is truncated")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"no number at byte {position}; it is damaged or of another format")


def _sizes(data: mmap.mmap, begin: int, end: int) -> list[int]:
    """Return the varints between `begin` and `end` (one, or several if the field is packed).

    Of more than `MAX_DIMENSIONS` only so many and one are read.
    """
    values = []
    while begin < end and len(values) <= MAX_DIMENSIONS:
        value, begin = _varint(data, begin, end)
        if value > MAX_SIZE:
            raise ValueError(f"the size {value} before byte {begin} is impossible")
        values.append(value)
    return values


def _text(data: mmap.mmap, begin: int, end: int) -> str:
    if end - begin > MAX_NAME_BYTES:
        raise ValueError(f"bytes {begin} to {end} should be a name but are too many")
    try:
        return data[begin:end].decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"bytes {begin} to {end} should be a name but are not text") from error


def _to_array(data: mmap.mmap, name: str, record: _Record) -> np.ndarray:
    """Return a tensor's content as an array of its own (the map is closed afterwards)."""
    num_bytes = _num_bytes(record)
    content = np.empty(num_bytes, np.uint8)
    filled = 0
    for offset, length in record.pieces:
        content[filled : filled + length] = np.frombuffer(data, np.uint8, length, offset)
        filled += length
    if record.kind == "str":
        return np.array(content.tobytes().decode("utf-32-le"))
    shape = _shape(name, record)
    array = content.view(NUMPY_TYPES[record.kind]).reshape(shape)
    return widen_bfloat16(array) if record.kind == "BFloat16" else array


def _to_entry(name: str, record: _Record) -> TensorEntry:
    if record.kind == "str":
        return TensorEntry("str", ())
    return TensorEntry(record.kind.lower(), _shape(name, record))


def _num_bytes(record: _Record) -> int:
    return sum(length for _, length in record.pieces)


def _shape(name: str, record: _Record) -> tuple[int, ...]:
    """Return a tensor's shape, after checking it against the length of the content."""
    if record.kind not in NUMPY_TYPES:
        raise ValueError(f"tensor {name!r} has type {record.kind!r}, which is not supported")
    num_bytes, item_bytes = _num_bytes(record), np.dtype(NUMPY_TYPES[record.kind]).itemsize
    # dims [0] stands for a scalar, unless there is indeed nothing in it.
    shape = () if record.dims == [0] and num_bytes == item_bytes else tuple(record.dims)
    if math.prod(shape) * item_bytes != num_bytes:
        raise ValueError(
            f"tensor {name!r} of shape {shape} and type {record.kind} has {num_bytes} bytes of "
            f"content instead of {math.prod(shape) * item_bytes}"
        )
    return shape


# --- writing ---------------------------------------------------------------------------------


def _type_name(name: str, array: np.ndarray) -> str:
    if is_bfloat16(array.dtype):
        return "BFloat16"
    little_endian = array.dtype.newbyteorder("<")
    if little_endian not in TYPE_NAMES:
        raise ValueError(
            f"tensor {name!r} has type {array.dtype}, which MindSpore checkpoints cannot hold; "
            "use booleans, integers or floats"
        )
    return TYPE_NAMES[little_endian]


def _encode(name: str, array: np.ndarray) -> Iterator[bytes | memoryview]:
    """Yield the bytes of one tensor's `Value` messages, its content uncopied where possible."""
    kind = _type_name(name, array)
    dims = array.shape or (0,)  # the convention for scalars
    described = b"".join(b"\x08" + _to_varint(dim) for dim in dims) + _delimited(2, kind.encode())
    if not is_bfloat16(array.dtype):
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    content = memoryview(np.require(array, requirements="C").reshape(-1).view(np.uint8))
    for begin in range(0, max(len(content), 1), SLICE_BYTES):
        piece = content[begin : begin + SLICE_BYTES]
        tensor_head = described + b"\x1a" + _to_varint(len(piece))
        tag = _delimited(1, name.encode())
        tensor_key = b"\x12" + _to_varint(len(tensor_head) + len(piece))
        length = len(tag) + len(tensor_key) + len(tensor_head) + len(piece)
        yield b"\x0a" + _to_varint(length) + tag + tensor_key + tensor_head
        yield piece


def _delimited(number: int, payload: bytes) -> bytes:
    return _to_varint(number << 3 | LENGTH_DELIMITED) + _to_varint(len(payload)) + payload


def _to_varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
