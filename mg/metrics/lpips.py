"""LPIPS on frames: numpy in, numbers out, with the published weights from a local file."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mg.metrics.frames import checked_pair
from mg.metrics.weight_files import cached_weights, load_parameters

if TYPE_CHECKING:  # MindSpore takes seconds to import; nothing here needs it before a load.
    from mg.models.perceptual import LPIPS, LPIPSConfig

__all__ = [
    "LPIPS_NETS",
    "check_lpips_file",
    "load_lpips",
    "lpips",
    "lpips_weights_path",
    "to_images",
]

LPIPS_NETS = ("vgg", "alex")


def lpips_weights_path(net: str = "vgg") -> Path:
    """Return where the weights of `net` live once fetched: `~/.cache/mg/lpips/NET.safetensors`.

    The environment variable `MG_CACHE` replaces `~/.cache/mg`.

    Raises:
        ValueError: unknown `net`.
    """
    if net not in LPIPS_NETS:
        raise ValueError(f"LPIPS net must be one of {', '.join(LPIPS_NETS)}, got {net!r}")
    return cached_weights("lpips", net)


def check_lpips_file(path: str | os.PathLike, net: str = "vgg") -> None:
    """Raise FileNotFoundError unless there is a file of LPIPS weights at a path.

    Args:
        path: as of `load_lpips`.
        net: "vgg" or "alex", for the message.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"LPIPS weights not found: {path}. Run `mg fetch-lpips --net {net}` once "
            "(64 MB), or give your own file (lpips_path)"
        )


def load_lpips(
    net: str = "vgg",
    path: str | os.PathLike | None = None,
    *,
    config: "LPIPSConfig | None" = None,
) -> "LPIPS":
    """Return a frozen LPIPS network with its weights loaded.

    Args:
        net: "vgg" or "alex".
        path: a safetensors file made by `mg fetch-lpips`; None takes the fetched one.
        config: other channels than the published ones; then `net` is taken from it.

    Raises:
        FileNotFoundError: the weights have not been fetched, or `path` does not exist.
        ValueError: unknown `net`, a damaged file, or one that does not fit the network.
    """
    net = config.net if config else net
    path = lpips_weights_path(net) if path is None else Path(path)
    check_lpips_file(path, net)
    from mg.models.perceptual import LPIPS, LPIPSConfig

    network = LPIPS(config or LPIPSConfig(net))
    load_parameters(network, path, "LPIPS network", "mg fetch-lpips")
    return network


def lpips(
    reference: np.ndarray,
    reconstruction: np.ndarray,
    *,
    network: "LPIPS",
    data_range: float = 255,
    batch_size: int = 8,
) -> np.ndarray:
    """Return the LPIPS of each frame, shape (T,), float64, 0 for identical frames.

    Args:
        reference: frames (T, H, W, 3), uint8 or floating, in [0, data_range].
        reconstruction: frames of the same shape and kind.
        network: from `load_lpips`.
        data_range: the value of white.
        batch_size: frames per call of the network.

    Raises:
        ValueError: the clips cannot be compared or are too small for the network, or an argument
            is out of range.
    """
    num_frames, height, width = checked_pair(reference, reconstruction)
    if not data_range > 0 or batch_size < 1:
        raise ValueError(
            "data_range must be positive and batch_size at least 1, "
            f"got {data_range} and {batch_size}"
        )
    if min(height, width) < network.min_size:
        raise ValueError(
            f"frames of {height}x{width} are too small for LPIPS with {network.config.net}; "
            f"it needs at least {network.min_size}x{network.min_size}"
        )
    from mindspore import Tensor

    # The last batch is filled up with its last frame: a compiled network keeps one shape.
    batch_size = min(batch_size, num_frames)
    starts = range(0, num_frames, batch_size)
    distances = []
    for start in starts:
        picked = np.minimum(np.arange(start, start + batch_size), num_frames - 1)
        images = [
            Tensor(to_images(frames[picked], data_range)) for frames in (reference, reconstruction)
        ]
        distances.append(network(*images).asnumpy())
    return np.concatenate(distances)[:num_frames].astype(np.float64)


def to_images(frames: np.ndarray, data_range: float) -> np.ndarray:
    """Return float32 (N, 3, H, W) in [-1, 1] from frames (N, H, W, 3) in [0, data_range]."""
    scaled = frames.astype(np.float32) * np.float32(2 / data_range) - np.float32(1)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
