"""A video file as the array that networks take, and back: `load_video` and `export_to_video`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mg.data.transforms import check_image_size, from_model_range, resize_and_crop, to_model_range
from mg.data.video import VideoReader
from mg.data.video_writer import write_video
from mg.shipped import find_shipped

__all__ = ["export_to_video", "load_video"]


def load_video(
    path: str | os.PathLike,
    *,
    num_frames: int | None = None,
    size: int | tuple[int, int] | None = None,
    start: int = 0,
    stride: int = 1,
) -> np.ndarray:
    """Return a video file as float32 (1, 3, T, H, W) in [-1, 1], as the autoencoders take it.

    Args:
        path: a video, an image (T = 1) or a clip that `mg prepare` made.
        num_frames: T; None reads to the end.
        size: side of a square or (height, width) in pixels: frames are scaled until they cover it
            and cropped at the centre. None keeps the file's size.
        start: number of the first frame.
        stride: take every n-th frame.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a readable video, or is too short.
    """
    if start < 0 or stride < 1 or (num_frames is not None and num_frames < 1):
        raise ValueError(
            f"start={start}, stride={stride}, num_frames={num_frames}; expected start of 0 or "
            "more, the others 1 or more"
        )
    if size is not None:
        check_image_size("size", size)
    with VideoReader(find_shipped(path)) as reader:
        numbers = range(start, reader.info.num_frames, stride)
        if len(numbers) < (num_frames or 1):
            raise ValueError(
                f"{path} has {reader.info.num_frames} frames; start={start} and stride={stride} "
                f"leave {len(numbers)} of them, expected {num_frames or 1}"
            )
        frames = reader.read(numbers[:num_frames])
    if size is not None:
        size = (size, size) if isinstance(size, int) else tuple(size)
        frames = resize_and_crop(frames, size=size)
    return to_model_range(frames)[np.newaxis]


def export_to_video(
    video: Any, path: str | os.PathLike, *, fps: float = 16, overwrite: bool = False
) -> Path:
    """Write a video that every player shows (H.264); return its path.

    Args:
        video: floats in [-1, 1], (1, 3, T, H, W) or (3, T, H, W), as an array or a MindSpore
            tensor, such as `decode` gives; or uint8 RGB frames (T, H, W, 3), as an array or a
            list, such as a video of `TextToVideo(...).frames`.
        path: the file to write: .mp4, .mkv or .mov.
        fps: frames per second.
        overwrite: whether an existing file may be replaced.

    Raises:
        ValueError: another shape or type.
        FileExistsError: the file exists and `overwrite` is false.
    """
    write_video(path, _as_frames(video), fps=fps, overwrite=overwrite)
    return Path(path)


def _as_frames(video: Any) -> np.ndarray:
    """Return frames as uint8 (T, H, W, 3)."""
    if isinstance(video, Sequence):
        video = np.stack([np.asarray(frame) for frame in video])
    array = video.asnumpy() if hasattr(video, "asnumpy") else np.asarray(video)
    if array.ndim == 5 and len(array) == 1:
        array = array[0]
    if array.dtype == np.uint8 and array.ndim == 4 and array.shape[-1] == 3:
        return array
    if array.dtype.kind == "f" and array.ndim == 4 and array.shape[0] == 3:
        return from_model_range(array)
    raise ValueError(
        f"video is {array.dtype} {array.shape}; expected floats in [-1, 1] of shape "
        "(1, 3, T, H, W) or (3, T, H, W), or uint8 frames (T, H, W, 3), of one video"
    )
