"""How the frames that a decoder gives become the pictures that players show."""

from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.sidedata.sidedata import Type

from mg.data.orientation import Orientation
from mg.data.transforms import resize_frame

__all__ = ["Geometry"]

# Pixels that are so nearly square are taken as square: many encoders round.
SQUARE_TOLERANCE = 0.01


@dataclass(frozen=True)
class Geometry:
    """Size and place of the frames of a video.

    Attributes:
        height, width: of the frames as they are stored.
        pixel_aspect: width of a pixel by its height.
        shown_width: the width to which stored frames are resampled.
        orientation: how they are turned and mirrored after that.
    """

    height: int
    width: int
    pixel_aspect: Fraction
    shown_width: int
    orientation: Orientation

    @classmethod
    def of_frame(
        cls, frame: av.VideoFrame, pixel_aspect: Fraction | None, *, is_square: bool
    ) -> "Geometry":
        """Return the geometry of a video.

        Args:
            frame: its first.
            pixel_aspect: as its headers state it; None or 0 where they do not.
            is_square: whether pixels are made square.
        """
        aspect = pixel_aspect or Fraction(1)
        width = frame.width
        if is_square and abs(aspect - 1) > SQUARE_TOLERANCE:
            width = max(1, round(width * aspect))
        matrix = frame.side_data.get(Type.DISPLAYMATRIX)
        orientation = Orientation()
        if matrix is not None:
            orientation = Orientation.of_display_matrix(np.frombuffer(matrix, np.int32).tolist())
        return cls(frame.height, frame.width, aspect, width, orientation)

    @property
    def shown_size(self) -> tuple[int, int]:
        """The (height, width) of the pictures."""
        return self.orientation.shown_size(self.height, self.shown_width)

    def notes(self) -> tuple[str, ...]:
        """Return what to tell of pixels that are not square."""
        if abs(self.pixel_aspect - 1) <= SQUARE_TOLERANCE:
            return ()
        pixels = f"pixels {self.pixel_aspect.numerator}:{self.pixel_aspect.denominator}"
        is_stored = self.shown_width == self.width
        return (f"{pixels}, left as they are" if is_stored else f"{pixels}, made square",)

    def show(self, frame: np.ndarray) -> np.ndarray:
        """Return the picture of a stored frame, uint8 (H, W, 3)."""
        return self.orientation.apply(resize_frame(frame, self.height, self.shown_width))
