"""Animated GIFs, which a README shows and every browser plays."""

import io
import os
from collections.abc import Sequence

import numpy as np

from mg.files import atomic_path

__all__ = ["gif_bytes", "write_gif"]


def write_gif(
    path: str | os.PathLike, frames: Sequence[np.ndarray], *, fps: float, overwrite: bool = False
) -> None:
    """Write an endless animation.

    Args:
        path: the .gif file.
        frames: uint8 RGB (H, W, 3) each, all of one size.
        fps: frames per second; a GIF counts hundredths of a second per frame.
        overwrite: whether an existing file may be replaced.

    Raises:
        ValueError: no frames, or frames of another kind or of several sizes.
        FileExistsError: the file exists and `overwrite` is false.
    """
    content = gif_bytes(frames, fps=fps)
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(content)


def gif_bytes(frames: Sequence[np.ndarray], *, fps: float) -> bytes:
    """Return an endless animation as the content of a .gif file.

    Args:
        frames, fps: as of `write_gif`.

    Raises:
        ValueError: no frames, or frames of another kind or of several sizes.
    """
    from PIL import Image

    shapes = {frame.shape for frame in frames}
    if len(shapes) != 1 or {frame.dtype for frame in frames} != {np.dtype(np.uint8)}:
        raise ValueError(f"expected uint8 frames (H, W, 3) of one size, got {sorted(shapes)}")
    first, *others = [Image.fromarray(frame) for frame in frames]
    content = io.BytesIO()
    first.save(
        content,
        format="GIF",
        save_all=True,
        append_images=others,
        duration=10 * max(2, round(100 / fps)),
        loop=0,
    )
    return content.getvalue()
