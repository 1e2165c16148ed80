"""Pairs of synthetic clips for editing: a clip, what to do with it, and the clip after that.

The instruction changes one of colour, shape, motion and background, such as "make it red", "turn it
into a square", "move it right instead" or "put it on a white background". All else is the same in
both clips: size, way and speed of the shape too, which passes through the same middle.
"""

import dataclasses

import numpy as np

from mg.shapes.clips import (
    DISTANCE_RANGE,
    MARGIN,
    MOTIONS,
    RADIUS_RANGE,
    VOCABULARY,
    Combination,
    combinations,
    draw_clip,
    reaches,
)

__all__ = ["EDITED", "Edit", "synthetic_edit"]

EDITED = ("colour", "shape", "motion", "background")
INSTRUCTIONS = {
    "colour": "make it {}",
    "shape": "turn it into a {}",
    "motion": "move it {} instead",
    "background": "put it on a {} background",
}
EDIT_STREAM = 2  # of random numbers; those of single clips are 0 and 1
SPLITS = ("train", "held_out")


@dataclasses.dataclass(frozen=True)
class Edit:
    """What one pair shows.

    Attributes:
        edited: which of `EDITED` differs.
        source, target: what the clips show.
        instruction: what to do with the source.
    """

    edited: str
    source: Combination
    target: Combination

    @property
    def instruction(self) -> str:
        value = getattr(self.target, self.edited).removeprefix("moving ")
        return INSTRUCTIONS[self.edited].format(value)


def synthetic_edit(
    index: int, *, seed: int = 0, split: str = "train", size: int = 64, num_frames: int = 16
) -> tuple[Edit, np.ndarray, np.ndarray]:
    """Return what pair number `index` shows, and its clips, uint8 RGB (T, size, size, 3) each.

    A pair is fixed by (seed, split, index). The edited attribute takes turns. Held-out pairs lead
    to combinations that no training pair leads to or begins with.

    Args:
        index: number of the pair, from 0.
        seed: of the whole set.
        split: "train" or "held_out".
        size: side of the square frames in pixels.
        num_frames: of each clip.

    Raises:
        ValueError: a number out of range, or an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)} for pairs; not {split!r}")
    for name, value, least in (("index", index, 0), ("size", size, 16), ("frames", num_frames, 2)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
    rng = np.random.default_rng((EDIT_STREAM, seed, SPLITS.index(split), index))
    edit = _draw_edit(EDITED[index % len(EDITED)], split, rng)
    radius = rng.uniform(*RADIUS_RANGE)
    distance = rng.uniform(*DISTANCE_RANGE)
    middle = _draw_middle(edit, radius, distance, rng)
    clips = []
    for combination in (edit.source, edit.target):
        way = distance * np.array(MOTIONS[combination.motion])
        track = np.linspace(middle - way / 2, middle + way / 2, num_frames)  # (T, 2) as (x, y)
        clips.append(draw_clip(combination, track, size, radius=radius))
    return edit, *clips


def _draw_edit(edited: str, split: str, rng: np.random.Generator) -> Edit:
    """Return an edit to a combination of the split from one that is trained on, if there is one.

    Combinations are held out on every background, so an edit of that begins with such a one.
    """
    targets = combinations(split)
    target = targets[rng.integers(len(targets))]
    others = [
        dataclasses.replace(target, **{edited: value})
        for value in VOCABULARY[edited]
        if value != getattr(target, edited)
    ]
    sources = [source for source in others if not source.is_held_out] or others
    return Edit(edited, sources[rng.integers(len(sources))], target)


def _draw_middle(
    edit: Edit, radius: float, distance: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the middle (x, y) of the ways of both clips, which stay inside."""
    room = radius * np.array([reaches(edit.source.shape), reaches(edit.target.shape)]).max(axis=0)
    ways = np.abs([MOTIONS[edit.source.motion], MOTIONS[edit.target.motion]]).max(axis=0)
    low = room[:2] + MARGIN + distance / 2 * ways
    high = 1 - room[2:] - MARGIN - distance / 2 * ways
    return rng.uniform(low, np.maximum(low, high))
