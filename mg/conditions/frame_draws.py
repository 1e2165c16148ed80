"""Which frames of a video are known in training: a draw for each sample."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from mg.conditions.visual import FRAME_MODES

__all__ = ["FrameDraw", "FrameDraws"]


@dataclasses.dataclass(frozen=True)
class FrameDraw:
    """What is known of one sample.

    Attributes:
        mode: one of `FRAME_MODES`; None: nothing.
        mask: bool (T',), true where a frame of the latent is known.
    """

    mode: str | None
    mask: np.ndarray


@dataclasses.dataclass(frozen=True)
class FrameDraws:
    """How often what is known.

    Attributes:
        shares: of the samples, for each of `FRAME_MODES`; in the rest nothing is known.

    Raises:
        ValueError: shares that are none, or sum up to more than 1.
    """

    shares: Mapping[str, float]

    def __post_init__(self) -> None:
        unknown = set(self.shares) - set(FRAME_MODES)
        if unknown or any(not 0 <= share <= 1 for share in self.shares.values()):
            raise ValueError(
                f"shares of known frames {dict(self.shares)}; expected 0 to 1 for "
                f"{', '.join(FRAME_MODES)}"
            )
        if sum(self.shares.values()) > 1 + 1e-9:
            raise ValueError(
                f"shares of known frames {dict(self.shares)} sum up to more than 1; what is left "
                "to 1 is the share of samples of which nothing is known"
            )

    @property
    def modes(self) -> tuple[str, ...]:
        """What may be known of a sample."""
        return tuple(mode for mode in FRAME_MODES if self.shares.get(mode, 0) > 0)

    def draw(self, num_frames: int, rng: np.random.Generator) -> FrameDraw:
        """Return what is known of a sample whose latent has `num_frames` frames.

        At least one frame is known and one is not; of a single frame nothing is known.
        """
        mask = np.zeros(num_frames, bool)
        place = rng.random()
        limits = np.cumsum([self.shares.get(mode, 0.0) for mode in FRAME_MODES])
        number = int(np.searchsorted(limits, place, side="right"))
        if num_frames == 1 or number == len(FRAME_MODES):
            return FrameDraw(None, mask)
        mode = FRAME_MODES[number]
        count = int(rng.integers(1, num_frames))
        if mode == "first_frame":
            mask[0] = True
        elif mode == "prefix":
            mask[:count] = True
        elif mode == "suffix":
            mask[-count:] = True
        else:
            mask[rng.permutation(num_frames)[:count]] = True
        return FrameDraw(mode, mask)
