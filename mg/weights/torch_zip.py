"""PyTorch checkpoints (`.pt`, `.pth`, `.bin`, `.ckpt`) as numpy arrays, read without PyTorch.

Since version 1.6 `torch.save` writes a zip archive without compression:

    NAME/data.pkl   a pickle of the saved object; each tensor in it refers to a storage by a key
    NAME/data/KEY   the numbers of one storage; several tensors may be views of it
    NAME/byteorder  `little` or `big` (newer versions)

No pickle is run: `mg.weights.safe_pickle` reads it as data, knows the names below, and leaves out
what training programs keep beside weights. Every size, offset and stride is checked against the
storage it is for.
"""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mg.weights.bfloat16 import widen_bfloat16
from mg.weights.safe_pickle import Function, read_pickle
from mg.weights.state_dict_tree import select_tensors
from mg.weights.tensor_entry import TensorEntry
from mg.weights.zip_members import ZipMembers

__all__ = ["is_torch_zip", "list_torch_zip", "read_torch_zip"]

MAX_PICKLE_BYTES = 16 * 2**20  # a state dict needs about 120 bytes per tensor
MAX_DIMENSIONS = 32  # numpy's limit
MAX_BYTES = 2**62
MAX_KEY_LENGTH = 20


@dataclass(frozen=True)
class NumberType:
    """A number type: its name here, and the numpy type its bytes are read as."""

    name: str
    code: str

    @property
    def num_bytes(self) -> int:
        return np.dtype(self.code).itemsize


NUMBER_TYPES = {
    kind: NumberType(kind, code)
    for kind, code in {
        "float64": "<f8",
        "float32": "<f4",
        "float16": "<f2",
        "bfloat16": "<u2",
        "int64": "<i8",
        "int32": "<i4",
        "int16": "<i2",
        "int8": "i1",
        "uint8": "u1",
        "uint16": "<u2",
        "uint32": "<u4",
        "uint64": "<u8",
        "bool": "u1",
        "complex64": "<c8",
        "complex128": "<c16",
    }.items()
}
STORAGE_TYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
UNTYPED = NumberType("untyped", "u1")
UNREADABLE_TYPES = (
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
    "float4_e2m1fn_x2",
    "complex32",
)


@dataclass(frozen=True)
class _Storage:
    """One storage: the archive's member that holds it, and how its numbers are to be read."""

    member: str
    kind: NumberType
    num_elements: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage: `offset` and `strides` count elements."""

    storage: _Storage
    kind: NumberType
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def is_torch_zip(members: ZipMembers) -> bool:
    """Return whether a zip archive is a PyTorch checkpoint, by the names of its members."""
    return any(name.rsplit("/", 1)[-1] == "data.pkl" for name in members.entries)


def read_torch_zip(
    path: str | os.PathLike, *, key: str | None = None, verify: bool = True
) -> dict[str, np.ndarray]:
    """Return the tensors of a PyTorch checkpoint, by name, in the order of the file.

    Arrays are read-only views of the memory-mapped file. Only bfloat16, which numpy lacks, is
    widened to float32 (exactly), and booleans are copied: each storage once, however many tensors
    are views of it.

    A training checkpoint holds more than weights. If the tensors lie in a dict under one of the
    usual names (`state_dict`, `module`, `model`, `ema_state_dict`, ...), that dict is returned;
    everything else that is left out is logged. Names of dicts inside dicts are joined with dots.

    Args:
        path: the file.
        key: where to begin, with dots between names of dicts inside dicts: `state_dict.gen_model`.
            Needed when there are several dicts of tensors.
        verify: whether the checksum of each storage is checked. This reads all of the data once;
            without it the arrays read what they need, when they need it, and a damaged file can
            give wrong numbers.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such checkpoint, damaged or truncated; it names something that no state
            dict needs; a tensor that leaves its storage; sparse, quantised or float8 tensors; no
            tensors; or several dicts of tensors to choose from (they are named).
    """
    path = Path(path)
    try:
        members = ZipMembers.open(path)
        tensors = _find_tensors(members, key)
        if verify:
            for member in dict.fromkeys(tensor.storage.member for tensor in tensors.values()):
                members.check(member)
        return _to_arrays(members, tensors)
    except ValueError as error:
        raise ValueError(_explained(path, error)) from error


def list_torch_zip(path: str | os.PathLike, *, key: str | None = None) -> dict[str, TensorEntry]:
    """Return type and shape of each tensor of a PyTorch checkpoint; no tensor is read.

    Args and Raises: as `read_torch_zip`.
    """
    path = Path(path)
    try:
        tensors = _find_tensors(ZipMembers.open(path), key)
    except ValueError as error:
        raise ValueError(_explained(path, error)) from error
    return {name: TensorEntry(tensor.kind.name, tensor.shape) for name, tensor in tensors.items()}


def _explained(path: Path, error: ValueError) -> str:
    return f"{path} cannot be read as a PyTorch checkpoint: {error}"


def _find_tensors(members: ZipMembers, key: str | None) -> dict[str, _Tensor]:
    """Return the tensors that the archive's pickle describes, picked as `key` says."""
    root = _root(members)
    if f"{root}byteorder" in members.entries:
        order = members.read(f"{root}byteorder", max_bytes=16)
        if order != b"little":
            raise ValueError(f"its numbers are stored {order.decode('ascii', 'replace')}-endian")
    pickled = members.read(f"{root}data.pkl", max_bytes=MAX_PICKLE_BYTES)
    storages = _Storages(members, root)
    tree = read_pickle(pickled, NAMES, load_persistent=storages.find)
    return select_tensors(tree, _Tensor, key=key)


def _root(members: ZipMembers) -> str:
    """Return the folder inside the archive that everything is in, with a slash at its end."""
    pickles = [name for name in members.entries if name.rsplit("/", 1)[-1] == "data.pkl"]
    if len(pickles) != 1:
        raise ValueError(f"it has {len(pickles)} members called data.pkl instead of one")
    root = pickles[0].removesuffix("data.pkl")
    if not re.fullmatch(r"[^/\\]+/", root) or root in ("./", "../"):
        raise ValueError(f"its data.pkl lies in {root!r}; one plain folder is expected")
    if f"{root}constants.pkl" in members.entries:
        raise ValueError(
            "it is a TorchScript program, not a state dict; save its state_dict() where it was made"
        )
    return root


class _Storages:
    """The storages of an archive, looked up by what the pickle says about them."""

    def __init__(self, members: ZipMembers, root: str) -> None:
        self.members = members
        self.root = root
        self.known: dict[str, _Storage] = {}

    def find(self, reference: Any) -> _Storage:
        """Return the storage for the pickle's ('storage', type, key, device, number of elements).

        Raises:
            ValueError: the reference is malformed, its member is missing, compressed or of another
                size, or the same storage was given another type before.
        """
        match reference:
            case ("storage", NumberType() as kind, str() as key, str(), num_elements) if _is_size(
                num_elements
            ):
                pass
            case _:
                raise ValueError("its pickle refers to a storage in a way that PyTorch does not")
        if not (key.isascii() and key.isdigit() and len(key) <= MAX_KEY_LENGTH):
            raise ValueError(f"its pickle calls a storage {key[:60]!r}; storages have numbers")
        if key not in self.known:
            member = f"{self.root}data/{key}"
            _, num_bytes = self.members.locate(member)
            if num_bytes != num_elements * kind.num_bytes:
                raise ValueError(
                    f"storage {key} has {num_bytes} bytes instead of {num_elements} numbers of "
                    f"type {kind.name}"
                )
            self.known[key] = _Storage(member, kind, num_elements)
        storage = self.known[key]
        if (storage.kind, storage.num_elements) != (kind, num_elements):
            raise ValueError(f"its pickle describes storage {key} in two different ways")
        return storage


# --- what the pickle may name ------------------------------------------------------------------


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    """Return the view of a storage that `torch._utils._rebuild_tensor_v2` stands for."""
    if not isinstance(storage, _Storage) or storage.kind is UNTYPED:
        raise ValueError("its pickle has a tensor without a storage of numbers")
    return _view(storage, storage.kind, offset, shape, strides)


def _rebuild_typed_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, kind: Any, *_: Any
) -> _Tensor:
    """Return the view that `_rebuild_tensor_v3` stands for: bytes, and the type beside them."""
    if not isinstance(storage, _Storage) or storage.kind is not UNTYPED:
        raise ValueError("its pickle has a tensor without a storage of bytes")
    if not isinstance(kind, NumberType):
        shown = kind if isinstance(kind, str) else type(kind).__name__
        raise ValueError(
            f"it has a tensor of type {shown}, which is not supported; convert the file to "
            "float32, float16 or bfloat16"
        )
    if storage.num_elements % kind.num_bytes:
        raise ValueError(f"{storage.member} has {storage.num_elements} bytes, no {kind.name}")
    typed = _Storage(storage.member, kind, storage.num_elements // kind.num_bytes)
    return _view(typed, kind, offset, shape, strides)


def _view(storage: _Storage, kind: NumberType, offset: Any, shape: Any, strides: Any) -> _Tensor:
    """Return a view after checking that it stays inside its storage.

    Python's integers do not overflow, so the largest index is exact however large the lies are.
    """
    well_formed = (
        type(shape) is tuple
        and type(strides) is tuple
        and len(shape) == len(strides) <= MAX_DIMENSIONS
        and all(_is_size(number) for number in (offset, *shape, *strides))
    )
    if not well_formed:
        raise ValueError("its pickle has a tensor whose shape, strides or offset are none")
    if math.prod(max(size, 1) for size in shape) * kind.num_bytes > MAX_BYTES:
        raise ValueError(f"its pickle has a tensor of the impossible shape {_shown(shape)}")
    num_elements = math.prod(shape)
    steps = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if num_elements and offset + steps >= storage.num_elements:
        raise ValueError(
            f"a tensor of shape {_shown(shape)} leaves its storage {storage.member} of "
            f"{storage.num_elements} numbers"
        )
    # What repeats its numbers (expanded tensors) could fill the memory from a tiny file.
    if num_elements > storage.num_elements:
        raise ValueError(
            f"a tensor of shape {_shown(shape)} repeats its storage of {storage.num_elements} "
            "numbers; save it as a tensor of its own where the file was made"
        )
    return _Tensor(storage, kind, offset, shape, strides)


def _is_size(number: Any) -> bool:
    return type(number) is int and number >= 0


def _shown(shape: Sequence[int]) -> str:
    return str(list(shape))


def _rebuild_parameter(tensor: Any, *_: Any) -> _Tensor:
    """Return the tensor of a parameter; whether it is trained is not kept."""
    if not isinstance(tensor, _Tensor):
        raise ValueError("its pickle has a parameter that is not a tensor")
    return tensor


def _ordered_dict() -> dict:
    return {}


def _size(sizes: Any = ()) -> tuple:
    if type(sizes) is not tuple:
        raise ValueError("its pickle has a torch.Size that is not a tuple")
    return sizes


def _device(*_: Any) -> str:
    return "device"


NAMES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): Function(_ordered_dict),
    ("torch", "Size"): Function(_size),
    ("torch", "device"): Function(_device),
    ("torch._utils", "_rebuild_tensor"): Function(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Function(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v3"): Function(_rebuild_typed_tensor),
    ("torch._utils", "_rebuild_parameter"): Function(_rebuild_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): Function(_rebuild_parameter),
    ("torch.storage", "UntypedStorage"): UNTYPED,
    **{("torch", name): NUMBER_TYPES[kind] for name, kind in STORAGE_TYPES.items()},
    **{("torch", kind): NUMBER_TYPES[kind] for kind in NUMBER_TYPES},
    # Types that can be named but not read; the message about them comes with the tensor.
    **{("torch", name): name for name in UNREADABLE_TYPES},
}


# --- numbers -----------------------------------------------------------------------------------


def _extent(tensor: _Tensor) -> tuple[int, int]:
    """Return the first element of its storage that a tensor has, and the one after its last."""
    steps = zip(tensor.shape, tensor.strides, strict=True)
    return tensor.offset, tensor.offset + sum((size - 1) * stride for size, stride in steps) + 1


def _to_arrays(members: ZipMembers, tensors: Mapping[str, _Tensor]) -> dict[str, np.ndarray]:
    """Return the tensors as views of their storages, each of which is there once.

    A storage is a part of the memory map where its type and alignment allow; else that part of it
    is copied which the tensors use.
    """
    extents: dict[_Storage, tuple[int, int]] = {}
    for tensor in tensors.values():
        if 0 not in tensor.shape:
            begin, end = _extent(tensor)
            first, last = extents.get(tensor.storage, (begin, end))
            extents[tensor.storage] = (min(begin, first), max(end, last))
    parts = {storage: _numbers(members, storage, *extents[storage]) for storage in extents}
    arrays = {}
    for name, tensor in tensors.items():
        if 0 in tensor.shape:
            empty = np.empty(0, np.dtype(tensor.kind.code))
            arrays[name] = _plain_numbers(empty, tensor.kind).reshape(tensor.shape)
            continue
        part = parts[tensor.storage][tensor.offset - extents[tensor.storage][0] :]
        # A stride along one element is never used, and may be anything.
        steps = [
            stride * part.itemsize if size > 1 else 0
            for size, stride in zip(tensor.shape, tensor.strides, strict=True)
        ]
        view = np.lib.stride_tricks.as_strided(part, tensor.shape, steps, writeable=False)
        arrays[name] = view
    return arrays


def _numbers(members: ZipMembers, storage: _Storage, begin: int, end: int) -> np.ndarray:
    """Return the numbers `begin` to `end` of a storage: a view of the memory map, or a copy."""
    dtype = np.dtype(storage.kind.code)
    start = members.locate(storage.member)[0] + begin * dtype.itemsize
    flat = np.frombuffer(members.data, dtype, count=end - begin, offset=start)
    plain = _plain_numbers(flat, storage.kind)
    return plain if plain.flags.aligned else plain.copy()


def _plain_numbers(flat: np.ndarray, kind: NumberType) -> np.ndarray:
    """Return stored numbers as a type that numpy has."""
    if kind.name == "bfloat16":
        return widen_bfloat16(flat)
    return flat != 0 if kind.name == "bool" else flat
