"""Sizes in a config against the tensors beside it, before anything is built of either.

A network of 10^9 channels or layers, asked for by one number in a small JSON file, would fill the
memory or never be done. The tensors are there, in a file of their size: none of a network's sizes
exceeds the number of their numbers, and it has no more layers than tensors.
"""

import math
import os
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["check_config_sizes"]

COUNTS = re.compile(r"layers|blocks|depth|levels")
SIZES = re.compile(
    r"channel|dim|width|filter|size|height|heads|groups|vocab|position|buckets|resolution|mult"
    r"|(^|_)(ch|d)($|_)"
)


def check_config_sizes(
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    place: str | os.PathLike = "the config",
) -> None:
    """Raise ValueError if a config states more layers or larger sizes than its tensors can have.

    Args:
        config: fields of a network's config, which may hold lists and mappings.
        shapes: of its tensors.
        place: where the config stands, for the message.
    """
    num_tensors, num_numbers = len(shapes), sum(map(math.prod, shapes.values()))
    waiting: list[tuple[str, Any]] = list(config.items())
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += value.items()
        elif isinstance(value, list | tuple):
            if len(value) > num_tensors + num_numbers:
                raise ValueError(f"{place} has {name} of {len(value)} items; {_than(shapes)}")
            waiting += ((name, item) for item in value)
        elif isinstance(value, int):
            is_count = COUNTS.search(str(name)) is not None
            limit = num_tensors if is_count else num_numbers
            if value > limit and (is_count or SIZES.search(str(name))):
                raise ValueError(f"{place} has {name}={value}; {_than(shapes)}")


def _than(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return (
        f"that is more than its weights can have, which are {len(shapes)} tensors of "
        f"{sum(map(math.prod, shapes.values()))} numbers; config and weights do not belong together"
    )
