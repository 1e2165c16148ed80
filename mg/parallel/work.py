"""Work that needs no training step: items computed by several ranks, and what they have to tell."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from mindspore import Tensor, ops

from mg.parallel.collectives import broadcast_array
from mg.parallel.ranks import ONE_RANK, Ranks

__all__ = ["gather_json", "map_over_ranks", "share_files"]

MAX_AXES = 8


def share_files(names: Sequence[str], ranks: Ranks) -> tuple[list[str], Ranks]:
    """Return the files that this rank works on, and the ranks that work on each of them together.

    Files are shared out where there are enough for all ranks; of fewer, all ranks work on each.
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
        own = function(group[ranks.rank]) if ranks.rank < len(group) else None
        for root in range(len(group)):
            yield _from_rank(own if root == ranks.rank else None, ranks, root)


def _from_rank(array: np.ndarray | None, ranks: Ranks, root: int) -> np.ndarray:
    """Return on all ranks the float32 array that rank `root` has."""
    shape = np.full(MAX_AXES, -1, np.int32)
    if array is not None:
        shape[: array.ndim] = array.shape
    shape = [size for size in broadcast_array(shape, ranks, root=root) if size >= 0]
    values = np.zeros(shape, np.float32) if array is None else array
    return broadcast_array(values, ranks, root=root)


def gather_json(value: Any, ranks: Ranks) -> list[Any]:
    """Return the values of all ranks in their order, on each rank; all must call it.

    Args:
        value: anything that JSON can hold.
        ranks: this one among all.
    """
    if ranks.size == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8).astype(np.int32)
    lengths = _gather(np.array([text.size], np.int32))
    padded = np.zeros(int(lengths.max()), np.int32)
    padded[: text.size] = text
    rows = _gather(padded).reshape(ranks.size, -1)
    return [
        json.loads(row[:length].astype(np.uint8).tobytes())
        for row, length in zip(rows, lengths, strict=True)
    ]


def _gather(array: np.ndarray) -> np.ndarray:
    """Return the arrays of all ranks, joined along the first axis."""
    return ops.AllGather()(Tensor(array)).asnumpy()
