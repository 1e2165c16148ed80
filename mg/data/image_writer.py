"""Writing one frame to a PNG file."""

import os
from pathlib import Path

import cv2
import numpy as np

from mg.files import atomic_path

__all__ = ["write_png"]


def write_png(path: str | os.PathLike, frame: np.ndarray, *, overwrite: bool = False) -> None:
    """Write a frame (uint8 RGB (H, W, 3)), bit for bit.

    Raises:
        FileExistsError: the file exists and `overwrite` is false.
        ValueError: another suffix than .png, or no such frame.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"{path}: expected a name that ends in .png")
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3:
        raise ValueError(f"expected a uint8 frame (H, W, 3), got {frame.dtype} {frame.shape}")
    _, encoded = cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(encoded.tobytes())
