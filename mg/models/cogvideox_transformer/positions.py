"""Where a token is: sums of waves (CogVideoX-2b), or rotations of queries and keys (5b, 1.5).

All of it is numpy, computed once for a token grid (frames, height, width), width fastest.
"""

import numpy as np

from mg.models.cogvideox_transformer.config import CogVideoXConfig

__all__ = ["position_waves", "rotations"]

LONGEST_PERIOD = 10000.0

Grid = tuple[int, int, int]


def position_waves(config: CogVideoXConfig, grid: Grid) -> np.ndarray:
    """Return what is added to the video's tokens, float32 (L, dim): frames 1/4, then columns, rows.

    Args:
        config: the network's config.
        grid: tokens along frames, height, width.
    """
    frames, height, width = grid
    time_width, space_width = config.dim // 4, 3 * config.dim // 4
    time = _waves(np.arange(frames) / config.temporal_interpolation_scale, time_width)
    rows = _waves(np.arange(height) / config.spatial_interpolation_scale, space_width // 2)
    columns = _waves(np.arange(width) / config.spatial_interpolation_scale, space_width // 2)
    parts = (
        np.broadcast_to(time[:, None, None], (*grid, time_width)),
        np.broadcast_to(columns[None, None, :], (*grid, space_width // 2)),
        np.broadcast_to(rows[None, :, None], (*grid, space_width // 2)),
    )
    return np.concatenate(parts, axis=-1).reshape(-1, config.dim).astype(np.float32)


def _waves(positions: np.ndarray, width: int) -> np.ndarray:
    """Return sine and cosine of positions (n,) at width / 2 rates, (n, width)."""
    rates = LONGEST_PERIOD ** (-np.arange(width // 2) / (width / 2))
    angles = positions[:, None] * rates
    return np.concatenate((np.sin(angles), np.cos(angles)), axis=1)


def rotations(config: CogVideoXConfig, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return cosine and sine of the angles of each token, float32 (L, head_dim) each.

    Frames turn the first quarter of a head, rows and columns three eighths each; neighbouring
    numbers are a pair and have the same angle. Positions are whole numbers in CogVideoX 1.5. Before
    it, rows and columns are those of the largest part of this shape in the grid of training.

    Args:
        config: the network's config.
        grid: tokens along frames, height, width.
    """
    frames, height, width = grid
    head = config.attention_head_dim
    rows, columns = np.arange(height, dtype=float), np.arange(width, dtype=float)
    if config.patch_size_t is None:
        rows, columns = _in_trained_grid(config, height, width)
    widths = (head // 4, 3 * head // 8, 3 * head // 8)
    angles = [
        positions[:, None] * LONGEST_PERIOD ** (-np.arange(0, part, 2) / part)
        for positions, part in zip((np.arange(frames), rows, columns), widths, strict=True)
    ]
    parts = (
        np.broadcast_to(angles[0][:, None, None], (*grid, widths[0] // 2)),
        np.broadcast_to(angles[1][None, :, None], (*grid, widths[1] // 2)),
        np.broadcast_to(angles[2][None, None, :], (*grid, widths[2] // 2)),
    )
    turned = np.concatenate(parts, axis=-1).reshape(-1, head // 2).repeat(2, axis=1)
    return np.cos(turned).astype(np.float32), np.sin(turned).astype(np.float32)


def _in_trained_grid(
    config: CogVideoXConfig, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of rows and columns in the grid that the network was trained on.

    The grid is scaled to fit into it, and lies in its middle.
    """
    full_height = config.sample_height // config.patch_size
    full_width = config.sample_width // config.patch_size
    if height / width > full_height / full_width:
        new_height, new_width = full_height, round(full_height / height * width)
    else:
        new_height, new_width = round(full_width / width * height), full_width
    rows = _spread(round((full_height - new_height) / 2), new_height, height)
    columns = _spread(round((full_width - new_width) / 2), new_width, width)
    return rows, columns


def _spread(start: int, length: int, count: int) -> np.ndarray:
    """Return `count` positions from `start`; the published code also scales where they start."""
    return np.linspace(start, (start + length) * (count - 1) / count, count)
