"""Of which family a checkpoint is, as its config and its tensors say."""

from collections.abc import Mapping
from typing import Any

from mg.models.families import (
    AUTOENCODERS,
    autoencoder_families,
    autoencoder_of_class,
    stated_class,
)
from mg.weights.families import FAMILIES as KNOWN_WEIGHTS
from mg.weights.families import guess_family

__all__ = ["family_of_config", "family_of_shapes", "recognise"]

Shapes = Mapping[str, tuple[int, ...]]


def recognise(config: Mapping[str, Any] | None, shapes: Shapes) -> str:
    """Return the family of a checkpoint, as its config and its tensors say.

    Args:
        config: fields of its config.json; None if there is none.
        shapes: of its tensors, by name (diffusers' names of today).

    Raises:
        ValueError: no family is recognised, or config and tensors are of different ones.
    """
    by_config = family_of_config(config) if config else None
    by_shapes = family_of_shapes(shapes)
    if by_shapes is None:
        kind = guess_family(shapes)
        seen = f"they look like {KNOWN_WEIGHTS[kind].description}" if kind else "they are unknown"
        raise ValueError(
            f"the {len(shapes)} tensors ({', '.join(list(shapes)[:3])}, ...) are of no VAE that "
            f"can be loaded: {seen}; families that can are {', '.join(AUTOENCODERS)}"
        )
    if by_config not in (None, by_shapes):
        raise ValueError(
            f"the config is of family {by_config}, the tensors are of family {by_shapes}; the "
            "two belong to different checkpoints"
        )
    return by_shapes


def family_of_config(config: Mapping[str, Any]) -> str | None:
    """Return the family that a config states; None if it states none.

    Raises:
        ValueError: it is the config of a class of no known family.
    """
    stated = stated_class(config)
    if stated is not None:
        return autoencoder_of_class(stated).name
    return "tae" if "ch_mult" in config and "temporal_downsample_level" in config else None


def family_of_shapes(shapes: Shapes) -> str | None:
    """Return the family that tensor names and ranks show; None if none is recognised."""
    owners = (family.name for family in autoencoder_families() if family.is_own(shapes))
    return next(owners, None)
