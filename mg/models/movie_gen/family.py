"""Movie Gen's video transformer as a family of denoisers."""

import dataclasses
import logging
from collections.abc import Mapping

import numpy as np

from mg.models.families import DenoiserFamily
from mg.models.movie_gen.config import MovieGenConfig
from mg.models.movie_gen.parameter_shapes import parameter_shapes
from mg.weights.grow_positions import grow_positions

__all__ = ["FAMILY", "growth"]

logger = logging.getLogger("mg")


def grow(
    tensors: Mapping[str, np.ndarray], stored: MovieGenConfig, wanted: MovieGenConfig
) -> dict[str, np.ndarray]:
    """Return the tensors with position tables grown to those of a later stage (Movie Gen 3.1.4).

    A network without conditions beside the latent may get some.

    Args:
        tensors: weights of the earlier stage.
        stored: their config.
        wanted: config of the network that starts from them.

    Raises:
        ValueError: the two are different networks, or the tables would shrink or grow unevenly.
    """
    spatial_factor, num_frames = growth(stored, wanted)
    tensors = dict(tensors)
    if wanted.condition_channels and not stored.condition_channels:
        shape = (wanted.dim, wanted.condition_values)
        tensors["condition_embedding.weight"] = np.zeros(shape, np.float32)
        logger.info("Conditions beside the latent begin without effect.")
    if stored.position_table != wanted.position_table:
        logger.info(
            "Position tables (frames, height, width) grow from %s to %s.",
            stored.position_table,
            wanted.position_table,
        )
    return grow_positions(tensors, spatial_factor=spatial_factor, num_frames=num_frames)


def growth(stored: MovieGenConfig, wanted: MovieGenConfig) -> tuple[int, int]:
    """Return (factor of the spatial tables, rows of the temporal one) between two stages.

    Raises:
        ValueError: the two are different networks, or the tables would shrink or grow unevenly.
    """
    differing = [
        f"{name} is {getattr(stored, name)} there and {getattr(wanted, name)} here"
        for name in (field.name for field in dataclasses.fields(MovieGenConfig))
        if name != "position_table"
        and not (name == "condition_channels" and stored.condition_channels == 0)
        and getattr(stored, name) != getattr(wanted, name)
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


FAMILY = DenoiserFamily(
    name="movie_gen",
    class_name="MovieGenTransformer",
    network="mg.models.movie_gen.transformer:MovieGenTransformer",
    from_fields=MovieGenConfig.from_mapping,
    shapes=parameter_shapes,
    default_fields={"preset": "tiny"},
    grow=grow,
)
