"""What a clip of one moving shape shows, measured: colour, shape, motion, background, and its path.

It answers whether a generated clip follows its caption (`mg/shapes/clips.py`), without a network:
thresholds, contours and a straight line through the shape's places. Blurry clips are expected.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from mg.shapes.clips import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, Combination

__all__ = ["ATTRIBUTES", "Judgement", "Path", "Seen", "judge_clip"]

ATTRIBUTES = ("colour", "shape", "motion", "background")

# Share of the side that the border has, from whose median the background is read.
BORDER_SHARE = 0.04
# Largest max - min of the RGB values of a background that has no colour of its own, and largest
# distance of its brightness from that of black, gray or white (levels of 255).
MAX_BACKGROUND_CHROMA, MAX_BACKGROUND_DISTANCE = 60, 56
# Smallest distance in RGB between the shape and its background; smaller ones are noise.
MIN_CONTRAST = 50
# Smallest max - min of the RGB values of a colour that has a hue.
MIN_CHROMA = 40
# Smallest and largest share of the frame that a shape covers.
AREA_SHARE_RANGE = (0.008, 0.35)
# Contours are followed on frames enlarged to about this side: pixels are coarse at 64x64.
CONTOUR_SIDE = 256
# Frames are smoothed by a Gaussian of this share of their side against noise.
SMOOTHING_SHARE = 0.015
# Smallest share of the best fitting enclosing figure that a shape fills.
MIN_FILL = 0.7
# Blur rounds corners: it leaves circles as they are, and squares and triangles become like circles.
# So weighted, the shares tell them apart to the end. A lead of SURE_LEAD over the next is sure.
FILL_WEIGHTS, SURE_LEAD = np.array([0.95, 1.0, 1.1]), 0.12
# A shape may be so much wider than high, or higher than wide: blur in time draws out what moves.
MAX_STRETCH = 1.8
# A shape that is so many times as long as wide, along its own axes, is a line.
MIN_ELONGATION = 2.2
# Of which the n-th power of a pixel's place, as a complex number, has a mean that turns with the
# shape: its sides look alike after 1/n of a turn.
SYMMETRIES = {"square": 4, "triangle": 3, "line": 2}
# What grows or shrinks has so many times the area in the end, at least; what rotates, by so many
# degrees.
MIN_GROWTH, MIN_TURN = 1.7, 40.0
# Smallest share of frames in which the shape must be found.
MIN_SHARE_OF_FRAMES = 0.5
# A direction is one if the shape goes so far (share of the side), and across it at most so far as
# a share of that.
MIN_DISTANCE, MAX_ASIDE = 0.12, 0.6
# What stands still has no evenness: its centres scatter by less than this share of the side.
MIN_SPREAD = 0.005


@dataclass(frozen=True)
class Seen:
    """One attribute: its name, None where there is none, and a confidence in [0, 1]."""

    name: str | None
    confidence: float


NOTHING = Seen(None, 0.0)


@dataclass(frozen=True)
class Path:
    """How a shape's centre went.

    Attributes:
        evenness: R^2 of the straight line, even in time, that fits the centres best: 1 for a shape
            that glides, less for one that rests and jumps, 0 where there is no motion.
        travel: distance between the centres in the first and the last frame, in shares of the side.
        start: centre (x, y) in the first frame that shows the shape, in shares of the side; None
            where no shape is found.
    """

    evenness: float
    travel: float
    start: tuple[float, float] | None


NO_PATH = Path(0.0, 0.0, None)


@dataclass(frozen=True)
class Judgement:
    """What a clip shows. Each name is one of the grammar's, or None."""

    colour: Seen
    shape: Seen
    motion: Seen
    background: Seen
    path: Path

    def agreement(self, wanted: Combination) -> dict[str, bool]:
        """Return for each attribute whether the clip shows what was wanted; None never agrees."""
        return {name: getattr(self, name).name == getattr(wanted, name) for name in ATTRIBUTES}


@dataclass(frozen=True)
class _Blob:
    """The shape in one frame: colour (RGB), centre (x, y) in shares of the side, how well it fills
    the smallest circle, rectangle and triangle around it, how long it is by its width, its share
    of the frame, and the angle of its sides for each of `SYMMETRIES` (radians times n)."""

    colour: np.ndarray
    centre: np.ndarray
    fills: np.ndarray
    elongation: float
    area: float
    phases: dict[str, float]


def judge_clip(
    frames: np.ndarray, colours: Mapping[str, tuple[int, int, int]] = COLOURS
) -> Judgement:
    """Return what a clip of one moving shape shows.

    A clip without a shape gives None for colour, shape, motion and start, and a path of zeros.

    Args:
        frames: uint8 RGB (T, H, W, 3), at least 2 frames of at least 16x16.
        colours: that a shape may have, and their RGB values.

    Raises:
        ValueError: other frames.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(
            f"expected uint8 frames (T, H, W, 3), got {frames.dtype} {frames.shape}; "
            "mg.data.transforms.from_model_range makes them of a decoder's output"
        )
    if len(frames) < 2 or min(frames.shape[1:3]) < 16:
        raise ValueError(f"expected at least 2 frames of at least 16x16, got {frames.shape}")
    ground = _border_colour(frames)
    found = {t: blob for t, frame in enumerate(frames) if (blob := _find_blob(frame, ground))}
    background = _name_background(ground)
    if len(found) < MIN_SHARE_OF_FRAMES * len(frames):
        return Judgement(NOTHING, NOTHING, NOTHING, background, NO_PATH)
    blobs = list(found.values())
    times, centres = np.array(list(found)), np.array([blob.centre for blob in blobs])
    elongation = float(np.median([blob.elongation for blob in blobs]))
    shape = _name_shape(np.median([blob.fills for blob in blobs], axis=0), elongation)
    motion = _name_motion(times, centres, len(frames))
    if motion.name is None:
        motion = _name_change(times, blobs, shape.name)
    return Judgement(
        colour=_name_colour(np.median([blob.colour for blob in blobs], axis=0), colours),
        shape=shape,
        motion=motion,
        background=background,
        path=_path(times, centres),
    )


def _border_colour(frames: np.ndarray) -> np.ndarray:
    """Return the median colour (3,) of the border of all frames."""
    height, width = frames.shape[1:3]
    thickness = max(1, round(BORDER_SHARE * min(height, width)))
    is_border = np.ones((height, width), bool)
    is_border[thickness:-thickness, thickness:-thickness] = False
    return np.median(frames[:, is_border].reshape(-1, 3), axis=0)


def _find_blob(frame: np.ndarray, ground: np.ndarray) -> _Blob | None:
    """Return the largest patch of a uint8 (H, W, 3) frame that differs from the ground."""
    side = max(frame.shape[:2])
    scale = max(1, round(CONTOUR_SIDE / side))
    smooth = cv2.GaussianBlur(frame.astype(np.float32), (0, 0), SMOOTHING_SHARE * side)
    distance = np.linalg.norm(smooth - ground, axis=-1)  # (H, W)
    contrast = np.percentile(distance, 99)
    if contrast < MIN_CONTRAST:
        return None
    # Blurring keeps a straight edge where the contrast is halved.
    large = cv2.resize(distance, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    mask = (large > contrast / 2).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contour = max(contours, key=cv2.contourArea)
    area = cv2.contourArea(contour)
    low, high = AREA_SHARE_RANGE
    if not low <= area / mask.size <= high:
        return None
    inside = cv2.drawContours(np.zeros_like(mask), [contour], -1, 1, cv2.FILLED)
    inside = inside[scale // 2 :: scale, scale // 2 :: scale].astype(bool)  # (H, W)
    moments = cv2.moments(contour)
    centre = np.array([moments["m10"], moments["m01"]]) / moments["m00"]
    # The most contrasting half of the patch is away from its blurred edge.
    core = inside & (distance >= np.median(distance[inside]))
    return _Blob(
        colour=np.median(smooth[core], axis=0),
        centre=centre / (np.array(mask.shape[::-1])),
        fills=_fills(contour, area),
        elongation=_elongation(moments),
        area=area / mask.size,
        phases=_phases(contour, centre, mask.shape),
    )


def _elongation(moments: dict[str, float]) -> float:
    """Return how long a shape is by its width, along its own axes."""
    spread = np.array([[moments["mu20"], moments["mu11"]], [moments["mu11"], moments["mu02"]]])
    short, long = np.linalg.eigvalsh(spread)
    return float(np.sqrt(long / max(short, 1e-12)))


def _phases(contour: np.ndarray, centre: np.ndarray, size: tuple[int, int]) -> dict[str, float]:
    """Return n times the angle by which the shape is turned, for each of `SYMMETRIES`."""
    filled = cv2.drawContours(np.zeros(size, np.uint8), [contour], -1, 1, cv2.FILLED)
    rows, columns = np.nonzero(filled)
    places = (columns - centre[0]) + 1j * (rows - centre[1])
    return {shape: float(np.angle((places**n).sum())) for shape, n in SYMMETRIES.items()}


def _fills(contour: np.ndarray, area: float) -> np.ndarray:
    """Return which share of the smallest circle, rectangle and triangle around it a contour fills.

    A circle: 1, 0.79, 0.60; a square: 0.64, 1, 0.5; an equilateral triangle: 0.41, 0.5, 1. So the
    best filled one tells the shape, whatever its size.
    """
    moments = cv2.moments(contour)
    stretch = np.sqrt(moments["mu20"] / moments["mu02"])  # 1 for all three shapes
    stretch = np.sqrt(np.clip(stretch, 1 / MAX_STRETCH, MAX_STRETCH))
    even = contour * np.array([1 / stretch, stretch])  # of the same area
    hull = cv2.convexHull(even.astype(np.float32))
    _, radius = cv2.minEnclosingCircle(hull)
    _, (width, height), _ = cv2.minAreaRect(hull)
    triangle_area, _ = cv2.minEnclosingTriangle(hull)
    return area / np.array([np.pi * radius**2, width * height, triangle_area])  # as SHAPES


def _name_shape(fills: np.ndarray, elongation: float) -> Seen:
    """Return the figure that the shape fills best; sure if the next one is far worse."""
    if elongation > MIN_ELONGATION:
        return Seen("line", float(min(1, elongation / MIN_ELONGATION - 1)))
    if fills.max() < MIN_FILL:
        return NOTHING
    scores = fills * FILL_WEIGHTS
    worse, best = np.sort(scores)[-2:]
    return Seen(SHAPES[int(np.argmax(scores))], float(min(1, (best - worse) / SURE_LEAD)))


def _name_colour(colour: np.ndarray, colours: Mapping[str, tuple[int, int, int]]) -> Seen:
    """Return the colour of the nearest hue: mixing with gray, as blur does, keeps a hue."""
    hue, chroma = _hue(colour)
    if chroma < MIN_CHROMA:
        return NOTHING
    hues = np.array([_hue(np.array(value))[0] for value in colours.values()])
    apart = np.abs((hues - hue + 180) % 360 - 180)  # degrees
    nearer, second = np.sort(apart)[:2]
    name = list(colours)[int(np.argmin(apart))]
    return Seen(name, float((second - nearer) / (second + nearer)))


def _hue(colour: np.ndarray) -> tuple[float, float]:
    """Return the hue in degrees and the chroma (max - min) of an RGB colour (hexagonal HSV)."""
    red, green, blue = (float(value) for value in colour)
    chroma = max(red, green, blue) - min(red, green, blue)
    hue = np.degrees(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue))
    return float(hue) % 360, chroma


def _name_background(ground: np.ndarray) -> Seen:
    """Return the background of the nearest brightness, if it has no colour."""
    if np.ptp(ground) > MAX_BACKGROUND_CHROMA:
        return NOTHING
    levels = np.array([value[0] for value in BACKGROUNDS.values()])
    apart = np.abs(levels - ground.mean())
    if apart.min() > MAX_BACKGROUND_DISTANCE:
        return NOTHING
    name = list(BACKGROUNDS)[int(np.argmin(apart))]
    return Seen(name, float(1 - apart.min() / MAX_BACKGROUND_DISTANCE))


def _name_motion(times: np.ndarray, centres: np.ndarray, num_frames: int) -> Seen:
    """Return the direction of the straight line through the centres (x, y) over time."""
    # The median slope of all pairs (Theil-Sen): a few frames gone wrong do not matter.
    first, second = np.triu_indices(len(times), k=1)
    slopes = (centres[second] - centres[first]) / (times[second] - times[first])[:, np.newaxis]
    way = np.median(slopes, axis=0) * (num_frames - 1)  # shares of the side, (right, down)
    aside, along = np.sort(np.abs(way))
    if along < MIN_DISTANCE or aside > MAX_ASIDE * along:
        return NOTHING
    unit = np.sign(way) * (np.abs(way) == along)
    name = next(name for name, direction in MOTIONS.items() if np.array_equal(direction, unit))
    return Seen(name, float(1 - aside / along))


def _name_change(times: np.ndarray, blobs: list[_Blob], shape: str | None) -> Seen:
    """Return whether a shape that stays in its place grows, shrinks or rotates."""
    if len(times) < 2:
        return NOTHING
    span = times[-1] - times[0]
    growth = _slope(times, np.log([blob.area for blob in blobs])) * span
    least = np.log(MIN_GROWTH)
    if abs(growth) >= least:
        return Seen("growing" if growth > 0 else "shrinking", float(1 - least / abs(growth)))
    if shape not in SYMMETRIES:
        return NOTHING
    angles = np.unwrap([blob.phases[shape] for blob in blobs]) / SYMMETRIES[shape]
    turn = abs(np.degrees(_slope(times, angles) * span))
    return Seen("rotating", float(1 - MIN_TURN / turn)) if turn >= MIN_TURN else NOTHING


def _slope(times: np.ndarray, values: np.ndarray) -> float:
    """Return the median slope of all pairs (Theil-Sen)."""
    first, second = np.triu_indices(len(times), k=1)
    return float(np.median((values[second] - values[first]) / (times[second] - times[first])))


def _path(times: np.ndarray, centres: np.ndarray) -> Path:
    """Return what is known of the centres (n, 2) at the times (n,)."""
    start = (float(centres[0, 0]), float(centres[0, 1]))
    spread = centres - centres.mean(axis=0)
    total = (spread**2).sum()
    if len(times) < 2 or total < MIN_SPREAD**2 * len(times):
        return Path(0.0, 0.0, start)
    steps = times - times.mean()
    slope = steps @ spread / (steps @ steps)  # (x, y) per frame, by least squares
    rest = ((spread - steps[:, np.newaxis] * slope) ** 2).sum()
    way = centres[-1] - centres[0]
    return Path(float(1 - rest / total), float(np.hypot(*way)), start)
