"""safetensors files as dicts of numpy arrays: single files, and shards with an index file.

The `safetensors` package checks the header (length, overlaps, holes, sizes, truncation). Mapping
the file into memory and writing are done here, because the package's numpy side has no bfloat16.
"""

import json
import mmap
import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from mg.files import atomic_path
from mg.input_files import check_input_file
from mg.json_file import parse_json, read_json
from mg.weights.bfloat16 import is_bfloat16, widen_bfloat16
from mg.weights.tensor_entry import TensorEntry

__all__ = [
    "INDEX_SUFFIX",
    "find_in_folder",
    "list_safetensors",
    "read_safetensors",
    "read_safetensors_metadata",
    "read_shards",
    "safetensors_files",
    "write_safetensors",
]

INDEX_SUFFIX = ".safetensors.index.json"
MAX_INDEX_BYTES = 64 << 20  # largest known: 9 MB
METADATA_KEY = "__metadata__"
MAX_NAME_LENGTH = 1024
MAX_HEADER_BYTES = 16 * 2**20  # about 100 bytes per tensor
SHARD_NAME = re.compile(r"(?P<stem>.+)-\d{5}-of-\d{5}\.safetensors")

NUMPY_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "U64": "<u8",
    "I32": "<i4",
    "U32": "<u4",
    "I16": "<i2",
    "U16": "<u2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
TYPE_NAMES = {np.dtype(code): name for name, code in NUMPY_TYPES.items() if name != "BF16"}
# The package's order of tensors in a file; sizes fall, so that every tensor stands aligned.
FILE_ORDER = ("U64", "I64", "F64", "F32", "U32", "I32", "BF16", "F16", "U16", "I16", "I8", "U8")
ALIGNMENT = 8


def read_safetensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Return the tensors of a safetensors file, or of all shards that an index file names.

    Arrays are read-only views of the memory-mapped file, so only what is used is read; bfloat16
    is widened to float32 (exactly), in memory.

    Args:
        path: a `.safetensors` file, a `*.safetensors.index.json`, or a folder that holds one
            index file or, without an index, one `.safetensors` file.

    Raises:
        FileNotFoundError: no such file, a shard is missing, or the folder has no such file.
        ValueError: damaged or truncated file, a number type numpy cannot hold, shards and index
            that disagree, or a path that is only one shard of a set.
    """
    path = _resolve(path)
    if path.name.endswith(INDEX_SUFFIX):
        return _of_all_shards(path, _read_file)
    return _read_file(path)


def read_shards(path: str | os.PathLike) -> Iterator[dict[str, np.ndarray]]:
    """Yield the tensors of one file after the other: what bfloat16 takes is needed for one only.

    Args and Raises: as `read_safetensors`.
    """
    list_safetensors(path)  # refuses shards and index that disagree
    for file in safetensors_files(path):
        yield _read_file(file)


def list_safetensors(path: str | os.PathLike) -> dict[str, TensorEntry]:
    """Return type and shape of each tensor, of all shards if there are any; no tensor is read.

    Args and Raises: as `read_safetensors`.
    """
    entries = _entries(_resolve(path))
    return {
        name: TensorEntry(_plain(kind["dtype"]), tuple(kind["shape"]))
        for name, kind in entries.items()
    }


def safetensors_files(path: str | os.PathLike) -> list[Path]:
    """Return the files that hold the tensors: the file itself, or the shards of an index.

    Args and Raises: as `read_safetensors`.
    """
    path = _resolve(path)
    if not path.name.endswith(INDEX_SUFFIX):
        return [path]
    return [path.parent / shard for shard in dict.fromkeys(_read_weight_map(path).values())]


def read_safetensors_metadata(path: str | os.PathLike) -> dict[str, str]:
    """Return the text metadata of one safetensors file (`{}` if it has none).

    Raises:
        FileNotFoundError, ValueError: as `read_safetensors`.
    """
    return _checked_header(Path(path)).get(METADATA_KEY, {})


def write_safetensors(
    path: str | os.PathLike,
    tensors: Mapping[str, np.ndarray],
    *,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write `tensors` to one safetensors file: all of it, or nothing.

    Args:
        path: the file to write; parent folders are made.
        tensors: arrays of booleans, integers or floats, of any memory layout. The bfloat16 type
            that other packages add to numpy is stored as bfloat16.
        metadata: texts to store in the header. `format` is set to `np` unless given.
        overwrite: whether an existing file may be replaced.

    Raises:
        FileExistsError: `path` exists and `overwrite` is false.
        ValueError: a tensor's number type has no place in the format.
        OSError: the file could not be written (full disk); nothing is left behind.
    """
    types = {name: _type_name(name, np.asarray(array)) for name, array in tensors.items()}
    texts = dict(sorted({"format": "np", **(metadata or {})}.items()))
    order = sorted(types, key=lambda name: (_place(types[name]), name))
    header: dict[str, dict] = {METADATA_KEY: texts}
    end = 0
    for name in order:
        begin, end = end, end + np.asarray(tensors[name]).nbytes
        shape = list(np.shape(tensors[name]))
        header[name] = {"dtype": types[name], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % ALIGNMENT)
    with atomic_path(path, overwrite=overwrite) as temporary, open(temporary, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            file.write(_content(np.asarray(tensors[name])))


def find_in_folder(folder: Path, patterns: Sequence[str]) -> Path:
    """Return the one file in `folder` that matches the first pattern with any match.

    Raises:
        FileNotFoundError: no match.
        ValueError: several matches, so that the choice is the caller's.
    """
    for pattern in patterns:
        # Hidden files may be half-written ones of another process.
        found = sorted(file for file in folder.glob(pattern) if not file.name.startswith("."))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(file.name for file in found)
            raise ValueError(f"folder {folder} holds several weight files: {names}; name one")
    raise FileNotFoundError(f"folder {folder} holds no weights ({', '.join(patterns)})")


def _resolve(path: str | os.PathLike) -> Path:
    """Return the file to read: `path` itself, or the one found in the folder it names."""
    path = Path(path)
    if path.is_dir():
        return find_in_folder(path, [f"*{INDEX_SUFFIX}", "*.safetensors"])
    check_input_file(path)
    match = SHARD_NAME.fullmatch(path.name)
    index = path.with_name(match["stem"] + INDEX_SUFFIX) if match else None
    if index is not None and index.exists():
        raise ValueError(f"{path} is one shard of several; give the index file {index} instead")
    return path


def _entries(path: Path) -> dict[str, dict]:
    """Return the header's entry of each tensor of a file, or of all shards of an index."""
    if path.name.endswith(INDEX_SUFFIX):
        return _of_all_shards(path, _entries)
    return {name: kind for name, kind in _checked_header(path).items() if name != METADATA_KEY}


def _of_all_shards(index_path: Path, read: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Return what `read` says about every tensor of all shards, in the index's order."""
    weight_map = _read_weight_map(index_path)
    shards: dict[str, dict[str, Any]] = {}
    for shard in dict.fromkeys(weight_map.values()):
        shard_path = index_path.parent / shard
        if not shard_path.exists():
            raise FileNotFoundError(f"{index_path} names the shard {shard}, which is not beside it")
        shards[shard] = read(shard_path)
        expected = {name for name, home in weight_map.items() if home == shard}
        differing = sorted(expected ^ shards[shard].keys())
        if differing:
            raise ValueError(
                f"{index_path} and its shard {shard} disagree about {len(differing)} tensors, "
                f"for example {differing[0]!r}; the set is incomplete or mixed, fetch it again"
            )
    return {name: shards[shard][name] for name, shard in weight_map.items()}


def _read_weight_map(index_path: Path) -> dict[str, str]:
    """Return {tensor name: shard file name} from an index file, with every file name checked."""
    try:
        weight_map = read_json(index_path, max_bytes=MAX_INDEX_BYTES)["weight_map"]
        entries = list(weight_map.items())
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index_path} has no 'weight_map' from names to shard files") from error
    for name, shard in entries:
        # A plain name only: an index from elsewhere must not lead to files outside its folder.
        if (
            not isinstance(shard, str)
            or Path(shard).name != shard
            or "\\" in shard
            or not shard.endswith(".safetensors")
        ):
            raise ValueError(
                f"{index_path} places {name!r} in {shard!r}; shards must be plain file names "
                "(*.safetensors) in the folder of the index"
            )
    return weight_map


def _checked_header(path: Path) -> dict:
    """Return the header of a safetensors file, after the safetensors package has checked it."""
    check_input_file(path)
    _check_header_length(path)
    try:
        with safe_open(str(path), framework="np"):
            pass
    except SafetensorError as error:
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) is not a whole safetensors file: {error}; "
            "it is truncated, damaged or of another format, fetch or save it again"
        ) from error
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        try:
            header = parse_json(file.read(length), "its text", max_bytes=MAX_HEADER_BYTES)
        except ValueError as error:
            raise ValueError(f"{path} has a damaged header: {error}") from error
    # The package's parser also takes other spellings of these, such as lists for objects.
    for name, entry in header.items():
        if len(name) > MAX_NAME_LENGTH:
            raise ValueError(f"{path} has a damaged header: a name of {len(name)} characters")
        plain = isinstance(entry, dict)
        if not plain or (name != METADATA_KEY and not isinstance(entry["dtype"], str)):
            raise ValueError(f"{path} has a damaged header: {name!r} is described oddly")
    return header


def _check_header_length(path: Path) -> None:
    """Raise ValueError if a file's header is longer than any network's, before it is read."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER_BYTES:
        raise ValueError(
            f"{path} is not a whole safetensors file: it states a header of {length} bytes, and "
            f"networks have at most {MAX_HEADER_BYTES}; it is damaged, fetch or save it again"
        )


def _read_file(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of one safetensors file as views of its memory map."""
    header = _checked_header(path)
    header.pop(METADATA_KEY, None)
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    start = 8 + int.from_bytes(mapped[:8], "little")
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = _view(mapped, start + begin, end - begin, entry, f"{path}: {name}")
    return tensors


def _view(mapped: mmap.mmap, offset: int, num_bytes: int, entry: dict, label: str) -> np.ndarray:
    """Return one tensor: a view of the map where its type and alignment allow, else a copy."""
    kind, shape = entry["dtype"], entry["shape"]
    if kind not in NUMPY_TYPES:
        raise ValueError(
            f"{label} has type {kind}, which is not supported; convert the file to F32, F16 or BF16"
        )
    dtype = np.dtype(NUMPY_TYPES[kind])
    if num_bytes == 0:
        array = np.empty(shape, dtype)
    else:
        flat = np.frombuffer(mapped, dtype, count=num_bytes // dtype.itemsize, offset=offset)
        array = flat.reshape(shape)
    if kind == "BF16":
        return widen_bfloat16(array)
    return array if array.flags.aligned else array.copy()


def _type_name(name: str, array: np.ndarray) -> str:
    if name == METADATA_KEY:
        raise ValueError(f"no tensor of a safetensors file can be called {METADATA_KEY!r}")
    if is_bfloat16(array.dtype):
        return "BF16"
    little_endian = array.dtype.newbyteorder("<")
    if little_endian not in TYPE_NAMES:
        raise ValueError(
            f"tensor {name!r} has type {array.dtype}, which safetensors files cannot hold; "
            "use booleans, integers or floats"
        )
    return TYPE_NAMES[little_endian]


def _plain(kind: str) -> str:
    """Return numpy's name of a type, or `bfloat16`; types numpy lacks keep the format's name."""
    if kind == "BF16":
        return "bfloat16"
    return np.dtype(NUMPY_TYPES[kind]).name if kind in NUMPY_TYPES else kind


def _place(kind: str) -> int:
    return FILE_ORDER.index(kind) if kind in FILE_ORDER else len(FILE_ORDER)


def _content(array: np.ndarray) -> memoryview:
    """Return an array's numbers in C order, little-endian, as bytes; uncopied if they are."""
    if not is_bfloat16(array.dtype):
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return memoryview(np.require(array, requirements="C").reshape(-1).view(np.uint8))
