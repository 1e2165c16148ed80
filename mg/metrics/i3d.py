"""Distances between videos in the features of I3D (Kinetics-400): paired, FVD and KVD.

The features are the 400 logits of the network that FVD uses, on frames of 224x224. No figure of
the original implementation was at hand to compare with bit by bit: docs/metrics.md says what was.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from mg.metrics.frames import checked_pair
from mg.metrics.weight_files import cached_weights, load_parameters

if TYPE_CHECKING:
    from mg.models.i3d.config import I3DConfig
    from mg.models.i3d.network import I3D

__all__ = [
    "MIN_I3D_FRAMES",
    "frechet_distance",
    "i3d_features",
    "i3d_weights_path",
    "kernel_distance",
    "load_i3d",
]

# With fewer the last pool, two frames deep, has nothing to look at in some implementations.
MIN_I3D_FRAMES = 10
BLOCK = 512  # rows of a kernel matrix that are held at once


def i3d_weights_path() -> Path:
    """Return where the weights live once fetched: `~/.cache/mg/i3d/kinetics-400.safetensors`.

    The environment variable `MG_CACHE` replaces `~/.cache/mg`.
    """
    return cached_weights("i3d", "kinetics-400")


def load_i3d(path: str | os.PathLike | None = None, *, config: "I3DConfig | None" = None) -> "I3D":
    """Return the network with its weights loaded.

    Args:
        path: a safetensors file made by `mg fetch-i3d`; None takes the fetched one.
        config: another size than the published one.

    Raises:
        FileNotFoundError: the weights have not been fetched, or `path` does not exist.
        ValueError: a damaged file, or one that does not fit the network.
    """
    path = i3d_weights_path() if path is None else Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"I3D weights not found: {path}. Run `mg fetch-i3d` once (47 MB)")
    from mg.models.i3d.network import I3D

    network = I3D(config)
    network.set_train(False)
    load_parameters(network, path, "I3D network", "mg fetch-i3d")
    return network


def i3d_features(frames: np.ndarray, network: "I3D") -> np.ndarray:
    """Return the logits (num_classes,) of a clip, float64.

    All frames go through the network as one clip; FVD's habit is 16 of them.

    Args:
        frames: (T, H, W, 3), uint8, or floats in [0, 255]; all of a frame is scaled to the
            network's square (bilinear), so crop to squares before.
        network: from `load_i3d`.

    Raises:
        ValueError: fewer than 10 frames.
    """
    if len(frames) < MIN_I3D_FRAMES:
        raise ValueError(f"I3D needs at least {MIN_I3D_FRAMES} frames, here are {len(frames)}")
    from mindspore import Tensor

    side = network.config.side
    video = np.empty((3, len(frames), side, side), np.float32)
    for index, frame in enumerate(frames):
        scaled = cv2.resize(frame.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
        video[:, index] = scaled.transpose(2, 0, 1) / np.float32(127.5) - 1
    return network(Tensor(video[np.newaxis])).asnumpy()[0].astype(np.float64)


def i3d_of_pair(
    reference: np.ndarray, generated: np.ndarray, network: "I3D"
) -> tuple[float, np.ndarray]:
    """Return the Euclidean distance of the features of a pair, and the features (2, num_classes).

    Args:
        reference, generated: frames (T, H, W, 3), as `i3d_features` takes them.
        network: from `load_i3d`.

    Raises:
        ValueError: the clips cannot be compared, or have fewer than 10 frames.
    """
    checked_pair(reference, generated)
    features = np.stack([i3d_features(frames, network) for frames in (reference, generated)])
    return float(np.linalg.norm(features[0] - features[1])), features


def frechet_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Return the Fréchet distance between two sets of features, FVD if they are I3D's.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of the means m and the covariances S (N - 1), the
    network's features taken for normally distributed (Unterthiner et al. 2018, equation 2). The
    trace of the root is computed as that of (S1^(1/2) S2 S1^(1/2))^(1/2), which is symmetric: the
    roots are LAPACK's, through `numpy.linalg.eigh`.

    Args:
        real, generated: (N, D) and (M, D), N and M at least 2. With N below D, the figure depends
            on N more than on anything else.

    Raises:
        ValueError: fewer than two clips, or other widths.
    """
    _check_features(real, generated)
    covariances = [np.atleast_2d(np.cov(each, rowvar=False)) for each in (real, generated)]
    root = _symmetric_root(covariances[0])
    eigenvalues = np.linalg.eigvalsh(root @ covariances[1] @ root)
    trace_of_root = np.sqrt(np.clip(eigenvalues, 0, None)).sum()
    between_means = np.square(real.mean(0) - generated.mean(0)).sum()
    return float(between_means + sum(np.trace(s) for s in covariances) - 2 * trace_of_root)


def kernel_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Return the squared maximum mean discrepancy of two sets of features, KVD if they are I3D's.

    Unbiased, so it may be negative, with the kernel (x.y / D + 1)^3 (Binkowski et al. 2018,
    section 3).

    Args:
        real, generated: (N, D) and (M, D), N and M at least 2.

    Raises:
        ValueError: fewer than two clips, or other widths.
    """
    _check_features(real, generated)
    within = [
        (_kernel_sum(each, each) - _kernel_diagonal(each)) / (len(each) * (len(each) - 1))
        for each in (real, generated)
    ]
    across = _kernel_sum(real, generated) / (len(real) * len(generated))
    return float(sum(within) - 2 * across)


def _check_features(real: np.ndarray, generated: np.ndarray) -> None:
    if min(len(real), len(generated)) < 2 or real.shape[1:] != generated.shape[1:]:
        raise ValueError(
            f"expected features (N, D) of at least two clips each, got {real.shape} and "
            f"{generated.shape}"
        )


def _symmetric_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def _kernel_sum(x: np.ndarray, y: np.ndarray) -> float:
    """Return the sum of the kernel over all pairs, block by block."""
    width = x.shape[1]
    blocks = (x[start : start + BLOCK] for start in range(0, len(x), BLOCK))
    return float(sum(((block @ y.T / width + 1) ** 3).sum() for block in blocks))


def _kernel_diagonal(x: np.ndarray) -> float:
    return float(((np.square(x).sum(1) / x.shape[1] + 1) ** 3).sum())
