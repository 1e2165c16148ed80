"""Videos and images that a generation begins with or keeps to, besides its prompt."""

import dataclasses
import hashlib
import itertools
import logging
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mg.conditions.visual import KnownLatent
from mg.data.transforms import resize_and_crop
from mg.data.video import iterate_frames
from mg.latent_spec import LatentSpec
from mg.pipelines.sampling_settings import SamplingSettings

if TYPE_CHECKING:
    from mg.models.autoencoder import Autoencoder

__all__ = [
    "NO_INPUTS",
    "VisualInputs",
    "check_known_frames",
    "encode_clip",
    "encode_known_frames",
    "frames_of_mask",
]

logger = logging.getLogger("mg")

Frames = np.ndarray | str | os.PathLike

# Known frames by their place in the video.
PLACES = ("first_frame", "prefix", "suffix")
# Frames may be so much wider or higher than the video, as a share, before a crop is reported.
ASPECT_TOLERANCE = 0.02
NUM_SHOWN = 8  # ranges in a message


@dataclasses.dataclass(frozen=True)
class VisualInputs:
    """What one video is made from, besides its prompt: arrays, or paths of files.

    Attributes:
        source: the video to be edited, uint8 RGB (T, H, W, 3).
        first_frame: the picture that the video begins with, (H, W, 3).
        prefix, suffix: frames that it begins or ends with, (t, H, W, 3).
        known_frames: a video of the same length, (T, H, W, 3), of which some frames are kept.
        mask: which of them: ranges counted from 0, as "0-7,24-31", or a bool for each frame.
    """

    source: Frames | None = None
    first_frame: Frames | None = None
    prefix: Frames | None = None
    suffix: Frames | None = None
    known_frames: Frames | None = None
    mask: str | Sequence[bool] | np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.first_frame is not None and self.prefix is not None:
            raise ValueError("first_frame and prefix both say how the video begins; give one")
        if (self.known_frames is None) != (self.mask is None):
            alone = "mask" if self.known_frames is None else "known_frames"
            raise ValueError(
                f"{alone} by itself: known_frames is a video, mask says which of its frames are "
                'kept, such as "0-7,24-31"; give both'
            )
        others = [name for name in PLACES if getattr(self, name) is not None]
        if others and self.known_frames is not None:
            raise ValueError(
                f"{others[0]} and known_frames both say what is known; put all of it into "
                "known_frames and mask"
            )

    def given(self) -> dict[str, Frames]:
        """Return what there is, by the attribute's name."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def frame_mode(self) -> str | None:
        """Which of `FRAME_MODES` the known frames are; None where none is known."""
        known = [name for name in PLACES if name in self.given()]
        if self.known_frames is not None:
            return "mask"
        return None if not known else known[0] if len(known) == 1 else "mask"

    def fitted(self, settings: SamplingSettings) -> "VisualInputs":
        """Return the same as arrays (T, H, W, 3) of the size of the video that is to be made.

        Frames are scaled to cover the size and cropped in the middle, which is logged where it
        takes away more than a little.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it is not a video, or has fewer or more frames than can be.
        """
        given, fitted = self.given(), {}
        if "mask" in given:
            fitted["mask"] = frames_of_mask(given.pop("mask"), settings.num_frames)
        for name, value in given.items():
            frames = _frames_of(value, name, settings.num_frames)
            fitted[name] = _resized(frames, name, (settings.height, settings.width))
        num_known = sum(len(fitted[name]) for name in PLACES if name in fitted)
        if "mask" in fitted:
            num_known = int(fitted["mask"].sum())
        if num_known >= settings.num_frames:
            raise ValueError(
                f"{num_known} frames are known of a video of num_frames={settings.num_frames}; "
                "leave some to be made"
            )
        return VisualInputs(**fitted)

    def hashes(self) -> dict[str, str]:
        """Return the SHA-256 of each array that there is, for the record of a video."""
        return {name: _hash(np.asarray(value)) for name, value in self.given().items()}


NO_INPUTS = VisualInputs()


def frames_of_mask(mask: str | Sequence[bool] | np.ndarray, num_frames: int) -> np.ndarray:
    """Return which frames of a video a mask keeps, bool (T,).

    Args:
        mask: ranges of frames counted from 0, both ends included, as "0-7,24-31" or "0,8-15"; or
            a bool for each frame.
        num_frames: of the video.

    Raises:
        ValueError: another text, a frame that the video has not, or no frame at all.
    """
    if not isinstance(mask, str):
        kept = np.asarray(mask)
        if kept.dtype != bool or kept.shape != (num_frames,):
            raise ValueError(
                f"mask: expected a bool for each of {num_frames} frames, got {kept.dtype} "
                f"{kept.shape}"
            )
    else:
        kept = np.zeros(num_frames, bool)
        for part in mask.split(","):
            match = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", part)
            begin, end = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
            if end < begin:
                raise ValueError(
                    f"mask={mask!r}: {part!r} is not a range of frames; expected such as "
                    "0-7,24-31, counted from 0"
                )
            if end >= num_frames:
                raise ValueError(
                    f"mask={mask!r}: there is no frame {end}; the video has frames 0 to "
                    f"{num_frames - 1}"
                )
            kept[begin : end + 1] = True
    if not kept.any():
        raise ValueError("mask keeps no frame; leave known_frames and mask out")
    return kept


def _frames_of(value: Frames, name: str, num_frames: int) -> np.ndarray:
    """Return what the frames of an input are, uint8 (T, H, W, 3), cut to what is needed."""
    if isinstance(value, str | os.PathLike):
        found = list(itertools.islice(iterate_frames(value), num_frames + 1))
        frames = np.stack(found) if found else np.zeros((0, 1, 1, 3), np.uint8)
    else:
        frames = np.asarray(value)
        if name == "first_frame" and frames.ndim == 3:
            frames = frames[np.newaxis]
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
            raise ValueError(
                f"{name}: expected uint8 frames (T, H, W, 3), got {frames.dtype} {frames.shape}"
            )
    is_whole = name in ("source", "known_frames")  # as long as the video
    num_needed = num_frames if is_whole else min(len(frames), num_frames)
    if name == "first_frame":
        num_needed = 1
    if len(frames) < max(1, num_needed):
        raise ValueError(
            f"{name} has {len(frames)} frames and the video is to have {num_frames}; give "
            f"num_frames={max(1, len(frames))}, or a longer {name}"
        )
    if len(frames) > num_needed and is_whole:
        logger.info("%s is longer than the video: its first %d frames count", name, num_frames)
    return frames[-num_needed:] if name == "suffix" else frames[:num_needed]


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


def encode_clip(autoencoder: "Autoencoder", frames: np.ndarray) -> np.ndarray:
    """Return the latent of frames as a generator sees it, scaled, float32 (C, T', H', W').

    It is the mean of the posterior.

    Args:
        autoencoder: its tiling is used.
        frames: uint8 (T, H, W, 3).
    """
    from mg.pipelines.streaming import encode_frames  # imports MindSpore

    pieces = [mean for mean, _ in encode_frames(autoencoder, frames)]
    return autoencoder.spec.scale(np.concatenate(pieces, axis=1)).astype(np.float32)


def check_known_frames(inputs: VisualInputs, spec: LatentSpec, num_frames: int) -> None:
    """Raise ValueError unless the known frames fill whole frames of the latent.

    Args:
        inputs: fitted.
        spec: the autoencoder's latents.
        num_frames: of the video.
    """
    if inputs.frame_mode is not None:
        _known_of_latent(inputs, spec, num_frames)


def encode_known_frames(
    autoencoder: "Autoencoder", inputs: VisualInputs, num_frames: int
) -> KnownLatent | None:
    """Return the latent of what is known of a video, scaled; None if nothing is.

    Frames that are not known are filled with the nearest ones that are, and the whole is encoded.
    A first frame alone is encoded as the image that it is, as in training.

    Args:
        autoencoder: its tiling is used.
        inputs: fitted.
        num_frames: of the video.

    Raises:
        ValueError: as `check_known_frames`.
    """
    if inputs.frame_mode is None:
        return None
    spec = autoencoder.spec
    mask = _known_of_latent(inputs, spec, num_frames)
    if inputs.frame_mode == "first_frame":
        image = encode_clip(autoencoder, inputs.first_frame)  # (C, 1, H', W')
        return KnownLatent(np.repeat(image, len(mask), axis=1), mask)
    known = _known_of_video(inputs, num_frames)
    if inputs.known_frames is not None:
        parts = [inputs.known_frames[known]]
    else:
        begin = inputs.prefix if inputs.prefix is not None else inputs.first_frame
        parts = [part for part in (begin, inputs.suffix) if part is not None]
    frames = np.concatenate(parts)  # those that are known, in order
    places = np.flatnonzero(known)
    nearest = np.abs(np.arange(num_frames)[:, np.newaxis] - places).argmin(axis=1)
    return KnownLatent(encode_clip(autoencoder, frames[nearest]), mask)


def _known_of_video(inputs: VisualInputs, num_frames: int) -> np.ndarray:
    """Return which frames of the video are known, bool (T,)."""
    if inputs.mask is not None:
        return np.asarray(inputs.mask)
    known = np.zeros(num_frames, bool)
    for frames in (inputs.first_frame, inputs.prefix):
        if frames is not None:
            known[: len(frames)] = True
    if inputs.suffix is not None:
        known[-len(inputs.suffix) :] = True
    return known


def _known_of_latent(inputs: VisualInputs, spec: LatentSpec, num_frames: int) -> np.ndarray:
    """Return which frames of the latent are known, bool (T',)."""
    mask = np.zeros(spec.latent_frames(num_frames), bool)
    if inputs.frame_mode == "first_frame":
        mask[0] = True
        return mask
    if spec.chunk is not None:
        raise ValueError(
            f"{inputs.frame_mode}: this autoencoder codes chunks of {spec.chunk} frames; only a "
            "source or a first_frame can be given"
        )
    known = _known_of_video(inputs, num_frames)
    # Of which frame of the latent each frame of the video is a part.
    part_of = np.maximum(np.arange(num_frames) - spec.head, -1) // spec.t + spec.head
    for number in range(len(mask)):
        mask[number] = known[part_of == number].all()
    split = known & ~mask[part_of]
    if split.any() and inputs.mask is not None:
        raise ValueError(
            f"mask: frame {np.flatnonzero(split)[0]} is kept without those that it shares a frame "
            f"of the latent with; whole are {_whole_ranges(part_of)}"
        )
    if split.any():
        head = "the first frame by itself, then " if spec.head else ""
        raise ValueError(
            f"{inputs.frame_mode}: frame {np.flatnonzero(split)[0]} is known without those that it "
            f"shares a frame of the latent with; the autoencoder codes {head}{spec.t} frames "
            f"together, so a prefix has {spec.head + spec.t} frames or {spec.t} more and so on, "
            f"and a suffix {spec.t} or a multiple"
        )
    return mask


def _whole_ranges(part_of: np.ndarray) -> str:
    """Return the frames of the video that frames of the latent stand for, as ranges.

    Args:
        part_of: of which frame of the latent each frame of the video is a part.
    """
    ranges = []
    for number in np.unique(part_of):
        places = np.flatnonzero(part_of == number)
        begin, end = places[0], places[-1]
        ranges.append(str(begin) if begin == end else f"{begin}-{end}")
    if len(ranges) > NUM_SHOWN:
        ranges = [*ranges[: NUM_SHOWN - 1], "...", ranges[-1]]
    return ", ".join(ranges) + ", and any of them together"
