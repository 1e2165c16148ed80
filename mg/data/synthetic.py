"""Captioned clips of one moving shape, drawn on the fly: the smallest world with a grammar.

Every caption reads "a {colour} {shape} {motion} on a {background} background", such as "a red
circle moving left on a black background". Some combinations are held out of training, so that a
model that draws them has understood the words one by one.
"""

import itertools
import re
from dataclasses import dataclass

import numpy as np

__all__ = [
    "BACKGROUNDS",
    "COLOURS",
    "FPS",
    "MOTIONS",
    "SHAPES",
    "SPLITS",
    "Combination",
    "combinations",
    "parse_caption",
    "synthetic_clip",
]

# Names and their values: RGB, and directions as (right, down).
COLOURS = {
    "red": (225, 30, 30),
    "green": (30, 180, 40),
    "blue": (40, 60, 230),
    "yellow": (240, 220, 30),
    "magenta": (220, 40, 220),
    "cyan": (30, 210, 220),
}
SHAPES = ("circle", "square", "triangle")
MOTIONS = {
    "moving left": (-1, 0),
    "moving right": (1, 0),
    "moving up": (0, -1),
    "moving down": (0, 1),
}
BACKGROUNDS = {"black": (0, 0, 0), "white": (255, 255, 255), "gray": (128, 128, 128)}

SPLITS = ("train", "held_out", "both")
# Frames per second of the clips: that of Movie Gen's training videos.
FPS = 16

# The motions that are held out, on every background, for each colour's circle, square and
# triangle. 16 of 72: 4 of each motion, 2 or 3 of each colour, 5 or 6 of each shape. Every pair of
# colour and shape, colour and motion, or shape and motion stays in training.
HELD_OUT = {
    "red": ("left", "right", "up"),
    "green": ("right", "up", "down"),
    "blue": ("up", "down", "left"),
    "yellow": ("down", "left", "right"),
    "magenta": ("left", "right", None),
    "cyan": (None, "up", "down"),
}

# Lengths below are shares of the frame's side.
# Half the side of a square whose area is about that of a circle of radius 1, and the radius of
# the circle around such a triangle (a little smaller, to leave it room).
SQUARE_HALF_SIDE, TRIANGLE_RADIUS = 0.886, 1.45
RADIUS_RANGE = (0.17, 0.21)
# What is left free between the shape and the border, and the way a shape goes in one clip.
MARGIN = 0.05
DISTANCE_RANGE = (0.25, 0.35)
MIN_SIZE = 16
# Each kind of draw has its own stream of random numbers.
ORDER_STREAM, GEOMETRY_STREAM = 0, 1


@dataclass(frozen=True)
class Combination:
    """What one clip shows, by the names of the grammar."""

    colour: str
    shape: str
    motion: str
    background: str

    def __post_init__(self):
        for name, known in VOCABULARY.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}; not {getattr(self, name)!r}"
                )

    @property
    def caption(self) -> str:
        """The sentence that describes the clip."""
        return f"a {self.colour} {self.shape} {self.motion} on a {self.background} background"

    @property
    def is_held_out(self) -> bool:
        """Whether it belongs to the fixed set of 48 that training never sees."""
        motion = HELD_OUT[self.colour][SHAPES.index(self.shape)]
        return self.motion == f"moving {motion}"


VOCABULARY = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "motion": tuple(MOTIONS),
    "background": tuple(BACKGROUNDS),
}


def combinations(split: str) -> tuple[Combination, ...]:
    """Return all combinations of a split, in a fixed order: 168 for training, 48 held out.

    A combination of colour, shape and motion is held out on every background.

    Args:
        split: "train", "held_out" or "both".

    Raises:
        ValueError: unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}; not {split!r}")
    every = itertools.starmap(Combination, itertools.product(*VOCABULARY.values()))
    return tuple(c for c in every if split == "both" or c.is_held_out == (split == "held_out"))


def parse_caption(caption: str) -> Combination:
    """Return what a caption of the grammar describes; case and spaces at the ends do not matter.

    Raises:
        ValueError: another sentence.
    """
    words = {name: "|".join(known) for name, known in VOCABULARY.items()}
    grammar = "a (?P<{0}>{colour}) (?P<{1}>{shape}) (?P<{2}>{motion}) on a (?P<{3}>{background}) "
    pattern = grammar.format(*words, **words) + "background"
    match = re.fullmatch(pattern, caption.strip().lower())
    if match is None:
        raise ValueError(
            f"{caption!r} is not a caption of the synthetic clips; expected one like "
            f"{combinations('train')[0].caption!r}"
        )
    return Combination(**match.groupdict())


def synthetic_clip(
    index: int, *, seed: int = 0, split: str = "train", size: int = 64, num_frames: int = 16
) -> tuple[Combination, np.ndarray]:
    """Return what clip number `index` shows, and its frames, uint8 RGB (T, size, size, 3).

    A clip is fixed by (seed, split, index): it does not depend on how many there are, and at
    another size or length it is the same scene. All combinations of the split come once, in a
    random order, before any comes again. Size, place and speed of the shape vary; it moves evenly
    over at least 0.25 of the frame's side and stays inside.

    Args:
        index: number of the clip, from 0.
        seed: of the whole set, from 0.
        split: "train", "held_out" or "both".
        size: side of the square frames in pixels, at least 16.
        num_frames: at least 2, since one frame shows no motion.

    Raises:
        ValueError: a number out of range, or an unknown split.
    """
    limits = {"index": (index, 0), "seed": (seed, 0), "size": (size, MIN_SIZE)}
    for name, (value, least) in {**limits, "num_frames": (num_frames, 2)}.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
    choices = combinations(split)
    stream = SPLITS.index(split)
    epoch, place = divmod(index, len(choices))
    order = np.random.default_rng((ORDER_STREAM, seed, stream, epoch)).permutation(len(choices))
    combination = choices[order[place]]
    rng = np.random.default_rng((GEOMETRY_STREAM, seed, stream, index))
    radius, start, end = _draw_path(combination, rng)
    track = np.linspace(start, end, num_frames)  # (T, 2) as (x, y)
    return combination, _draw_frames(combination, radius, track, size)


def _draw_path(
    combination: Combination, rng: np.random.Generator
) -> tuple[float, np.ndarray, np.ndarray]:
    """Return radius, start and end (x, y) of the shape's centre, in shares of the side."""
    radius = rng.uniform(*RADIUS_RANGE)
    left, top, right, bottom = (radius * reach for reach in _reaches(combination.shape))
    low = np.array([left, top]) + MARGIN
    high = 1 - MARGIN - np.array([right, bottom])
    direction = np.array(MOTIONS[combination.motion])
    along = np.flatnonzero(direction)[0]
    distance = rng.uniform(DISTANCE_RANGE[0], min(DISTANCE_RANGE[1], (high - low)[along]))
    # The end with the smaller coordinate first; the motion says which of the two is the start.
    near = rng.uniform(low, high - distance * np.abs(direction))
    far = near + distance * np.abs(direction)
    return (radius, near, far) if direction.sum() > 0 else (radius, far, near)


def _reaches(shape: str) -> tuple[float, float, float, float]:
    """Return how far a shape of radius 1 reaches from its centre: left, top, right, bottom."""
    if shape == "triangle":  # its centre is its centroid
        half_base = TRIANGLE_RADIUS * np.sqrt(3) / 2
        return half_base, TRIANGLE_RADIUS, half_base, TRIANGLE_RADIUS / 2
    return (1.0,) * 4 if shape == "circle" else (SQUARE_HALF_SIDE,) * 4


def _draw_frames(
    combination: Combination, radius: float, track: np.ndarray, size: int
) -> np.ndarray:
    """Return frames, uint8 (T, size, size, 3), of the shape with its centre on `track` (T, 2)."""
    centres = (np.arange(size) + 0.5) / size  # of the pixels
    x = centres[np.newaxis, np.newaxis, :] - track[:, 0, np.newaxis, np.newaxis]  # (T, 1, W)
    y = centres[np.newaxis, :, np.newaxis] - track[:, 1, np.newaxis, np.newaxis]  # (T, H, 1)
    distance = _signed_distance(combination.shape, x, y, radius)  # (T, H, W)
    # The share of a pixel that the shape covers, nearly exact for a straight edge.
    cover = np.clip(0.5 - distance * size, 0, 1)[..., np.newaxis]  # (T, H, W, 1)
    colour = np.array(COLOURS[combination.colour], float)
    background = np.array(BACKGROUNDS[combination.background], float)
    return np.rint(background + cover * (colour - background)).astype(np.uint8)


def _signed_distance(shape: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Return the distance of points to the edge of a shape around (0, 0), negative inside."""
    if shape == "circle":
        return np.hypot(x, y) - radius
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - SQUARE_HALF_SIDE * radius
    slope = np.abs(x) * np.sqrt(3) / 2 - y / 2  # the two upper sides, by symmetry
    return np.maximum(slope, y) - TRIANGLE_RADIUS * radius / 2
