"""Clips of many moving shapes at once, drawn on the fly: what an autoencoder learns edges from.

In a clip of one shape most blocks of pixels show nothing but background, and an autoencoder learns
the mean colour first and little else for long. Here every block has edges, colours and motion to
tell about, as in the dead leaves model of natural images (Lee, Mumford and Huang, "Occlusion Models
for Natural Images", 2001): objects of all sizes that cover one another.
"""

import numpy as np

from mg.shapes.clips import ALL_SHAPES, COLOURS, check_clip_numbers, draw_cover

__all__ = ["CROWD_CAPTION", "crowd_clip"]

CROWD_CAPTION = "a crowd of moving shapes"
NUM_SHAPES_RANGE = (3, 18)
# Lengths are shares of the frame's side: radius, and the way that a shape goes in one clip.
RADIUS_RANGE, MAX_DISTANCE = (0.06, 0.24), 0.45
MAX_TURN = np.radians(150)
# The share of shapes with a colour that has a name; the others have any colour.
NAMED_SHARE = 0.5
CROWD_STREAM = 2  # of random numbers, beside those of `synthetic_clip`


def crowd_clip(index: int, *, seed: int = 0, size: int = 64, num_frames: int = 16) -> np.ndarray:
    """Return the frames of crowd number `index`, uint8 RGB (T, size, size, 3).

    3 to 18 circles, squares, triangles and lines, each with a colour, a size, an even motion in any
    direction and, for every other one, an even rotation; later ones cover earlier ones. A clip is
    fixed by (seed, index) and is the same scene at any size and length.

    Args:
        index: number of the clip, from 0.
        seed: of the whole set, from 0.
        size: side of the square frames in pixels, at least 16.
        num_frames: at least 2, since one frame shows no motion.

    Raises:
        ValueError: a number out of range.
    """
    check_clip_numbers(index, seed, size, num_frames)
    rng = np.random.default_rng((CROWD_STREAM, seed, index))
    frames = np.empty((num_frames, size, size, 3))
    frames[:] = _colour(rng)
    for _ in range(rng.integers(*NUM_SHAPES_RANGE, endpoint=True)):
        shape = ALL_SHAPES[rng.integers(len(ALL_SHAPES))]
        colour, radius = _colour(rng), rng.uniform(*RADIUS_RANGE)
        middle, way = rng.uniform(0, 1, 2), rng.uniform(-0.5, 0.5, 2) * MAX_DISTANCE * 2
        track = np.linspace(middle - way / 2, middle + way / 2, num_frames)
        turn = rng.uniform(-MAX_TURN, MAX_TURN) * rng.integers(2)
        angle = rng.uniform(0, 2 * np.pi) + np.linspace(0, turn, num_frames)
        cover = draw_cover(shape, track, size, radius=radius, angle=angle)
        frames += cover * (colour - frames)
    return np.rint(frames).astype(np.uint8)


def _colour(rng: np.random.Generator) -> np.ndarray:
    """Return a colour with a name, or any other one, RGB from 0 to 255."""
    names = list(COLOURS)
    named, other = COLOURS[names[rng.integers(len(names))]], rng.uniform(0, 255, 3)
    return np.array(named, float) if rng.random() < NAMED_SHARE else other
