"""Buckets of training clips as Open-Sora writes them: {"256px_ar1:1": {32: [1.0, 1]}}.

For each resolution, {frames: [keep probability, batch size]}. A resolution is

    256px           256 * 256 pixels of the usual aspect ratios, each a bucket of its own
    480p            480 * 480 * 16 / 9 pixels, the same
    256px_ar16:9    one aspect ratio, width : height
    192x336         exactly so: height x width

Sides are rounded to what a network can take. Source of the format and of the rule by which clips
are sorted: Open-Sora 2.0 (arXiv 2503.09642); of several aspect ratios of one resolution the nearest
comes first here, whatever their order.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mg.data.buckets import Bucket
from mg.data.clips import MAX_FRAMES
from mg.data.transforms import check_image_size

__all__ = ["ClipBucket", "offers", "parse_bucket_config"]

NAME = re.compile(r"(?P<side>[0-9]+)(?P<kind>px|p)(_ar(?P<ratio>[0-9.]+:[0-9.]+))?")
EXACT = re.compile(r"(?P<height>[0-9]+)x(?P<width>[0-9]+)")
RATIOS = ("2.39:1", "2:1", "16:9", "8:5", "3:2", "4:3", "1:1")  # width : height, and turned
LEAST_SHARE = 0.8  # of a resolution's pixels, that a clip must have
MAX_BATCH_SIZE = 1 << 20


@dataclasses.dataclass(frozen=True)
class ClipBucket:
    """Clips of one size.

    Attributes:
        size: frames, height and width.
        keep: probability with which a clip that is offered stays, in (0, 1].
        batch_size: clips per batch and rank.
        pixels: that the resolution's name stands for.
    """

    size: Bucket
    keep: float
    batch_size: int
    pixels: float


def parse_bucket_config(
    config: Mapping[str, Mapping[int, Sequence[Any]]], *, unit: int
) -> tuple[ClipBucket, ...]:
    """Return the buckets, of the most pixels and the most frames first.

    Args:
        config: as above.
        unit: what sides are rounded to multiples of, unless they are stated.

    Raises:
        ValueError: a name or numbers that say no bucket, or one that comes twice.
    """
    buckets: dict[Bucket, ClipBucket] = {}
    names: dict[Bucket, str] = {}  # that they come from
    for name, lengths in config.items():
        pixels, sizes = _sizes(str(name), unit)
        if not isinstance(lengths, Mapping) or not lengths:
            raise ValueError(f"{name!r}: expected {{frames: [keep probability, batch size]}}")
        for frames, numbers in lengths.items():
            keep, batch_size = _numbers(name, frames, numbers)
            for height, width in sizes:
                size = Bucket(int(frames), height, width)
                if size in buckets:
                    raise ValueError(f"{name!r}: {size} is a bucket of {names[size]!r} already")
                names[size] = name
                buckets[size] = ClipBucket(size, keep, batch_size, pixels)
    if not buckets:
        raise ValueError("there is no bucket")
    return tuple(sorted(buckets.values(), key=lambda b: (-b.pixels, -b.size.num_frames, b.size)))


def _sizes(name: str, unit: int) -> tuple[float, list[tuple[int, int]]]:
    """Return the pixels that a resolution's name stands for, and its heights and widths."""
    if found := EXACT.fullmatch(name):
        height, width = int(found["height"]), int(found["width"])
        check_image_size(repr(name), (height, width))
        return height * width, [(height, width)]
    found = NAME.fullmatch(name)
    try:
        ratios = [_ratio(found["ratio"])] if found["ratio"] else _usual_ratios()
    except (TypeError, ValueError, ZeroDivisionError):
        raise ValueError(
            f"{name!r} is not a resolution; expected e.g. 256px, 480p, 256px_ar16:9 or HEIGHTxWIDTH"
        ) from None
    side = int(found["side"])
    check_image_size(repr(name), side)
    pixels = side * side * (16 / 9 if found["kind"] == "p" else 1)
    sizes = {
        (_rounded(math.sqrt(pixels / ratio), unit), _rounded(math.sqrt(pixels * ratio), unit))
        for ratio in ratios
    }
    for size in sizes:
        check_image_size(repr(name), size)
    return pixels, sorted(sizes)


def _ratio(text: str) -> float:
    width, height = map(float, text.split(":"))
    return 1 / (height / width)  # neither may be 0


def _usual_ratios() -> list[float]:
    ratios = [_ratio(text) for text in RATIOS]
    return ratios + [1 / ratio for ratio in ratios]


def _rounded(side: float, unit: int) -> int:
    return max(1, round(side / unit)) * unit


def _numbers(name: str, frames: Any, numbers: Any) -> tuple[float, int]:
    """Return keep probability and batch size of one length."""
    is_length = str(frames).isascii() and str(frames).isdigit() and 1 <= int(frames) <= MAX_FRAMES
    is_pair = isinstance(numbers, list | tuple) and len(numbers) == 2
    if not is_length or not is_pair:
        raise ValueError(
            f"{name!r}: {frames}: {numbers!r}; expected frames: [keep probability, batch size]"
        )
    keep, batch_size = numbers
    is_number = isinstance(keep, int | float) and not isinstance(keep, bool)
    if not is_number or not 0 < keep <= 1:
        raise ValueError(f"{name!r}: {frames}: keep probability {keep!r}; expected 0 to 1, not 0")
    is_number = isinstance(batch_size, int) and not isinstance(batch_size, bool)
    if not is_number or not 1 <= batch_size <= MAX_BATCH_SIZE:
        raise ValueError(f"{name!r}: {frames}: batch size {batch_size!r}; expected 1 or more")
    return float(keep), batch_size


def offers(size: Bucket, buckets: Sequence[ClipBucket], *, stride: int = 1) -> list[int]:
    """Return the numbers of the buckets that a clip is offered to, in turn, until one keeps it.

    One of each resolution of which the clip has four fifths of the pixels, from the largest down:
    of the nearest aspect ratio, and the longest that the clip fills. Images go into buckets of one
    frame only, videos into longer ones.

    Args:
        size: of the clip.
        buckets: all there are.
        stride: every how many frames of the clip one is taken.
    """
    fitting: dict[float, list[int]] = {}
    for number, bucket in enumerate(buckets):
        needed = (bucket.size.num_frames - 1) * stride + 1
        is_filled = needed <= size.num_frames and bucket.size.is_image == size.is_image
        if is_filled and size.height * size.width >= LEAST_SHARE * bucket.pixels:
            fitting.setdefault(bucket.pixels, []).append(number)

    def preference(number: int) -> tuple[float, int]:
        bucket = buckets[number].size
        ratio = bucket.width * size.height / (bucket.height * size.width)
        return abs(math.log(ratio)), -bucket.num_frames

    return [min(fitting[pixels], key=preference) for pixels in sorted(fitting, reverse=True)]
