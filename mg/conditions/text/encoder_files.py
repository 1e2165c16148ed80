"""Files of a pretrained text encoder: config, weights (whole or in shards), what they hash to."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mg.console import one_line
from mg.file_names import CONFIG_FILE
from mg.files import sha256_of_file
from mg.json_file import read_json, read_json_object
from mg.weights.checkpoint_file import find_weights, list_tensors, read_weights
from mg.weights.safetensors_file import (
    INDEX_SUFFIX,
    MAX_INDEX_BYTES,
    read_shards,
    safetensors_files,
)
from mg.weights.tensor_entry import TensorEntry

__all__ = [
    "config_number",
    "encoder_tensors",
    "list_encoder_tensors",
    "read_encoder_config",
    "sha256_of_all",
    "weight_files",
]

TORCH_INDEX = "pytorch_model.bin.index.json"
MAX_SIZE = 1 << 20  # of width, vocabulary and positions


def read_encoder_config(folder: Path, kind: str) -> dict[str, Any]:
    """Return the fields of an encoder's config.json, of a model of text and pictures those of text.

    Args:
        folder: of the encoder.
        kind: what the message calls it.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged.
    """
    path = folder / CONFIG_FILE
    try:
        config = read_json_object(path)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} not found; expected a folder with {CONFIG_FILE}, weights and tokenizer of a "
            f"{kind} encoder"
        ) from None
    whole = config.get("text_config")  # of a whole CLIP or Llava
    return whole if isinstance(whole, dict) else config


def config_number(config: dict[str, Any], key: str, folder: Path) -> int:
    """Return a size that a config states.

    Args:
        config: the fields of config.json.
        key: of the size.
        folder: of the encoder, for the message.

    Raises:
        ValueError: it is missing or out of range.
    """
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_SIZE:
        raise ValueError(
            f"{folder / CONFIG_FILE}: {key} is {one_line(repr(value))}, expected a whole number "
            f"from 1 to {MAX_SIZE}"
        )
    return value


def weight_files(folder: Path) -> list[Path]:
    """Return the files with a folder's weights: one, or all shards.

    Raises:
        FileNotFoundError: there are none, or a shard is missing.
        ValueError: several candidates, or a damaged index.
    """
    sources = _sources(folder)
    return safetensors_files(sources[0]) if _is_index(sources[0]) else sources


def list_encoder_tensors(folder: Path) -> dict[str, TensorEntry]:
    """Return type and shape of each tensor of a folder's weights; none is read.

    Raises:
        FileNotFoundError, ValueError: as `weight_files`; or damaged files.
    """
    entries: dict[str, TensorEntry] = {}
    for source in _sources(folder):
        entries |= list_tensors(source)
    return entries


def encoder_tensors(folder: Path) -> Iterator[dict[str, np.ndarray]]:
    """Yield the tensors of a folder's weights, file by file.

    Raises:
        FileNotFoundError, ValueError: as `list_encoder_tensors`.
    """
    for source in _sources(folder):
        if _is_index(source):
            yield from read_shards(source)
        else:
            yield read_weights(source)


def _is_index(path: Path) -> bool:
    return path.name.endswith(INDEX_SUFFIX)


def _sources(folder: Path) -> list[Path]:
    """Return a folder's weight file, the index of safetensors shards, or shards of PyTorch."""
    has_safetensors = any(folder.glob("*.safetensors"))
    if has_safetensors or not (folder / TORCH_INDEX).is_file():
        return [find_weights(folder)]
    index = folder / TORCH_INDEX
    try:
        content = read_json(index, max_bytes=MAX_INDEX_BYTES)
        names = sorted(set(content["weight_map"].values()))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{index} is not an index of shards: {error}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise ValueError(f"{index} names {name!r}; shards must stand in the folder itself")
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{index} names {name}, which is not beside it")
    return [folder / name for name in names]


def sha256_of_all(files: Sequence[Path]) -> str:
    """Return the SHA-256 of a file, or of those of several in the order of their names."""
    digests = [sha256_of_file(file) for file in sorted(files)]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode("ascii")).hexdigest()
