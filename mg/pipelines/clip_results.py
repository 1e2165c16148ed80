"""Measured quality of single clips, as kept in the records beside their videos."""

import logging
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from mg.metrics.lpips import lpips_weights_path
from mg.metrics.measures import Measures, MetricOptions
from mg.metrics.protocol import MetricSettings

__all__ = ["build_measures", "numbers_of_record", "numbers_to_json"]

logger = logging.getLogger("mg")

OLDER_NAMES = {"lpips": "lpips_vgg"}  # of figures, in records of older versions


def build_measures(path: str | os.PathLike | None, settings: MetricSettings) -> Measures:
    """Return what measures PSNR, SSIM and, where its weights are there, LPIPS.

    Args:
        path: weights of LPIPS; None takes those that were fetched, and says so if there are none.
        settings: of the protocol.

    Raises:
        FileNotFoundError: `path` is given and does not exist.
    """
    names = ["psnr", "ssim"]
    if path is None and not lpips_weights_path(settings.lpips_net).is_file():
        logger.info("LPIPS is left out; `mg fetch-lpips` fetches its weights once.")
    else:
        names.append(f"lpips_{settings.lpips_net}")
    options = MetricOptions(lpips_path=None if path is None else str(path))
    return Measures(names, settings, options)


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
            OLDER_NAMES.get(name, name): np.array(
                [math.inf if number is None else float(number) for number in numbers]
            )
            for name, numbers in record["frames"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} holds no quality of frames: {error!r}") from error
    if not values or len({array.shape for array in values.values()}) != 1:
        raise ValueError(f"{path} holds no quality of frames, or of some frames only")
    return values
