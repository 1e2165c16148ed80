"""Frames of a video, an image or a prepared clip, by number: one reader for all three."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mg.data.container import (
    BrokenVideoError,
    ContainerReader,
    iterate_container,
    scan_container,
)

__all__ = [
    "IMAGE_SUFFIXES",
    "PREPARED_SUFFIX",
    "VIDEO_SUFFIXES",
    "BrokenVideoError",
    "VideoInfo",
    "VideoReader",
    "iterate_frames",
    "probe_video",
]

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".mpeg", ".gif"}
)
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
# Decoded clips of `mg.data.prepare`: uint8 (T, H, W, 3), read through a memory map.
PREPARED_SUFFIX = ".npy"


@dataclass(frozen=True)
class VideoInfo:
    """Size and length of a readable file (an image has one frame; fps is 0 where none is known)."""

    path: Path
    num_frames: int
    height: int
    width: int
    fps: float


def probe_video(path: str | os.PathLike, *, decode: bool = False) -> VideoInfo:
    """Return the size and the number of readable frames of a video, image or prepared clip.

    Args:
        path: the file. Its suffix decides only between image, prepared clip and video; any other
            suffix is tried as a video.
        decode: whether to decode every frame as proof, instead of the first and the last.

    Raises:
        FileNotFoundError: there is no such file.
        BrokenVideoError: the file is empty, truncated, has no video stream or is not a video.
    """
    path = Path(path)
    if path.is_dir():
        raise BrokenVideoError(f"{path.name}: a folder, not a video file")
    if not path.exists():
        raise FileNotFoundError(f"no such video: {path}")
    if not path.is_file():  # opening a named pipe would wait for ever
        raise BrokenVideoError(f"{path.name}: not a regular file")
    kind = _kind(path)
    if kind == "image":
        height, width = _read_image(path).shape[:2]
        return VideoInfo(path, 1, height, width, 0.0)
    if kind == "prepared":
        num_frames, height, width = _open_prepared(path).shape[:3]
        return VideoInfo(path, num_frames, height, width, 0.0)
    scan = scan_container(path)
    if decode:
        for _ in iterate_container(path):
            pass
    return VideoInfo(path, scan.num_frames, scan.height, scan.width, scan.fps)


class VideoReader:
    """Reads frames by number, exactly; a context manager.

    Example:
        with VideoReader("clip.mp4") as reader:
            frames = reader.read(range(8, 24))  # uint8 (16, H, W, 3)
    """

    def __init__(self, path: str | os.PathLike):
        self.info = probe_video(path)
        self._kind = _kind(self.info.path)
        self._container = ContainerReader(self.info.path) if self._kind == "video" else None

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._container is not None:
            self._container.close()

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Return the frames at `indices` as uint8 (T, H, W, 3) RGB.

        Args:
            indices: frame numbers in [0, num_frames), in any order, repeats allowed.

        Raises:
            IndexError: a number is out of range.
            BrokenVideoError: the frames cannot be decoded.
        """
        indices = [int(index) for index in indices]
        num_frames = self.info.num_frames
        outside = [index for index in indices if not 0 <= index < num_frames]
        if outside or not indices:
            raise IndexError(
                f"{self.info.path.name} has frames 0 to {num_frames - 1}; "
                f"asked for {outside[0] if outside else 'none'}"
            )
        if self._kind == "image":
            return np.stack([_read_image(self.info.path)] * len(indices))
        if self._kind == "prepared":
            return _open_prepared(self.info.path)[indices]
        return _stack(self.info.path, self._container.read(indices))


def iterate_frames(path: str | os.PathLike) -> Iterator[np.ndarray]:
    """Yield the frames of a file in order, uint8 (H, W, 3) RGB, holding one at a time.

    Raises:
        FileNotFoundError, BrokenVideoError: as `probe_video`.
    """
    info = probe_video(path)
    kind = _kind(info.path)
    if kind == "image":
        yield _read_image(info.path)
    elif kind == "prepared":
        for frame in _open_prepared(info.path):
            yield np.array(frame)
    else:
        yield from iterate_container(info.path)


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "image"
    return "prepared" if suffix == PREPARED_SUFFIX else "video"


def _stack(path: Path, frames: list[np.ndarray]) -> np.ndarray:
    shapes = sorted({frame.shape for frame in frames})
    if len(shapes) > 1:
        raise BrokenVideoError(f"{path.name}: the frame size changes on the way, {shapes}")
    return np.stack(frames)  # (T, H, W, 3)


def _read_image(path: Path) -> np.ndarray:
    """Return an image as uint8 (H, W, 3), turned as its EXIF data says."""
    if path.stat().st_size == 0:
        raise BrokenVideoError(f"{path.name}: the file is empty (0 bytes)")
    try:
        with Image.open(path) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise BrokenVideoError(f"{path.name}: not a readable image ({error})") from error


def _open_prepared(path: Path) -> np.ndarray:
    """Return a memory map of a prepared clip, uint8 (T, H, W, 3)."""
    try:
        frames = np.load(path, mmap_mode="r", allow_pickle=False)
    # Of a damaged header numpy raises whatever Python's parser does, of its shape OverflowError.
    except Exception as error:
        raise BrokenVideoError(f"{path.name}: not a readable .npy file ({error})") from error
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise BrokenVideoError(
            f"{path.name}: expected uint8 frames of shape (T, H, W, 3), "
            f"found {frames.dtype} {frames.shape}"
        )
    return frames
