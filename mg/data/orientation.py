"""The eight ways in which a picture may be stored, as the two standards for it write them down."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Orientation"]


@dataclass(frozen=True)
class Orientation:
    """How a stored picture becomes the one that is shown: transposed, then mirrored.

    Attributes:
        transposed: whether rows and columns are exchanged.
        upside_down: whether rows are mirrored after that.
        left_right: whether columns are mirrored after that.
    """

    transposed: bool = False
    upside_down: bool = False
    left_right: bool = False

    @classmethod
    def of_exif(cls, number: int | None) -> "Orientation":
        """Return the orientation of EXIF tag 0x0112 (EXIF 2.32, section 4.6.4); 1 for others."""
        by_number = {
            2: cls(left_right=True),
            3: cls(upside_down=True, left_right=True),
            4: cls(upside_down=True),
            5: cls(transposed=True),
            6: cls(transposed=True, left_right=True),
            7: cls(transposed=True, upside_down=True, left_right=True),
            8: cls(transposed=True, upside_down=True),
        }
        return by_number.get(number, cls())

    @classmethod
    def of_display_matrix(cls, matrix: Sequence[int]) -> "Orientation":
        """Return the orientation of a video's display matrix (ISO 14496-12, section 6.2.2).

        Args:
            matrix: a, b, u, c, d, v, x, y, w: a point (p, q) is shown at (a p + c q + x,
                b p + d q + y). Angles between quarter turns go to the nearest of these.
        """
        a, b, _, c, d = matrix[:5]
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(upside_down=d < 0, left_right=a < 0)
        return cls(transposed=True, upside_down=b < 0, left_right=c < 0)

    def shown_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) of the picture that is shown."""
        return (width, height) if self.transposed else (height, width)

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """Return the picture (H, W, C) that is shown."""
        if self == Orientation():
            return picture
        if self.transposed:
            picture = picture.swapaxes(0, 1)
        rows = slice(None, None, -1 if self.upside_down else 1)
        columns = slice(None, None, -1 if self.left_right else 1)
        return np.ascontiguousarray(picture[rows, columns])
