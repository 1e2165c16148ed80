"""Weights of an earlier stage as the start of a later one."""

import dataclasses
import logging
import os

import numpy as np

from mg.models.movie_gen.config import MovieGenConfig
from mg.pipelines.generator_folder import load_generator
from mg.weights.grow_positions import grow_positions

__all__ = ["growth", "start_tensors"]

logger = logging.getLogger("mg")


def start_tensors(folder: str | os.PathLike, config: MovieGenConfig) -> dict[str, np.ndarray]:
    """Return the transformer's tensors of a generator, with position tables grown to a config.

    Args:
        folder: of the generator.
        config: of the network that starts from it.

    Raises:
        FileNotFoundError: there is no generator.
        ValueError: it is damaged, of another network, or its tables cannot grow to these.
    """
    parts = load_generator(folder)
    try:
        spatial_factor, num_frames = growth(parts.transformer_config, config)
    except ValueError as error:
        raise ValueError(f"pretrained={folder}: {error}") from error
    if parts.transformer_config.position_table != config.position_table:
        logger.info(
            "Position tables (frames, height, width) grow from %s to %s.",
            parts.transformer_config.position_table,
            config.position_table,
        )
    return grow_positions(
        parts.transformer_tensors, spatial_factor=spatial_factor, num_frames=num_frames
    )


def growth(stored: MovieGenConfig, wanted: MovieGenConfig) -> tuple[int, int]:
    """Return (factor of the spatial tables, rows of the temporal one) between two stages.

    Raises:
        ValueError: the two are different networks, or the tables would shrink or grow unevenly.
    """
    differing = [
        f"{name} is {getattr(stored, name)} there and {getattr(wanted, name)} here"
        for name in (field.name for field in dataclasses.fields(MovieGenConfig))
        if name != "position_table" and getattr(stored, name) != getattr(wanted, name)
    ]
    if differing:
        raise ValueError(
            f"the weights are of another network: {'; '.join(differing)}; take the same model and "
            "text encoders"
        )
    (frames, height, width), (new_frames, new_height, new_width) = (
        stored.position_table,
        wanted.position_table,
    )
    factor = new_height // height
    if (new_height, new_width) != (factor * height, factor * width) or new_frames < frames:
        raise ValueError(
            f"position tables {stored.position_table} (frames, height, width) cannot grow to "
            f"{wanted.position_table}: height and width must become the same whole number of "
            "times as long, and frames no fewer; change model.position_table"
        )
    return factor, new_frames
