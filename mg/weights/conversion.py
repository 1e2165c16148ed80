"""Weight files from one format to another, and to another number type."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from mg.dtypes import DTYPES
from mg.weights.bfloat16 import narrow_to_bfloat16, widen_bfloat16
from mg.weights.checkpoint_file import (
    check_writable_suffix,
    file_format,
    find_weights,
    list_tensors,
    read_weights,
    write_weights,
)
from mg.weights.name_rules import Part, take_part
from mg.weights.own_tensors import own_names, own_tensors
from mg.weights.safetensors_file import INDEX_SUFFIX, read_safetensors_metadata
from mg.weights.tensor_entry import TensorEntry
from mg.weights.transformer_names import check_positions, find_original

__all__ = ["convert_weights"]


class _Converted(Mapping[str, np.ndarray]):
    """Tensors that are cut and converted when asked for, so that one at a time is in memory."""

    def __init__(
        self,
        tensors: Mapping[str, np.ndarray],
        parts: Mapping[str, Part],
        convert: Callable[[str, np.ndarray], np.ndarray],
    ) -> None:
        self.tensors = tensors
        self.parts = parts
        self.convert = convert

    def __getitem__(self, name: str) -> np.ndarray:
        part = self.parts[name]
        return self.convert(name, take_part(self.tensors[part.name], part))

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)


def convert_weights(
    source: str | os.PathLike,
    target: str | os.PathLike,
    *,
    dtype: str | None = None,
    key: str | None = None,
    keep_names: bool = False,
    overwrite: bool = False,
) -> None:
    """Write the network in `source` to `target`, in the format that its extension names.

    Shapes stay as they are, and so do names without the prefixes that wrappers put before all of
    them; what is not the network's own, such as its loss, is left out (`mg.weights.own_tensors`).
    Transformers of CogVideoX and HunyuanVideo under their original names get diffusers' names, and
    the maps that diffusers has apart are cut (`mg.weights.transformer_names`).
    The metadata of one safetensors file go into another.

    Args:
        source: as for `mg.weights.checkpoint_file.read_weights`.
        target: a name ending in .safetensors, .pt, .pth, .bin (PyTorch) or .ckpt (MindSpore).
        dtype: the type of floating-point tensors in the target, one of `DTYPES`; None keeps each
            as it is. Integers and booleans always stay.
        key: the weights to take from a file that holds several (`read_weights`).
        keep_names: whether original names stay.
        overwrite: whether an existing file may be replaced.

    Raises:
        FileNotFoundError, ValueError: as `read_weights`; an unknown `dtype`, a number that it
            cannot hold, or a type that the target's format cannot hold.
        FileExistsError: `target` exists and `overwrite` is false.
        OSError: the file could not be written; nothing is left behind.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; choose one of {', '.join(DTYPES)}")
    check_writable_suffix(target)
    source = find_weights(source)
    entries = list_tensors(source, key=key)
    own = own_tensors(entries)
    files_names = {own: name for name, own in own_names(_shapes(entries)).items()}
    original = None if keep_names else find_original(_shapes(own))
    parts = {name: Part(name) for name in own} if original is None else original.parts

    def convert(name: str, array: np.ndarray) -> np.ndarray:
        # Reading widens bfloat16: without a dtype it goes back to what it was, exactly.
        stored = own[parts[name].name].dtype
        wanted = dtype or ("bfloat16" if stored == "bfloat16" else None)
        return array if wanted is None or array.dtype.kind != "f" else _cast(name, array, wanted)

    loaded = read_weights(source, key=key)
    loaded = {name: loaded[in_file] for name, in_file in files_names.items()}
    if original is not None:
        check_positions(loaded, original)
    tensors = _Converted(loaded, parts, convert)
    metadata = _metadata(source) if Path(target).suffix == ".safetensors" else None
    write_weights(target, tensors, metadata=metadata, overwrite=overwrite)


def _shapes(entries: Mapping[str, TensorEntry]) -> dict[str, tuple[int, ...]]:
    return {name: entry.shape for name, entry in entries.items()}


def _cast(name: str, array: np.ndarray, dtype: str) -> np.ndarray:
    """Return floating-point numbers in another type.

    Raises:
        ValueError: a finite number becomes infinite.
    """
    if dtype == "bfloat16":
        cast = narrow_to_bfloat16(array)
        numbers = widen_bfloat16(cast["bfloat16"])
    else:
        with np.errstate(over="ignore"):
            cast = numbers = array.astype(dtype)
    if (np.isinf(numbers) & np.isfinite(array)).any():
        raise ValueError(
            f"tensor {name!r} holds numbers beyond {dtype}'s range; choose a type with a wider one"
        )
    return cast


def _metadata(source: Path) -> dict[str, str]:
    if file_format(source) != "safetensors" or source.name.endswith(INDEX_SUFFIX):
        return {}
    metadata = read_safetensors_metadata(source)
    metadata.pop("format", None)  # which framework wrote it; now it is another
    return metadata
