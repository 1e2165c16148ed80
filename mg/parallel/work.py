"""Files and tiles divided among ranks."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from mg.parallel.ranks import ONE_RANK, Ranks

__all__ = ["map_over_ranks", "share_files"]

MAX_AXES = 8


def share_files(names: Sequence[str], ranks: Ranks) -> tuple[list[str], Ranks]:
    """Return the files that this rank works on, and the ranks that work on each of them together.

    Files are divided where there are enough for all ranks; of fewer, all ranks work on each.
    """
    if len(names) >= ranks.size:
        return ranks.share(names), ONE_RANK
    return list(names), ranks


def map_over_ranks(
    function: Callable[[Any], np.ndarray], items: Iterable[Any], ranks: Ranks
) -> Iterator[np.ndarray]:
    """Yield `function` of each item in order, on all ranks; each item is computed by one of them.

    With one rank it is `map`. Otherwise as many items as there are ranks are held at a time. All
    ranks must take equally many results.

    Args:
        function: gives float32 arrays, of any shapes.
        items: the same on all ranks.
        ranks: item n is computed by rank n modulo their number.
    """
    if ranks.size == 1:
        yield from map(function, items)
        return
    items = iter(items)
    while group := list(itertools.islice(items, ranks.size)):
        has_item = ranks.rank < len(group)
        own = np.ascontiguousarray(function(group[ranks.rank])) if has_item else np.zeros(0)
        shapes = ranks.gather_json(own.shape)
        for shape, values in zip(shapes, ranks.channel.gather(own.data), strict=True):
            if shape != [0]:
                yield np.frombuffer(values, np.float32).reshape(shape)
