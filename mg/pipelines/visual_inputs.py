"""Videos and images that a generation begins with or keeps to, besides its prompt."""

import dataclasses
import hashlib
import itertools
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mg.data.transforms import resize_and_crop
from mg.data.video import iterate_frames
from mg.pipelines.sampling_settings import SamplingSettings

if TYPE_CHECKING:
    from mg.models.autoencoder import Autoencoder

__all__ = ["NO_INPUTS", "VisualInputs", "encode_clip"]

logger = logging.getLogger("mg")

# Frames may be so much wider or higher than the video, as a share, before a crop is told.
ASPECT_TOLERANCE = 0.02


@dataclasses.dataclass(frozen=True)
class VisualInputs:
    """What one video is made from, besides its prompt.

    Attributes:
        source: the video to be edited, uint8 RGB (T, H, W, 3), or the path of one.
    """

    source: np.ndarray | str | os.PathLike | None = None

    def given(self) -> dict[str, np.ndarray | str | os.PathLike]:
        """Return what there is, by the attribute's name."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def fitted(self, settings: SamplingSettings) -> "VisualInputs":
        """Return the same as arrays of the size of the video that is to be made.

        Frames are scaled to cover the size and cropped in the middle, which is logged where it
        takes away more than a little.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it is no video, or has fewer frames than are needed.
        """
        fitted = {}
        for name, value in self.given().items():
            frames = _frames_of(value, name, settings.num_frames)
            fitted[name] = _resized(frames, name, (settings.height, settings.width))
        return VisualInputs(**fitted)

    def hashes(self) -> dict[str, str]:
        """Return the SHA-256 of each array that there is, for the record of a video."""
        return {name: _hash(np.asarray(value)) for name, value in self.given().items()}


NO_INPUTS = VisualInputs()


def _frames_of(value: np.ndarray | str | os.PathLike, name: str, num_frames: int) -> np.ndarray:
    """Return the first `num_frames` frames, uint8 (T, H, W, 3)."""
    if isinstance(value, str | os.PathLike):
        found = list(itertools.islice(iterate_frames(value), num_frames + 1))
        frames = np.stack(found) if found else np.zeros((0, 1, 1, 3), np.uint8)
    else:
        frames = np.asarray(value)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
            raise ValueError(
                f"{name}: expected uint8 frames (T, H, W, 3), got {frames.dtype} {frames.shape}"
            )
    if len(frames) < num_frames:
        raise ValueError(
            f"{name} has {len(frames)} frames and the video is to have {num_frames}; give "
            f"num_frames={max(1, len(frames))}, or a longer {name}"
        )
    if len(frames) > num_frames:
        logger.info("%s is longer than the video: its first %d frames count", name, num_frames)
    return frames[:num_frames]


def _resized(frames: np.ndarray, name: str, size: tuple[int, int]) -> np.ndarray:
    """Return frames that are scaled to cover a size and cropped to it."""
    height, width = frames.shape[1:3]
    stretch = (width / height) / (size[1] / size[0])
    if abs(stretch - 1) > ASPECT_TOLERANCE:
        sides = "left and right" if stretch > 1 else "top and bottom"
        share = 1 - min(stretch, 1 / stretch)
        logger.warning(
            "%s is %dx%d and the video %dx%d: %.0f %% of it is cropped at %s",
            name, width, height, size[1], size[0], 100 * share, sides,
        )  # fmt: skip
    return resize_and_crop(frames, size=size)


def _hash(array: np.ndarray) -> str:
    digest = hashlib.sha256(repr(array.shape).encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def encode_clip(autoencoder: "Autoencoder", frames: Sequence[np.ndarray]) -> np.ndarray:
    """Return the latent of frames as a generator sees it, scaled, float32 (C, T', H', W').

    It is the mean of the posterior.

    Args:
        autoencoder: its tiling is used.
        frames: uint8 (T, H, W, 3).
    """
    from mg.pipelines.streaming import encode_frames  # imports MindSpore

    pieces = [mean for mean, _ in encode_frames(autoencoder, frames)]
    return autoencoder.spec.scale(np.concatenate(pieces, axis=1)).astype(np.float32)
