"""Measured quality of single clips, as kept in the records beside their videos."""

import logging
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mg.files import sha256_of_file
from mg.metrics.lpips import load_lpips, lpips, lpips_weights_path
from mg.metrics.psnr import psnr
from mg.metrics.ssim import ssim

if TYPE_CHECKING:
    from mg.models.perceptual import LPIPS

__all__ = [
    "find_lpips",
    "lpips_identity",
    "measure",
    "numbers_of_record",
    "numbers_to_json",
]

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
        logger.info("LPIPS is left out; `mg fetch-lpips` fetches its weights once.")
        return None
    network = load_lpips(path=path)
    if min(size) < network.min_size:
        logger.info("LPIPS is left out; it needs frames of %d pixels or more.", network.min_size)
        return None
    return network


def lpips_identity(path: str | os.PathLike | None, network: "LPIPS | None") -> str | None:
    """Return the SHA-256 of the weights that `find_lpips` took; None where there is no network."""
    return None if network is None else sha256_of_file(path or lpips_weights_path())


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


def numbers_to_json(values: dict[str, np.ndarray]) -> dict[str, list[float | None]]:
    """Return the numbers of a clip as JSON can hold them, for its record."""
    # JSON has no infinity, which is the PSNR of equal frames.
    return {
        name: [None if math.isinf(number) else number for number in array.tolist()]
        for name, array in values.items()
    }


def numbers_of_record(path: Path, record: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the numbers of a clip that an earlier run has measured; `path` is for the message.

    Raises:
        ValueError: the record holds none.
    """
    try:
        values = {
            name: np.array([math.inf if number is None else float(number) for number in numbers])
            for name, numbers in record["frames"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} holds no quality of frames: {error!r}") from error
    if not values or len({array.shape for array in values.values()}) != 1:
        raise ValueError(f"{path} holds no quality of frames, or of some frames only")
    return values
