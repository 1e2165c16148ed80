"""Reading and writing weight files of any supported kind, recognised by their content.

Read: safetensors (single or in shards), PyTorch (zip: `.pt`, `.pth`, `.bin`, `.ckpt`), MindSpore
`.ckpt`, numpy `.npz`. Written: safetensors, PyTorch, MindSpore.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from mg.file_names import WEIGHTS_FILE
from mg.input_files import check_input_file
from mg.shipped import find_shipped
from mg.weights.mindspore_ckpt import list_mindspore_ckpt, read_mindspore_ckpt, write_mindspore_ckpt
from mg.weights.npz_file import is_npz, list_npz, read_npz
from mg.weights.safetensors_file import (
    INDEX_SUFFIX,
    find_in_folder,
    list_safetensors,
    read_safetensors,
    write_safetensors,
)
from mg.weights.state_dict_tree import names_under
from mg.weights.tensor_entry import TensorEntry
from mg.weights.torch_zip import is_torch_zip, list_torch_zip, read_torch_zip
from mg.weights.torch_zip_writer import write_torch_zip
from mg.weights.zip_members import ZIP_MAGIC, ZipMembers

__all__ = [
    "FORMATS",
    "WRITABLE_SUFFIXES",
    "check_writable_suffix",
    "file_format",
    "find_weights",
    "list_tensors",
    "load_state_dict_from_file",
    "read_weights",
    "save_state_dict_to_file",
    "write_weights",
]

Tensor = TypeVar("Tensor")

# Format -> extensions of the files that are written in it.
FORMATS = {
    "safetensors": (".safetensors",),
    "pt": (".pt", ".pth", ".bin"),  # PyTorch
    "ckpt": (".ckpt",),  # MindSpore; PyTorch files of this name are recognised by their content
}
WRITABLE_SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)

# What to look for in a folder, best first: diffusers' names, then any safetensors, then others.
FOLDER_PATTERNS = (
    f"diffusion_pytorch_model{INDEX_SUFFIX}",
    WEIGHTS_FILE,
    f"*{INDEX_SUFFIX}",
    "*.safetensors",
    "*.ckpt",
    "*.pt",
    "*.pth",
    "*.bin",
    "*.npz",
)
# Where the autoencoder stands in the folder of a pipeline: diffusers', ours, HunyuanVideo's.
VAE_FOLDERS = ("vae", "autoencoder", "tae", "hunyuan-video-t2v-720p/vae")
PICKLE_MAGICS = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
TAR_MAGIC = (257, b"ustar")


def read_weights(path: str | os.PathLike, *, key: str | None = None) -> dict[str, np.ndarray]:
    """Return the tensors of a weight file, its kind recognised by its content.

    bfloat16 is widened to float32 (exactly). Arrays may be read-only views of the file.

    Args:
        path: a safetensors, PyTorch, MindSpore or `.npz` file, a `*.safetensors.index.json` of
            shards, or a folder that holds one of these (safetensors are preferred).
        key: the weights to take from a file that holds several: the name of a dict in a PyTorch
            file, such as `state_dict`, or what the names of the tensors begin with. None takes
            those averaged over training where a PyTorch file holds some beside others.

    Raises:
        FileNotFoundError: no such file, or nothing usable in the folder.
        ValueError: damaged file, another format (with what to do about it), or no such key.
    """
    path = find_weights(path)
    kind = file_format(path)
    if kind == "pt":
        return read_torch_zip(path, key=key)
    readers = {"safetensors": read_safetensors, "ckpt": read_mindspore_ckpt, "npz": read_npz}
    return _under_key(readers[kind](path), path, key)


def list_tensors(path: str | os.PathLike, *, key: str | None = None) -> dict[str, TensorEntry]:
    """Return type and shape of every tensor of a weight file, without reading the tensors.

    Args and Raises: as `read_weights`. Checksums of the contents are not checked.
    """
    path = find_weights(path)
    kind = file_format(path)
    if kind == "pt":
        return list_torch_zip(path, key=key)
    listers = {"safetensors": list_safetensors, "ckpt": list_mindspore_ckpt, "npz": list_npz}
    return _under_key(listers[kind](path), path, key)


def load_state_dict_from_file(
    path: str | os.PathLike, *, key: str | None = None
) -> dict[str, np.ndarray]:
    """Return the tensors of a weight file of any supported kind (`read_weights`)."""
    return read_weights(path, key=key)


def save_state_dict_to_file(
    state_dict: Mapping[str, np.ndarray],
    path: str | os.PathLike,
    format: str | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write tensors to a weight file.

    Args:
        state_dict: the arrays by name.
        path: the file to write; parent folders are made.
        format: `safetensors`, `pt` (PyTorch) or `ckpt` (MindSpore); None takes it from the
            extension of `path`.
        overwrite: whether an existing file may be replaced.

    Raises:
        FileExistsError: `path` exists and `overwrite` is false.
        ValueError: an unknown format, or one that contradicts the extension; or a number type
            that the format cannot hold.
        OSError: the file could not be written; nothing is left behind.
    """
    if format is not None:
        if format not in FORMATS:
            raise ValueError(f"unknown format {format!r}; known are {', '.join(FORMATS)}")
        suffixes = FORMATS[format]
        if Path(path).suffix not in suffixes:
            raise ValueError(
                f"format={format!r} is written to files ending in {', '.join(suffixes)}, not to "
                f"{path}"
            )
    write_weights(path, state_dict, overwrite=overwrite)


def file_format(path: Path) -> str:
    """Return `safetensors`, `pt` (PyTorch), `ckpt` (MindSpore) or `npz`, as the content says.

    Args:
        path: a file, or the index of safetensors shards.

    Raises:
        ValueError: none of these, with what to do about it.
    """
    check_input_file(path)
    if path.name.endswith(INDEX_SUFFIX):
        return "safetensors"
    with open(path, "rb") as file:
        head = file.read(TAR_MAGIC[0] + len(TAR_MAGIC[1]))
    if not head:
        raise ValueError(f"{path} is empty (0 bytes); fetch or save it again")
    # A safetensors file begins with its header's length in 8 bytes, then the header's brace. It is
    # asked first: a length may begin with the byte that pickles begin with.
    if head[8:9] == b"{":
        return "safetensors"
    if head.startswith(ZIP_MAGIC):
        return _zip_format(path)
    if head.startswith(PICKLE_MAGICS) or head[TAR_MAGIC[0] :] == TAR_MAGIC[1]:
        raise ValueError(
            f"{path} is a PyTorch file of before version 1.6, whose reading runs programs; where "
            "PyTorch is at hand, convert it with torch.save(torch.load(old, weights_only=True), "
            "new), or use the .safetensors file of the same weights"
        )
    suffixes = {".safetensors": "safetensors", ".ckpt": "ckpt"}  # whose readers say what is wrong
    if path.suffix in suffixes:
        return suffixes[path.suffix]
    raise ValueError(
        f"{path} is not a recognised weight file; expected safetensors, PyTorch (zip), "
        f"MindSpore .ckpt, .npz, *{INDEX_SUFFIX}, or a folder with one of them"
    )


def _zip_format(path: Path) -> str:
    try:
        members = ZipMembers.open(path)
    except ValueError as error:
        raise ValueError(f"{path} begins like a PyTorch or numpy archive, but {error}") from error
    if is_torch_zip(members):
        return "pt"
    if is_npz(members):
        return "npz"
    raise ValueError(f"{path} is a zip archive, but neither a PyTorch checkpoint nor numpy arrays")


def _under_key(tensors: dict[str, Tensor], path: Path, key: str | None) -> dict[str, Tensor]:
    """Return the tensors of a file whose names begin with `key` and a dot, without that."""
    if key is None:
        return tensors
    try:
        return names_under(tensors, key)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def find_weights(path: str | os.PathLike) -> Path:
    """Return the weight file that `path` means: itself, or the one in the folder it names.

    A path such as `assets/tae_tiny` is found from any folder (`mg.shipped`). Of the folder of a
    whole pipeline it is the autoencoder's (`VAE_FOLDERS`).

    Raises:
        FileNotFoundError: no such file, or nothing usable in the folder.
        ValueError: several candidates in the folder.
    """
    path = Path(find_shipped(path))
    if path.is_dir():
        inner = (path / name for name in VAE_FOLDERS)
        return find_in_folder(next(filter(Path.is_dir, inner), path), FOLDER_PATTERNS)
    check_input_file(path)
    return path


def write_weights(
    path: str | os.PathLike,
    tensors: Mapping[str, np.ndarray],
    *,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write `tensors` as safetensors, PyTorch or MindSpore file, by the extension of `path`.

    Args:
        path: a name ending in one of `WRITABLE_SUFFIXES`; parent folders are made.
        tensors: the arrays by name.
        metadata: texts for the header of a safetensors file; the others have no place for them.
        overwrite: whether an existing file may be replaced.

    Raises:
        FileExistsError: `path` exists and `overwrite` is false.
        ValueError: another extension, metadata for another format than safetensors, or a type
            that the format cannot hold.
        OSError: the file could not be written; nothing is left behind.
    """
    check_writable_suffix(path)
    suffix = Path(path).suffix
    if suffix in FORMATS["safetensors"]:
        write_safetensors(path, tensors, metadata=metadata, overwrite=overwrite)
        return
    if metadata:
        raise ValueError(f"{path}: a {suffix} file holds no metadata; write a .safetensors file")
    write = write_mindspore_ckpt if suffix in FORMATS["ckpt"] else write_torch_zip
    write(path, tensors, overwrite=overwrite)


def check_writable_suffix(path: str | os.PathLike) -> None:
    """Raise ValueError unless `path` ends in an extension that `write_weights` knows."""
    if Path(path).suffix not in WRITABLE_SUFFIXES:
        raise ValueError(
            f"{path}: the extension decides the format and must be one of "
            f"{', '.join(WRITABLE_SUFFIXES)}"
        )
