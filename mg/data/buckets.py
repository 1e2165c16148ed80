"""Buckets: the sizes that samples are sorted into, so that a batch has one shape.

Every bucket has a compiled graph of its own; so there should be few of them.
"""

import dataclasses
import math
from collections.abc import Iterable

__all__ = ["Bucket", "bucket_of_latent", "bucket_of_video"]


@dataclasses.dataclass(frozen=True, order=True)
class Bucket:
    """A size in frames and pixels, of videos or of latents; images have one frame.

    Raises:
        ValueError: a number below 1.
    """

    num_frames: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if min(self.num_frames, self.height, self.width) < 1:
            raise ValueError(f"bucket {self}: frames, height and width must be at least 1")

    def __str__(self) -> str:
        return f"{self.num_frames}x{self.height}x{self.width}"

    @classmethod
    def parse(cls, text: str) -> "Bucket":
        """Return the bucket of a text such as "4x32x32".

        Raises:
            ValueError: the text is not three numbers.
        """
        parts = text.split("x")
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
            raise ValueError(
                f"bucket {text!r}; expected FRAMESxHEIGHTxWIDTH in whole numbers, such as 4x32x32"
            )
        return cls(*map(int, parts))

    @property
    def is_image(self) -> bool:
        return self.num_frames == 1


def bucket_of_latent(size: Bucket, buckets: Iterable[Bucket]) -> Bucket:
    """Return the bucket of a latent: of its height and width, and the longest that it fills.

    Images go into buckets of one frame only, videos into longer ones.

    Raises:
        ValueError: there is none; the message is the reason.
    """
    fitting = [b for b in buckets if (b.height, b.width) == (size.height, size.width)]
    if not fitting:
        raise ValueError(f"no bucket of {size.height}x{size.width}")
    return max(_filled_by(size.num_frames, fitting))


def bucket_of_video(size: Bucket, buckets: Iterable[Bucket]) -> Bucket:
    """Return the bucket that a video is scaled and cropped to.

    The longest that it fills; of several as long, the one of the nearest aspect ratio, the first
    of equals. Images go into buckets of one frame only, videos into longer ones.

    Raises:
        ValueError: there is none; the message is the reason.
    """
    filled = _filled_by(size.num_frames, list(buckets))
    most_frames = max(bucket.num_frames for bucket in filled)

    def distance(bucket: Bucket) -> float:
        return abs(math.log(bucket.width * size.height / (bucket.height * size.width)))

    return min((b for b in filled if b.num_frames == most_frames), key=distance)


def _filled_by(num_frames: int, buckets: list[Bucket]) -> list[Bucket]:
    """Return the buckets of images, or those of videos that are no longer than this."""
    same_kind = [bucket for bucket in buckets if bucket.is_image == (num_frames == 1)]
    if not same_kind:
        raise ValueError(f"no bucket for {'images' if num_frames == 1 else 'videos'}")
    filled = [bucket for bucket in same_kind if bucket.num_frames <= num_frames]
    if not filled:
        least = min(bucket.num_frames for bucket in same_kind)
        raise ValueError(f"too few frames: {num_frames}, {least} needed")
    return filled
