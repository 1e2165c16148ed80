"""PyTorch checkpoints (`.pt`, `.pth`, `.bin`, `.ckpt`) as numpy arrays, read without PyTorch.

Since version 1.6 `torch.save` writes a zip archive without compression:

    NAME/data.pkl   a pickle of the saved object; each tensor in it refers to a storage by a key
    NAME/data/KEY   the numbers of one storage; several tensors may be views of it
    NAME/byteorder  `little` or `big` (newer versions)

No pickle is run: `mg.weights.safe_pickle` reads it as data, knows the names that
`mg.weights.torch_names` lists, and leaves out what training programs keep beside weights. Every
size, offset and stride is checked against the storage it is for.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mg.weights.bfloat16 import widen_bfloat16
from mg.weights.safe_pickle import read_pickle
from mg.weights.state_dict_tree import select_tensors
from mg.weights.tensor_entry import TensorEntry
from mg.weights.torch_names import NAMES, NumberType, Storage, StoredTensor, is_size
from mg.weights.zip_members import ZipMembers

__all__ = ["is_torch_zip", "list_torch_zip", "read_torch_zip"]

MAX_PICKLE_BYTES = 16 * 2**20  # a state dict needs about 120 bytes per tensor
MAX_KEY_LENGTH = 20


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
    usual names (`state_dict`, `module`, `model`, `ema_state_dict`, ...), that dict is returned, of
    several the one with averaged weights; everything else that is left out is logged. Names of
    dicts inside dicts are joined with dots.

    Args:
        path: the file.
        key: where to begin, with dots between names of dicts inside dicts: `state_dict.gen_model`.
            Needed when there are several dicts of tensors and none or two are averages.
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


def _find_tensors(members: ZipMembers, key: str | None) -> dict[str, StoredTensor]:
    """Return the tensors that the archive's pickle describes, picked as `key` says."""
    root = _root(members)
    if f"{root}byteorder" in members.entries:
        order = members.read(f"{root}byteorder", max_bytes=16)
        if order != b"little":
            raise ValueError(f"its numbers are stored {order.decode('ascii', 'replace')}-endian")
    pickled = members.read(f"{root}data.pkl", max_bytes=MAX_PICKLE_BYTES)
    storages = _Storages(members, root)
    tree = read_pickle(pickled, NAMES, load_persistent=storages.find)
    return select_tensors(tree, StoredTensor, key=key)


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
        self.known: dict[str, Storage] = {}

    def find(self, reference: Any) -> Storage:
        """Return the storage for the pickle's ('storage', type, key, device, number of elements).

        Raises:
            ValueError: the reference is malformed, its member is missing, compressed or of another
                size, or the same storage was given another type before.
        """
        match reference:
            case ("storage", NumberType() as kind, str() as key, str(), num_elements) if is_size(
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
            self.known[key] = Storage(member, kind, num_elements)
        storage = self.known[key]
        if (storage.kind, storage.num_elements) != (kind, num_elements):
            raise ValueError(f"its pickle describes storage {key} in two different ways")
        return storage


def _extent(tensor: StoredTensor) -> tuple[int, int]:
    """Return the first element of its storage that a tensor has, and the one after its last."""
    steps = zip(tensor.shape, tensor.strides, strict=True)
    return tensor.offset, tensor.offset + sum((size - 1) * stride for size, stride in steps) + 1


def _to_arrays(members: ZipMembers, tensors: Mapping[str, StoredTensor]) -> dict[str, np.ndarray]:
    """Return the tensors as views of their storages, each of which is there once.

    A storage is a part of the memory map where its type and alignment allow; else that part of it
    is copied which the tensors use.
    """
    extents: dict[Storage, tuple[int, int]] = {}
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


def _numbers(members: ZipMembers, storage: Storage, begin: int, end: int) -> np.ndarray:
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
