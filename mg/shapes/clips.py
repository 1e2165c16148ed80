"""Captioned clips of one moving shape, drawn on the fly: the smallest world with a grammar.

Every caption reads "a {colour} {shape} {motion} on a {background} background", such as "a red
circle moving left on a black background". Some combinations are held out of training, so that a
model that draws them has understood the words one by one. Two sets are apart from these:
"changing" has shapes that grow, shrink or rotate, and lines; "new_colour" has a colour that no
other split has, for a trained model to learn, and "new_colour_held_out" what is held out of it.
"""

import itertools
import re
from dataclasses import dataclass

import numpy as np

__all__ = [
    "ALL_COLOURS",
    "ALL_SHAPES",
    "BACKGROUNDS",
    "CHANGES",
    "COLOURS",
    "FPS",
    "MOTIONS",
    "NEW_COLOUR",
    "SHAPES",
    "SPLITS",
    "Combination",
    "captioned_clip",
    "check_clip_numbers",
    "combinations",
    "draw_clip",
    "draw_cover",
    "parse_caption",
    "reaches",
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
NEW_COLOUR = "orange"
ALL_COLOURS = COLOURS | {NEW_COLOUR: (240, 130, 20)}
SHAPES = ("circle", "square", "triangle")
MOTIONS = {
    "moving left": (-1, 0),
    "moving right": (1, 0),
    "moving up": (0, -1),
    "moving down": (0, 1),
}
BACKGROUNDS = {"black": (0, 0, 0), "white": (255, 255, 255), "gray": (128, 128, 128)}

ALL_SHAPES = (*SHAPES, "line")
CHANGES = ("growing", "shrinking", "rotating")

# The first three are of the moving circles, squares and triangles, "changing" is of the rest, and
# the last two are of one more colour.
SPLITS = ("train", "held_out", "both", "changing", "new_colour", "new_colour_held_out")
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
    NEW_COLOUR: ("down", "left", "up"),
}

# Lengths below are shares of the frame's side.
# Half the side of a square whose area is about that of a circle of radius 1, and the radius of
# the circle around such a triangle (a little smaller, to leave it room).
SQUARE_HALF_SIDE, TRIANGLE_RADIUS = 0.886, 1.45
# Half the length and the width of a line.
LINE_HALF_LENGTH, LINE_HALF_WIDTH = 1.6, 0.4
RADIUS_RANGE = (0.17, 0.21)
# Of lines, which are long; and of shapes when they are smallest, with how many times larger they
# are when they are largest.
LINE_RADIUS_RANGE, SMALL_RADIUS_RANGE, GROWTH_RANGE = (0.12, 0.15), (0.11, 0.13), (1.8, 2.2)
TURN_RANGE = (90.0, 150.0)  # degrees that a shape rotates by in one clip, clockwise
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
        for name, known in ALL_WORDS.items():
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
        """Whether it belongs to the fixed set of 48, and 9 more, that training never sees."""
        if self.shape not in SHAPES:
            return False
        motion = HELD_OUT[self.colour][SHAPES.index(self.shape)]
        return self.motion == f"moving {motion}"


VOCABULARY = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "motion": tuple(MOTIONS),
    "background": tuple(BACKGROUNDS),
}


ALL_WORDS = VOCABULARY | {
    "colour": tuple(ALL_COLOURS),
    "shape": ALL_SHAPES,
    "motion": (*MOTIONS, *CHANGES),
}


def combinations(split: str) -> tuple[Combination, ...]:
    """Return all combinations of a split, in a fixed order: 168 for training, 48 held out.

    A combination of colour, shape and motion is held out on every background. There are 270 of
    "changing": shapes that grow or shrink, squares, triangles and lines that rotate, lines that
    move. Of the new colour there are 27, and 9 held out.

    Args:
        split: one of `SPLITS`.

    Raises:
        ValueError: unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}; not {split!r}")
    if split == "changing":
        return _changing()
    is_new = split.startswith("new_colour")
    words = VOCABULARY | {"colour": (NEW_COLOUR,)} if is_new else VOCABULARY
    every = itertools.starmap(Combination, itertools.product(*words.values()))
    is_held_out = split.endswith("held_out")
    return tuple(c for c in every if split == "both" or c.is_held_out == is_held_out)


def _changing() -> tuple[Combination, ...]:
    kinds = [
        *itertools.product(ALL_SHAPES, ("growing", "shrinking")),
        *((shape, "rotating") for shape in ALL_SHAPES if shape != "circle"),
        *(("line", motion) for motion in MOTIONS),
    ]
    return tuple(
        Combination(colour, shape, motion, background)
        for colour, (shape, motion), background in itertools.product(COLOURS, kinds, BACKGROUNDS)
    )


def parse_caption(caption: str) -> Combination:
    """Return what a caption of the grammar describes; case and spaces at the ends do not matter.

    Raises:
        ValueError: another sentence.
    """
    words = {name: "|".join(known) for name, known in ALL_WORDS.items()}
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
        split: one of `SPLITS`.
        size: side of the square frames in pixels, at least 16.
        num_frames: at least 2, since one frame shows no motion.

    Raises:
        ValueError: a number out of range, or an unknown split.
    """
    check_clip_numbers(index, seed, size, num_frames)
    choices = combinations(split)
    stream = SPLITS.index(split)
    epoch, place = divmod(index, len(choices))
    order = np.random.default_rng((ORDER_STREAM, seed, stream, epoch)).permutation(len(choices))
    combination = choices[order[place]]
    rng = np.random.default_rng((GEOMETRY_STREAM, seed, stream, index))
    return combination, _draw(combination, rng, size, num_frames)


def captioned_clip(
    caption: str, index: int = 0, *, seed: int = 0, size: int = 64, num_frames: int = 16
) -> tuple[Combination, np.ndarray]:
    """Return what a caption of the grammar says, and frames of it, as `synthetic_clip` does.

    Args:
        caption: as "a red circle moving left on a black background".
        index: the same caption with another number is another clip of it.
        seed, size, num_frames: as of `synthetic_clip`.

    Raises:
        ValueError: another sentence, or a number out of range.
    """
    check_clip_numbers(index, seed, size, num_frames)
    combination = parse_caption(caption)
    rng = np.random.default_rng((GEOMETRY_STREAM, seed, len(SPLITS), index))
    return combination, _draw(combination, rng, size, num_frames)


def _draw(
    combination: Combination, rng: np.random.Generator, size: int, num_frames: int
) -> np.ndarray:
    """Return frames of a combination, uint8 RGB (T, size, size, 3)."""
    if combination.motion in CHANGES:
        return _draw_change(combination, rng, size, num_frames)
    radius, start, end = _draw_path(combination, rng)
    track = np.linspace(start, end, num_frames)  # (T, 2) as (x, y)
    return draw_clip(combination, track, size, radius=radius)


def check_clip_numbers(index: int, seed: int, size: int, num_frames: int) -> None:
    """Raise ValueError for a number of `synthetic_clip` that is too small."""
    limits = {"index": (index, 0), "seed": (seed, 0), "size": (size, MIN_SIZE)}
    for name, (value, least) in {**limits, "num_frames": (num_frames, 2)}.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")


def _draw_path(
    combination: Combination, rng: np.random.Generator
) -> tuple[float, np.ndarray, np.ndarray]:
    """Return radius, start and end (x, y) of the shape's centre, in shares of the side."""
    is_line = combination.shape == "line"
    radius = rng.uniform(*(LINE_RADIUS_RANGE if is_line else RADIUS_RANGE))
    left, top, right, bottom = (radius * reach for reach in reaches(combination.shape))
    low = np.array([left, top]) + MARGIN
    high = 1 - MARGIN - np.array([right, bottom])
    direction = np.array(MOTIONS[combination.motion])
    along = np.flatnonzero(direction)[0]
    distance = rng.uniform(DISTANCE_RANGE[0], min(DISTANCE_RANGE[1], (high - low)[along]))
    # The end with the smaller coordinate first; the motion says which of the two is the start.
    near = rng.uniform(low, high - distance * np.abs(direction))
    far = near + distance * np.abs(direction)
    return (radius, near, far) if direction.sum() > 0 else (radius, far, near)


def _draw_change(
    combination: Combination, rng: np.random.Generator, size: int, num_frames: int
) -> np.ndarray:
    """Return frames of a shape that stays in its place and grows, shrinks or rotates."""
    times = np.linspace(0, 1, num_frames)
    angle = np.zeros(num_frames)
    if combination.motion == "rotating":
        is_line = combination.shape == "line"
        radius = np.full(num_frames, rng.uniform(*(LINE_RADIUS_RANGE if is_line else RADIUS_RANGE)))
        angle = np.radians(rng.uniform(0, 360) + rng.uniform(*TURN_RANGE) * times)
    else:
        small, growth = rng.uniform(*SMALL_RADIUS_RANGE), rng.uniform(*GROWTH_RANGE)
        radius = small * (1 + (growth - 1) * times)
        if combination.motion == "shrinking":
            radius = radius[::-1]
    # So that it stays inside at whatever angle.
    room = radius.max() * max(reaches(combination.shape)) + MARGIN
    centre = rng.uniform(min(room, 0.5), max(1 - room, 0.5), 2)
    track = np.broadcast_to(centre, (num_frames, 2))
    return draw_clip(combination, track, size, radius=radius, angle=angle)


def reaches(shape: str) -> tuple[float, float, float, float]:
    """Return how far a shape of radius 1 reaches from its centre: left, top, right, bottom."""
    if shape == "triangle":  # its centre is its centroid
        half_base = TRIANGLE_RADIUS * np.sqrt(3) / 2
        return half_base, TRIANGLE_RADIUS, half_base, TRIANGLE_RADIUS / 2
    if shape == "line":
        return LINE_HALF_LENGTH, LINE_HALF_WIDTH, LINE_HALF_LENGTH, LINE_HALF_WIDTH
    return (1.0,) * 4 if shape == "circle" else (SQUARE_HALF_SIDE,) * 4


def draw_clip(
    combination: Combination,
    track: np.ndarray,
    size: int,
    *,
    radius: float | np.ndarray,
    angle: np.ndarray | None = None,
) -> np.ndarray:
    """Return frames of a shape on its way, uint8 RGB (T, size, size, 3).

    Args:
        combination: what is drawn; its motion is not looked at.
        track: (T, 2), x and y of the shape's centre in shares of the side.
        size: side of the frames in pixels.
        radius: of the shape, in shares of the side; one, or one per frame.
        angle: by which it is turned clockwise in each frame, in radians; None: by nothing.
    """
    cover = draw_cover(combination.shape, track, size, radius=radius, angle=angle)
    colour = np.array(ALL_COLOURS[combination.colour], float)
    background = np.array(BACKGROUNDS[combination.background], float)
    return np.rint(background + cover * (colour - background)).astype(np.uint8)


def draw_cover(
    shape: str,
    track: np.ndarray,
    size: int,
    *,
    radius: float | np.ndarray,
    angle: np.ndarray | None = None,
) -> np.ndarray:
    """Return the share of each pixel that a shape on its way covers, (T, size, size, 1).

    Args:
        shape: one of `ALL_SHAPES`; all else as in `draw_clip`.
        track: (T, 2).
        size: side of the frames in pixels.
        radius: one, or one per frame.
        angle: one per frame, or None.
    """
    centres = (np.arange(size) + 0.5) / size  # of the pixels
    x = centres[np.newaxis, np.newaxis, :] - track[:, 0, np.newaxis, np.newaxis]  # (T, 1, W)
    y = centres[np.newaxis, :, np.newaxis] - track[:, 1, np.newaxis, np.newaxis]  # (T, H, 1)
    if angle is not None:
        cos, sin = (f(angle)[:, np.newaxis, np.newaxis] for f in (np.cos, np.sin))
        x, y = x * cos + y * sin, y * cos - x * sin  # as the shape sees them
    radius = np.broadcast_to(radius, len(track))[:, np.newaxis, np.newaxis]
    distance = _signed_distance(shape, x, y, radius)  # (T, H, W)
    # Nearly exact for a straight edge.
    return np.clip(0.5 - distance * size, 0, 1)[..., np.newaxis]  # (T, H, W, 1)


def _signed_distance(shape: str, x: np.ndarray, y: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Return the distance of points to the edge of a shape around (0, 0), negative inside."""
    if shape == "circle":
        return np.hypot(x, y) - radius
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - SQUARE_HALF_SIDE * radius
    if shape == "line":
        along = np.abs(x) - LINE_HALF_LENGTH * radius
        return np.maximum(along, np.abs(y) - LINE_HALF_WIDTH * radius)
    slope = np.abs(x) * np.sqrt(3) / 2 - y / 2  # the two upper sides, by symmetry
    return np.maximum(slope, y) - TRIANGLE_RADIUS * radius / 2
