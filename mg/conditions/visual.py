"""Conditions that lie beside the noisy latent, on its channel axis.

Layouts
    latent    (C, T', H', W')         of one clip, scaled as the network sees it
    tensor    (B, C_c, T', H', W')    of a batch: source (C), then known frames (C) and mask (1)
A condition that is dropped is zero. Source: Movie Gen (arXiv 2410.13720) section 5.1.1 for the
source video; the mask channel tells a known frame of zeros from one that is not known.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mg.conditions.condition import Condition, LatentShape
from mg.known_names import check_known

__all__ = ["FRAME_MODES", "NO_CHANNELS", "ChannelConditions", "KnownFrames", "KnownLatent"]

# What of a video may be known: its first frame, its beginning, its end, or any of its frames.
FRAME_MODES = ("first_frame", "prefix", "suffix", "mask")


@dataclasses.dataclass(frozen=True)
class KnownLatent:
    """Which frames of a latent are known.

    Attributes:
        values: (C, T', H', W'); what stands in frames that are not known does not matter.
        mask: bool (T',), true where a frame is known.
    """

    values: np.ndarray
    mask: np.ndarray


class SourceVideo(Condition):
    """The latent of the video that is to be edited."""

    name = "source"
    identity = "source"

    def check(self, given: Sequence[np.ndarray | None]) -> None:
        for latent in given:
            if latent is not None and latent.ndim != 4:
                raise ValueError(f"source: expected a latent (C, T', H', W'), got {latent.shape}")

    def num_channels(self, latent_channels: int) -> int:
        """Return how many channels it adds to latents of so many."""
        return latent_channels

    def batch(
        self, given: Sequence[np.ndarray | None], latent_shape: LatentShape
    ) -> tuple[np.ndarray, ...]:
        tensor = np.zeros((len(given), *latent_shape), np.float32)
        for number, latent in enumerate(given):
            if latent is None:
                continue
            if latent.shape != tuple(latent_shape):
                raise ValueError(
                    f"the source's latent is {latent.shape} and the video's {tuple(latent_shape)} "
                    "(channels, frames, height, width); a source has the length and the size of "
                    "the video"
                )
            tensor[number] = latent
        return (tensor,)


class KnownFrames(Condition):
    """Frames of the video that are known, and a channel that tells which.

    Args:
        modes: what may be known of a video, some of `FRAME_MODES`.
    """

    name = "frames"

    def __init__(self, modes: Sequence[str]) -> None:
        check_known(modes, list(FRAME_MODES), kind="mode", place="of known frames")
        self.modes = tuple(mode for mode in FRAME_MODES if mode in modes)
        if not self.modes:
            raise ValueError(f"known frames: expected some of {', '.join(FRAME_MODES)}")
        self.identity = f"frames:{','.join(self.modes)}"

    def check(self, given: Sequence[KnownLatent | None]) -> None:
        for known in given:
            if known is not None and known.mask.shape != known.values.shape[1:2]:
                raise ValueError(
                    f"known frames: a mask {known.mask.shape} of a latent {known.values.shape}; "
                    "expected one value per frame"
                )

    def num_channels(self, latent_channels: int) -> int:
        """Return how many channels it adds to latents of so many."""
        return latent_channels + 1

    def batch(
        self, given: Sequence[KnownLatent | None], latent_shape: LatentShape
    ) -> tuple[np.ndarray, ...]:
        channels, *rest = latent_shape
        tensor = np.zeros((len(given), channels + 1, *rest), np.float32)
        self.check(given)
        for number, known in enumerate(given):
            if known is None:
                continue
            if known.values.shape != tuple(latent_shape):
                raise ValueError(
                    f"known frames are of a latent {known.values.shape}, the video's is "
                    f"{tuple(latent_shape)}"
                )
            tensor[number, :channels, known.mask] = known.values[:, known.mask].swapaxes(0, 1)
            tensor[number, channels, known.mask] = 1.0
        return (tensor,)


class ChannelConditions(Condition):
    """All conditions of a generator that lie on the channel axis, as one tensor; may be none.

    Args:
        has_source: whether the source video is one.
        frame_modes: what may be known of a video; none: frames are not a condition.
    """

    name = "visual"

    def __init__(self, *, has_source: bool = False, frame_modes: Sequence[str] = ()) -> None:
        self.parts: tuple[SourceVideo | KnownFrames, ...] = ()
        if has_source:
            self.parts += (SourceVideo(),)
        if frame_modes:
            self.parts += (KnownFrames(frame_modes),)
        self.identity = "+".join(part.identity for part in self.parts)

    def __bool__(self) -> bool:
        return bool(self.parts)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of those that there are, in the order of their channels."""
        return tuple(part.name for part in self.parts)

    @property
    def frame_modes(self) -> tuple[str, ...]:
        """What may be known of a video; none where frames are not a condition."""
        return next((part.modes for part in self.parts if isinstance(part, KnownFrames)), ())

    def num_channels(self, latent_channels: int) -> int:
        """Return C_c for latents of so many channels; 0 where there is no condition."""
        return sum(part.num_channels(latent_channels) for part in self.parts)

    def check(self, given: Sequence[Mapping[str, Any]]) -> None:
        for part in self.parts:
            part.check([values.get(part.name) for values in given])

    def batch(
        self, given: Sequence[Mapping[str, Any]], latent_shape: LatentShape
    ) -> tuple[np.ndarray, ...]:
        """Return the one tensor (B, C_c, T', H', W'); no tensor where there is no condition.

        Args:
            given: per clip what there is of each condition, by its name.
            latent_shape: (C, T', H', W').
        """
        if not self.parts:
            return ()
        tensors = [
            part.batch([values.get(part.name) for values in given], latent_shape)[0]
            for part in self.parts
        ]
        return (np.concatenate(tensors, axis=1),)

    def empty(self, num_clips: int, latent_shape: LatentShape) -> tuple[np.ndarray, ...]:
        return self.batch([{}] * num_clips, latent_shape)

    # -- as JSON ---------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold; they stand in a generator's index."""
        return {"source": "source" in self.names, "frames": list(self.frame_modes)}

    @classmethod
    def from_mapping(cls, mapping: Any) -> "ChannelConditions":
        """Return the conditions that `to_dict` described.

        Raises:
            ValueError: another mapping.
        """
        right = isinstance(mapping, Mapping) and set(mapping) == {"source", "frames"}
        if not right or type(mapping["source"]) is not bool:
            raise ValueError(
                f"conditions: expected an object with `source` (true or false) and `frames` (a "
                f"list of {', '.join(FRAME_MODES)}), got {mapping!r}"
            )
        frames = mapping["frames"]
        if not isinstance(frames, list) or not all(isinstance(mode, str) for mode in frames):
            raise ValueError(f"conditions: frames={frames!r}; expected a list of names")
        return cls(has_source=mapping["source"], frame_modes=frames)


NO_CHANNELS = ChannelConditions()
