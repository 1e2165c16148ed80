"""What the pickle of a PyTorch checkpoint may name: types of numbers, storages and views of them.

Nothing of PyTorch is called: its functions that rebuild tensors stand for checks and for records
of where the numbers are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mg.weights.safe_pickle import Function

__all__ = ["NAMES", "NumberType", "Storage", "StoredTensor", "is_size"]

MAX_DIMENSIONS = 32  # numpy's limit
MAX_BYTES = 2**62


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
class Storage:
    """One storage: the archive's member that holds it, and how its numbers are to be read."""

    member: str
    kind: NumberType
    num_elements: int


@dataclass(frozen=True)
class StoredTensor:
    """A view of a storage: `offset` and `strides` count elements."""

    storage: Storage
    kind: NumberType
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> StoredTensor:
    """Return the view of a storage that `torch._utils._rebuild_tensor_v2` stands for."""
    if not isinstance(storage, Storage) or storage.kind is UNTYPED:
        raise ValueError("its pickle has a tensor without a storage of numbers")
    return _view(storage, storage.kind, offset, shape, strides)


def _rebuild_typed_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, kind: Any, *_: Any
) -> StoredTensor:
    """Return the view that `_rebuild_tensor_v3` stands for: bytes, and the type beside them."""
    if not isinstance(storage, Storage) or storage.kind is not UNTYPED:
        raise ValueError("its pickle has a tensor without a storage of bytes")
    if not isinstance(kind, NumberType):
        shown = kind if isinstance(kind, str) else type(kind).__name__
        raise ValueError(
            f"it has a tensor of type {shown}, which is not supported; convert the file to "
            "float32, float16 or bfloat16"
        )
    if storage.num_elements % kind.num_bytes:
        raise ValueError(f"{storage.member} has {storage.num_elements} bytes, no {kind.name}")
    typed = Storage(storage.member, kind, storage.num_elements // kind.num_bytes)
    return _view(typed, kind, offset, shape, strides)


def _view(
    storage: Storage, kind: NumberType, offset: Any, shape: Any, strides: Any
) -> StoredTensor:
    """Return a view after checking that it stays inside its storage.

    Python's integers do not overflow, so the largest index is exact however large the lies are.
    """
    well_formed = (
        type(shape) is tuple
        and type(strides) is tuple
        and len(shape) == len(strides) <= MAX_DIMENSIONS
        and all(is_size(number) for number in (offset, *shape, *strides))
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
    return StoredTensor(storage, kind, offset, shape, strides)


def is_size(number: Any) -> bool:
    """Return whether what a pickle says is a whole number of 0 or more."""
    return type(number) is int and number >= 0


def _shown(shape: Sequence[int]) -> str:
    return str(list(shape))


def _rebuild_parameter(tensor: Any, *_: Any) -> StoredTensor:
    """Return the tensor of a parameter; whether it is trained is not kept."""
    if not isinstance(tensor, StoredTensor):
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
