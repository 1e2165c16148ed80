"""Frames of a video, an image or a prepared clip, by number: one reader for all three."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mg.data.container import ContainerReader, iterate_container, scan_container
from mg.data.image_file import iterate_image, read_image, scan_image
from mg.data.media_rules import PREPARED_SUFFIX, BrokenVideoError, Reading, kind_of_file
from mg.data.media_source import MediaSource, TarMember, open_media

__all__ = [
    "PREPARED_SUFFIX",
    "BrokenVideoError",
    "Reading",
    "VideoInfo",
    "VideoReader",
    "iterate_frames",
    "probe_video",
]

AS_USUAL = Reading()


@dataclass(frozen=True)
class VideoInfo:
    """Size and length of a readable file.

    Attributes:
        path: of the file.
        num_frames: 1 for an image.
        height, width: of the frames as they are read, in pixels.
        fps: average frames per second; 0 where none are known.
        kind: "video", "image" (animations too) or "prepared".
        notes: what to tell of a file although it is read, such as "HDR (PQ)".
    """

    path: MediaSource
    num_frames: int
    height: int
    width: int
    fps: float
    kind: str
    notes: tuple[str, ...] = ()

    @property
    def is_still(self) -> bool:
        """Whether the file is a single image."""
        return self.kind == "image" and self.num_frames == 1


def probe_video(
    path: str | os.PathLike | TarMember, *, decode: bool = False, reading: Reading = AS_USUAL
) -> VideoInfo:
    """Return the size and the number of readable frames of a video, image or prepared clip.

    Args:
        path: the file. What it is, its content decides, not its name.
        decode: whether to decode every frame as proof, instead of the first and the last.
        reading: which frames are too large, and what is done to them.

    Raises:
        FileNotFoundError: there is no such file.
        BrokenVideoError: the file is empty, truncated, has no video stream, is not a video or has
            frames that are too large.
    """
    if not isinstance(path, TarMember):
        path = Path(path)
        _check_file(path)
    kind = kind_of_file(path)
    if kind == "image":
        scan = scan_image(path, reading)
        return VideoInfo(path, scan.num_frames, scan.height, scan.width, scan.fps, kind, scan.notes)
    if kind == "prepared":
        num_frames, height, width = _open_prepared(path, reading).shape[:3]
        return VideoInfo(path, num_frames, height, width, 0.0, kind)
    scan = scan_container(path, reading)
    if decode:
        for _ in iterate_container(path, reading):
            pass
    return VideoInfo(path, scan.num_frames, *scan.geometry.shown_size, scan.fps, kind, scan.notes)


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise BrokenVideoError(f"{path.name}: a folder, not a video file")
    if not path.exists():
        raise FileNotFoundError(f"no such video: {path}")
    if not path.is_file():  # opening a named pipe would wait for ever
        raise BrokenVideoError(f"{path.name}: not a regular file")


class VideoReader:
    """Reads frames by number, exactly; a context manager.

    Example:
        with VideoReader("clip.mp4") as reader:
            frames = reader.read(range(8, 24))  # uint8 (16, H, W, 3)
    """

    def __init__(self, path: str | os.PathLike | TarMember, reading: Reading = AS_USUAL):
        self.info = probe_video(path, reading=reading)
        self._reading = reading
        is_video = self.info.kind == "video"
        self._container = ContainerReader(self.info.path, reading) if is_video else None

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
        if self.info.kind == "image":
            return np.stack(read_image(self.info.path, indices, self._reading))
        if self.info.kind == "prepared":
            return _open_prepared(self.info.path, self._reading)[indices]
        return np.stack(self._container.read(indices))  # (T, H, W, 3)


def iterate_frames(
    path: str | os.PathLike | TarMember, *, reading: Reading = AS_USUAL
) -> Iterator[np.ndarray]:
    """Yield the frames of a file in order, uint8 (H, W, 3) RGB, holding one at a time.

    Raises:
        FileNotFoundError, BrokenVideoError: as `probe_video`.
    """
    info = probe_video(path, reading=reading)
    if info.kind == "image":
        yield from iterate_image(info.path, reading)
    elif info.kind == "prepared":
        for frame in _open_prepared(info.path, reading):
            yield np.array(frame)
    else:
        yield from iterate_container(info.path, reading)


def _open_prepared(path: MediaSource, reading: Reading) -> np.ndarray:
    """Return a memory map of a prepared clip, uint8 (T, H, W, 3)."""
    try:
        if isinstance(path, TarMember):
            frames = _map_member(path)
        else:
            frames = np.load(path, mmap_mode="r", allow_pickle=False)
    # Of a damaged header numpy raises whatever Python's parser does, of its shape OverflowError.
    except Exception as error:
        raise BrokenVideoError(f"{path.name}: not a readable .npy file ({error})") from error
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise BrokenVideoError(
            f"{path.name}: expected uint8 frames of shape (T, H, W, 3), "
            f"found {frames.dtype} {frames.shape}"
        )
    reading.check_pixels(path, *frames.shape[1:3])
    return frames


def _map_member(member: TarMember) -> np.ndarray:
    """Return a memory map of the array in a member of a tar."""
    with open_media(member) as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"version {version} of the format; expected (1, 0)")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
        begin = file.tell()
    if dtype != np.uint8:  # of objects a map would follow whatever the bytes point to
        raise ValueError(f"numbers of type {dtype}; expected uint8")
    if is_fortran or begin + math.prod(shape) > member.num_bytes:
        raise ValueError(f"an array {shape} is not what is in its {member.num_bytes} bytes")
    return np.memmap(member.shard, dtype, mode="r", offset=member.offset + begin, shape=shape)
