"""Latent files: a video's latent with all that is needed to decode it, as .safetensors or .npz.

Contents
    mean, logvar   float32 (C, T', H', W'), unscaled: the spec says how a generator sees them
    metadata       the fields of `LatentInfo` as JSON
A .safetensors file is written piece by piece in constant memory; an .npz is put together in memory.
"""

import contextlib
import dataclasses
import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mg.files import atomic_path
from mg.json_file import parse_json
from mg.latent_spec import LatentSpec
from mg.type_checks import check_types
from mg.weights.npz_file import list_npz, read_npz, read_npz_text
from mg.weights.safetensors_file import (
    list_safetensors,
    read_safetensors,
    read_safetensors_metadata,
)
from mg.weights.tensor_entry import TensorEntry

__all__ = [
    "LATENT_SUFFIXES",
    "Latent",
    "LatentInfo",
    "LatentWriter",
    "list_latent_files",
    "read_latent",
    "read_latent_info",
]

LATENT_SUFFIXES = (".safetensors", ".npz")
TENSOR_NAMES = ("mean", "logvar")
METADATA_KEY = "latent_info"
MAX_INFO_BYTES = 1 << 20
MAX_LEVELS = 16  # of an autoencoder; each halves the size
MAX_COMPRESSION = 100  # of a latent in a compressed .npz: what is not noise is not compressed more


@dataclasses.dataclass(frozen=True)
class LatentInfo:
    """What a latent was made from, and with.

    Attributes:
        num_frames, height, width: of the video that was encoded, in frames and pixels.
        fps: frames per second; 0 where none is known.
        source: name of the video file.
        config: the autoencoder's config as a mapping.
        config_hash: of the config (see `mg.pipelines.autoencoder.config_hash`).
        weights_hash: of the network's parameters.
        settings: what else decides the numbers: tiles, precision.
        family: of the autoencoder.
        spec: the fields of the `LatentSpec`; None, as in older files, reads it off a TAE's config.
    """

    num_frames: int
    height: int
    width: int
    fps: float
    source: str
    config: dict
    config_hash: str
    weights_hash: str
    settings: dict
    family: str = "tae"
    spec: dict | None = None

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("num_frames", "height", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; expected 1 or more")
        if self.spec is None:
            object.__setattr__(self, "spec", _spec_of_older(self.config).to_dict())
        self.latent_shape()

    @property
    def latent_spec(self) -> LatentSpec:
        """What the latents of this autoencoder are."""
        return LatentSpec.from_mapping(self.spec)

    def latent_shape(self) -> tuple[int, int, int, int]:
        """Return (C, T', H', W') of the latent."""
        return self.latent_spec.latent_shape(self.num_frames, self.height, self.width)


def _spec_of_older(config: Mapping[str, Any]) -> LatentSpec:
    """Return the spec of the latents of a TAE, of which older files tell the config alone."""
    lists = [config.get(key) for key in ("temporal_downsample_level", "ch_mult")]
    channels = config.get("z_channels")
    if (
        not all(isinstance(value, list | tuple) and len(value) <= MAX_LEVELS for value in lists)
        or not isinstance(channels, int)
        or channels < 1
    ):
        raise ValueError("its config is not that of an autoencoder")
    side = 2 ** (len(config["ch_mult"]) - 1)
    return LatentSpec(
        channels,
        t=2 ** len(config["temporal_downsample_level"]),
        h=side,
        w=side,
        factor=config.get("scaling_factor", 1.0),
        offset=config.get("shift_factor", 0.0),
    )


@dataclasses.dataclass(frozen=True)
class Latent:
    """One latent file: mean and logvar, float32 (C, T', H', W'), and where they come from."""

    mean: np.ndarray
    logvar: np.ndarray
    info: LatentInfo


class LatentWriter:
    """Writes a latent piece by piece; a context manager.

    The file appears under its name only when the block ends well and all of it was written.

    Args:
        path: ends in .safetensors or .npz.
        info: says how large the latent will be.
        overwrite: whether an existing file may be replaced.

    Raises:
        FileExistsError: the file exists and `overwrite` is false.
        ValueError: another suffix; at the end: more or fewer frames than `info` says.
    """

    def __init__(
        self, path: str | os.PathLike, info: LatentInfo, *, overwrite: bool = False
    ) -> None:
        self.path = _checked_suffix(path)
        self.info = info
        self.num_latents = 0
        self._shape = info.latent_shape()
        self._overwrite = overwrite
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "LatentWriter":
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path, overwrite=self._overwrite))
            self._file = stack.enter_context(open(temporary, "wb"))
            if self.path.suffix == ".safetensors":
                self._data_start = _write_header(self._file, self.info)
            else:
                self._arrays = {name: np.empty(self._shape, np.float32) for name in TENSOR_NAMES}
            self._stack = stack.pop_all()
        return self

    def write(self, mean: np.ndarray, logvar: np.ndarray) -> None:
        """Append frames of the latent: float32 (C, t, H', W') each."""
        channels, total, height, width = self._shape
        begin, end = self.num_latents, self.num_latents + mean.shape[1]
        expected = (channels, end - begin, height, width)
        if mean.shape != expected or logvar.shape != expected or end > total:
            raise ValueError(
                f"{self.path.name}: frames {begin} to {end} of a latent of {self._shape} cannot be "
                f"of the shapes {mean.shape} and {logvar.shape}"
            )
        for index, piece in enumerate((mean, logvar)):
            piece = np.ascontiguousarray(piece, "<f4")
            if self.path.suffix == ".npz":
                self._arrays[TENSOR_NAMES[index]][:, begin:end] = piece
                continue
            frame_bytes = 4 * height * width
            for channel in range(channels):
                row = (index * channels + channel) * total + begin
                self._file.seek(self._data_start + row * frame_bytes)
                self._file.write(piece[channel].tobytes())
        self.num_latents = end

    def __exit__(self, exc_type, exc, traceback) -> None:
        if exc is not None:
            # Hands the exception to `atomic_path`, which then removes the temporary file.
            self._stack.__exit__(exc_type, exc, traceback)
            return
        with self._stack:
            if self.num_latents != self._shape[1]:
                raise ValueError(
                    f"{self.path.name}: {self.num_latents} of {self._shape[1]} latent frames were "
                    "written"
                )
            if self.path.suffix == ".npz":
                text = np.array(_info_to_json(self.info))
                np.savez(self._file, **self._arrays, **{METADATA_KEY: text})


def _write_header(file: BinaryIO, info: LatentInfo) -> int:
    """Write a safetensors header for the tensors to come; return where their data begins."""
    shape = info.latent_shape()
    num_bytes = 4 * int(np.prod(shape))
    header = {"__metadata__": {"format": "np", METADATA_KEY: _info_to_json(info)}}
    for index, name in enumerate(TENSOR_NAMES):
        offsets = [index * num_bytes, (index + 1) * num_bytes]
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": offsets}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format asks for data aligned to 8 bytes
    file.write(struct.pack("<Q", len(text)) + text)
    return 8 + len(text)


def list_latent_files(source: str | os.PathLike) -> dict[str, Path]:
    """Return {name relative to the folder: path} of a latent file or of all below a folder.

    Raises:
        FileNotFoundError: no such file or folder, or no latent file in it.
    """
    source = Path(source)
    if source.is_file():
        return {source.name: source}
    if not source.is_dir():
        raise FileNotFoundError(f"no such latent file or folder: {source}")
    files = {
        path.relative_to(source).as_posix(): path
        for path in sorted(source.rglob("*"))
        if path.suffix in LATENT_SUFFIXES and path.is_file() and not path.name.startswith(".")
    }
    if not files:
        raise FileNotFoundError(f"no latent file ({', '.join(LATENT_SUFFIXES)}) below {source}")
    return files


def read_latent(path: str | os.PathLike) -> Latent:
    """Return the latent of a file; that of a .safetensors file is mapped, not loaded.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, of another kind, or tensors that contradict the metadata.
    """
    path = _checked_suffix(path)
    info = read_latent_info(path)
    is_npz = path.suffix == ".npz"
    entries = list_npz(path, TENSOR_NAMES) if is_npz else list_safetensors(path)
    expected = TensorEntry("float32", info.latent_shape())
    for name in TENSOR_NAMES:
        if entries.get(name) != expected:
            found = "{} {}".format(*entries[name]) if name in entries else "nothing"
            raise ValueError(
                f"{path}: expected {name!r} as float32 {expected.shape}, found {found}"
            )
    num_bytes = len(TENSOR_NAMES) * 4 * math.prod(expected.shape)
    if num_bytes > MAX_COMPRESSION * path.stat().st_size:
        raise ValueError(
            f"{path}: a file of {path.stat().st_size} bytes with {num_bytes} of latent is not a "
            "latent file"
        )
    arrays = read_npz(path, TENSOR_NAMES) if is_npz else read_safetensors(path)
    return Latent(arrays["mean"], arrays["logvar"], info)


def read_latent_info(path: str | os.PathLike) -> LatentInfo:
    """Return only what a latent file says about itself.

    Raises:
        FileNotFoundError, ValueError: as `read_latent`.
    """
    path = _checked_suffix(path)
    if not path.is_file():
        raise FileNotFoundError(f"latent file not found: {path}")
    if path.suffix == ".safetensors":
        text = read_safetensors_metadata(path).get(METADATA_KEY)
    else:
        text = read_npz_text(path, METADATA_KEY, max_bytes=MAX_INFO_BYTES)
    if text is None:
        raise ValueError(f"{path} is not a latent file (it does not hold {METADATA_KEY!r})")
    try:
        return LatentInfo(**parse_json(text, METADATA_KEY, max_bytes=MAX_INFO_BYTES))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: its metadata cannot be used: {error}") from error


def _info_to_json(info: LatentInfo) -> str:
    return json.dumps(dataclasses.asdict(info), sort_keys=True)


def _checked_suffix(path: str | os.PathLike) -> Path:
    path = Path(path)
    if path.suffix not in LATENT_SUFFIXES:
        raise ValueError(f"{path}: a latent file ends in {' or '.join(LATENT_SUFFIXES)}")
    return path
