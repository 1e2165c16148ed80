"""What is in a weight file: format, sizes, tensors by module, checksum, and a guess of the family.

The tensors are not read, so a file of 30 GB takes no longer than a small one, checksum aside.
"""

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mg.files import sha256_of_file
from mg.weights.checkpoint_file import file_format, find_weights, list_tensors
from mg.weights.families import FAMILIES, guess_family
from mg.weights.own_tensors import own_names
from mg.weights.safetensors_file import safetensors_files
from mg.weights.tensor_entry import TensorEntry
from mg.weights.transformer_names import find_original

__all__ = ["CheckpointReport", "inspect_checkpoint"]

FORMAT_NAMES = {
    "safetensors": "safetensors",
    "pt": "PyTorch (zip)",
    "ckpt": "MindSpore checkpoint",
    "npz": "numpy archive",
}
INDENT = "  "


@dataclass(frozen=True)
class FileReport:
    """One of the files that the tensors are in."""

    path: Path
    num_bytes: int
    sha256: str | None  # None if it was not asked for


@dataclass(frozen=True)
class CheckpointReport:
    """What a weight file holds; `str()` of it is a text to read."""

    path: Path
    format: str  # safetensors, pt, ckpt (MindSpore) or npz
    files: tuple[FileReport, ...]
    tensors: Mapping[str, TensorEntry]
    family: str | None  # a key of `mg.weights.families.FAMILIES`

    @property
    def num_parameters(self) -> int:
        """The number of numbers in all tensors."""
        return sum(math.prod(entry.shape) for entry in self.tensors.values())

    @property
    def dtypes(self) -> dict[str, int]:
        """The number of tensors of each number type, most frequent first."""
        return dict(Counter(entry.dtype for entry in self.tensors.values()).most_common())

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return {
            "path": str(self.path),
            "format": self.format,
            "family": self.family,
            "num_tensors": len(self.tensors),
            "num_parameters": self.num_parameters,
            "dtypes": self.dtypes,
            "files": [
                {"path": str(file.path), "num_bytes": file.num_bytes, "sha256": file.sha256}
                for file in self.files
            ],
            "tensors": {
                name: {"dtype": entry.dtype, "shape": list(entry.shape)}
                for name, entry in self.tensors.items()
            },
        }

    def __str__(self) -> str:
        kinds = ", ".join(f"{dtype} ({number})" for dtype, number in self.dtypes.items())
        meaning = f": {FAMILIES[self.family].description}" if self.family else ""
        lines = [
            f"file        {self.path}",
            f"format      {FORMAT_NAMES[self.format]}",
            f"family      {self.family or 'unknown'}{meaning}",
            f"tensors     {len(self.tensors)}: {kinds}",
            f"parameters  {self.num_parameters:,}",
        ]
        lines += _own_lines({name: entry.shape for name, entry in self.tensors.items()})
        for file in self.files:
            lines.append(f"bytes       {file.num_bytes:,}  {file.path.name}")
            lines += [f"sha256      {file.sha256}"] if file.sha256 else []
        return "\n".join([*lines, "", *_tree_lines(self.tensors)])


def inspect_checkpoint(
    path: str | os.PathLike, *, key: str | None = None, sha256: bool = False
) -> CheckpointReport:
    """Return what a weight file holds, without reading its tensors; `print` it to see all.

    Args:
        path: as for `mg.weights.checkpoint_file.read_weights`.
        key: the weights to look at in a file that holds several (`read_weights`).
        sha256: whether to hash the file, or each shard. This reads all of it.

    Raises:
        FileNotFoundError, ValueError: as `read_weights`.
    """
    path = find_weights(path)
    kind = file_format(path)
    tensors = list_tensors(path, key=key)
    files = safetensors_files(path) if kind == "safetensors" else [path]
    return CheckpointReport(
        path=path,
        format=kind,
        files=tuple(
            FileReport(file, file.stat().st_size, sha256_of_file(file) if sha256 else None)
            for file in files
        ),
        tensors=tensors,
        family=guess_family({name: entry.shape for name, entry in tensors.items()}),
    )


def _own_lines(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return lines about what loading and conversion take off the names, and leave out."""
    try:
        names = own_names(shapes)
    except ValueError as error:  # several networks, from which `key` chooses
        return [f"network     {error}"]
    prefixes = {name.removesuffix(own) for name, own in names.items() if name != own}
    lines = [f"prefix      {_printable(prefix)} (taken off by loading)" for prefix in prefixes]
    if len(names) < len(shapes):
        lines.append(f"beside it   {len(shapes) - len(names)} tensors (left out by loading)")
    return lines + _original_lines({own: shapes[name] for name, own in names.items()})


def _original_lines(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return a line about what becomes of a transformer under its original names."""
    try:
        original = find_original(shapes)
    except ValueError as error:
        return [f"names       {error}"]
    if original is None:
        return []
    return [
        f"names       original; loading and conversion give {len(original.parts)} tensors under "
        "diffusers' names"
    ]


def _tree_lines(tensors: Mapping[str, TensorEntry]) -> Iterator[str]:
    """Yield one line per module, with its parameter count, and per tensor, indented by depth."""
    sizes: Counter[tuple[str, ...]] = Counter()
    for name, entry in tensors.items():
        parts = tuple(name.split("."))
        for depth in range(1, len(parts)):
            sizes[parts[:depth]] += math.prod(entry.shape)
    before: list[str] = []
    for name in sorted(tensors, key=_natural_order):
        *modules, last = name.split(".")
        shared = len(os.path.commonprefix([before, modules]))
        for depth in range(shared, len(modules)):
            size = sizes[tuple(modules[: depth + 1])]
            yield f"{INDENT * depth}{_printable(modules[depth])}  ({size:,})"
        dtype, shape = tensors[name]
        yield f"{INDENT * len(modules)}{_printable(last)}  {list(shape)} {dtype}"
        before = modules


def _natural_order(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts names by module, and numbers in them by value."""
    return [(0, len(part), part) if part.isdecimal() else (1, 0, part) for part in name.split(".")]


def _printable(text: str) -> str:
    """Return a name from a file so that it cannot steer the terminal."""
    return text if text.isprintable() else ascii(text)
