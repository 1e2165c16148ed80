"""Tiles along one axis: where they lie, and the weights that blend neighbours linearly.

Where tiles overlap by n frames or pixels, the k-th (from 0) takes (k + 1) / (n + 1) of the later
tile, so no step is larger than 1 / (n + 1) of the difference between the two.
"""

import math

import numpy as np

__all__ = ["Span", "axis_weights", "blend_ramp", "spatial_spans", "temporal_spans"]

Span = tuple[int, int]  # start and stop of a tile along one axis


def temporal_spans(length: int, tile: int, overlap: int) -> list[Span]:
    """Return the tiles along time: each `overlap` into the one before, the last one may be short.

    Args:
        length: of the whole axis, at least 1.
        tile: of one tile.
        overlap: of neighbours, below `tile`.
    """
    num_tiles = max(1, math.ceil((length - overlap) / (tile - overlap)))
    starts = [number * (tile - overlap) for number in range(num_tiles)]
    return [(start, min(start + tile, length)) for start in starts]


def spatial_spans(length: int, tile: int, overlap: int) -> list[Span]:
    """Return tiles of one size, spread evenly, that overlap by `overlap` or more.

    One size for all because a compiled network is compiled anew for each shape.

    Args:
        length: of the whole axis.
        tile: of one tile; 0 or `length` and more give a single tile.
        overlap: of neighbours, at least; below `tile`.
    """
    if tile == 0 or tile >= length:
        return [(0, length)]
    num_tiles = math.ceil((length - overlap) / (tile - overlap))
    starts = [(length - tile) * number // (num_tiles - 1) for number in range(num_tiles)]
    return [(start, start + tile) for start in starts]


def blend_ramp(length: int) -> np.ndarray:
    """Return the later tile's weights over an overlap, float32 (length,): 1/(n+1) ... n/(n+1)."""
    return np.arange(1, length + 1, dtype=np.float32) / np.float32(length + 1)


def axis_weights(spans: list[Span]) -> list[np.ndarray]:
    """Return each tile's weights along its axis, float32; over all tiles they sum to 1.

    Each tile is blended into what the tiles before it have given, over all of the overlap.
    """
    weights: list[np.ndarray] = []
    for number, (start, stop) in enumerate(spans):
        own = np.ones(stop - start, np.float32)
        end = spans[number - 1][1] if number else start
        ramp = blend_ramp(end - start)
        own[: end - start] = ramp
        for earlier, (first, last) in zip(weights, spans[:number], strict=True):
            if last > start:
                # Earlier tiles end no later than `end`; they give way to the ramp.
                earlier[start - first :] *= 1 - ramp[: last - start]
        weights.append(own)
    return weights
