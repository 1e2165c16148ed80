"""Measured quality of single clips, kept beside their videos so that a run can be continued."""

import json
import logging
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mg.files import write_text
from mg.metrics.lpips import load_lpips, lpips, lpips_weights_path
from mg.metrics.psnr import psnr
from mg.metrics.ssim import ssim

if TYPE_CHECKING:
    from mg.models.perceptual import LPIPS

__all__ = ["find_lpips", "measure", "read_result", "write_result"]

logger = logging.getLogger("mg")


def find_lpips(path: str | os.PathLike | None, size: tuple[int, int]) -> "LPIPS | None":
    """Return the LPIPS network, or None, saying why, if it cannot be used.

    Args:
        path: its weights; None takes those that were fetched.
        size: (height, width) of the smallest frames.

    Raises:
        FileNotFoundError: `path` is given and does not exist.
    """
    if path is None and not lpips_weights_path().is_file():
        logger.info("LPIPS is left out; `python tools/fetch_lpips.py` fetches its weights once.")
        return None
    network = load_lpips(path=path)
    if min(size) < network.min_size:
        logger.info("LPIPS is left out; it needs frames of %d pixels or more.", network.min_size)
        return None
    return network


def measure(
    reference: np.ndarray, reconstruction: np.ndarray, network: "LPIPS | None"
) -> dict[str, np.ndarray]:
    """Return PSNR, SSIM and, with a network, LPIPS of each frame, one array (T,) per metric.

    Args:
        reference, reconstruction: uint8 (T, H, W, 3).
        network: from `find_lpips`.
    """
    values = {"psnr": psnr(reference, reconstruction), "ssim": ssim(reference, reconstruction)}
    if network is not None:
        values["lpips"] = lpips(reference, reconstruction, network=network)
    return values


def write_result(
    path: Path, values: dict[str, np.ndarray], settings: dict, *, overwrite: bool
) -> None:
    """Write a clip's numbers, and the settings they depend on, as JSON."""
    # JSON has no infinity, which is the PSNR of equal frames.
    numbers = {
        name: [None if math.isinf(number) else number for number in array.tolist()]
        for name, array in values.items()
    }
    text = json.dumps({"settings": settings, "frames": numbers}, indent=1, allow_nan=False)
    write_text(path, text, overwrite=overwrite)


def read_result(path: Path, settings: dict) -> dict[str, np.ndarray]:
    """Return the numbers of a clip that an earlier run with the same settings has measured.

    Raises:
        ValueError: the file is damaged, or of a run with other settings.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        found = stored["settings"]
        values = {
            name: np.array([math.inf if number is None else number for number in numbers])
            for name, numbers in stored["frames"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a result of this program: {error}") from error
    differing = [key for key in settings if found.get(key) != settings[key]]
    if differing:
        raise ValueError(
            f"{path} is of a run with another {', '.join(differing)}; choose another output_path, "
            "or --overwrite"
        )
    return values
