"""Weights of one training stage with the position tables that the next stage needs.

Movie Gen (arXiv 2410.13720, section 3.2): going from images to videos doubles the spatial tables
and adds temporal ones, going from 256 to 768 pixels makes the spatial ones three times as long.
"""

from collections.abc import Mapping

import numpy as np

__all__ = ["grow_positions"]

SPATIAL_TABLES = ("positions.height", "positions.width")
TEMPORAL_TABLE = "positions.frames"


def grow_positions(
    tensors: Mapping[str, np.ndarray],
    *,
    spatial_factor: int = 1,
    num_frames: int | None = None,
    noise: float = 0.02,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Return a transformer's tensors with longer position tables; the rest is handed through.

    Spatial tables are interpolated linearly, so that a place keeps its meaning on the finer grid.
    The temporal table keeps its rows; a new row is its last row with noise: a network trained on
    images sees each frame of a video nearly as an image, and the first one exactly as that.

    Args:
        tensors: all arrays of a transformer by name.
        spatial_factor: how many times as long the tables for height and width become, 1 or more.
        num_frames: rows of the temporal table, in tokens; None leaves it as it is.
        noise: standard deviation of what sets new temporal rows apart; a new network's tables
            have 0.02.
        seed: of the noise.

    Raises:
        ValueError: not a transformer's tensors, a factor below 1, fewer frames than there are.
    """
    missing = [name for name in (*SPATIAL_TABLES, TEMPORAL_TABLE) if name not in tensors]
    if missing:
        raise ValueError(
            f"no tensors {missing}: expected the weights of a Movie Gen transformer, got "
            f"{len(tensors)} tensors such as {list(tensors)[:3]}"
        )
    if not isinstance(spatial_factor, int) or spatial_factor < 1:
        raise ValueError(f"spatial_factor={spatial_factor!r}; expected a whole number, 1 or more")
    grown = dict(tensors)
    for name in SPATIAL_TABLES:
        grown[name] = _interpolated(tensors[name], spatial_factor)
    if num_frames is not None:
        grown[TEMPORAL_TABLE] = _extended(tensors[TEMPORAL_TABLE], num_frames, noise, seed)
    return grown


def _interpolated(table: np.ndarray, factor: int) -> np.ndarray:
    """Return a table (N, D) with N * factor rows; tokens are areas, compared by their centres."""
    rows = len(table)
    places = np.clip((np.arange(rows * factor) + 0.5) / factor - 0.5, 0, rows - 1)
    before = np.floor(places).astype(int)
    after = np.minimum(before + 1, rows - 1)
    share = (places - before)[:, None]
    grown = (1 - share) * table[before] + share * table[after]
    return grown.astype(table.dtype)


def _extended(table: np.ndarray, num_rows: int, noise: float, seed: int) -> np.ndarray:
    """Return a table (N, D) with `num_rows` rows: its own, then the last with noise."""
    if num_rows < len(table):
        raise ValueError(
            f"num_frames={num_rows}, but the weights have a temporal table of {len(table)} rows; "
            "tables only grow"
        )
    shape = (num_rows - len(table), table.shape[1])
    added = table[-1] + noise * np.random.default_rng(seed).standard_normal(shape)
    return np.concatenate([table, added.astype(table.dtype)])
