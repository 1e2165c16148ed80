"""Ranks that train together train on the same: compared before the first step."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mg.parallel.ranks import Ranks
from mg.training.run.checkpoint import flat_settings

__all__ = ["check_same_data", "check_same_step"]

MAX_NAMED = 3  # differences in a message


def check_same_data(ranks: Ranks, settings: Mapping[str, Any], clips: Sequence[str]) -> None:
    """Raise unless all ranks have the same settings and clips; all must call it, and all raise.

    Args:
        ranks: that train together.
        settings: of the run, as nested mappings of plain values.
        clips: a text for each clip of the data, in order, that is the same on all ranks.

    Raises:
        ValueError: a rank differs from rank 0; the message names it and the differences.
    """
    texts = {
        "settings": [f"{name}={value!r}" for name, value in flat_settings(settings).items()],
        "clips": list(clips),
    }
    found = ranks.gather_json({what: _digest(items) for what, items in texts.items()})
    for what, items in texts.items():
        differing = [rank for rank in range(len(found)) if found[rank][what] != found[0][what]]
        if differing:
            every = ranks.gather_json(items)  # much, but the run ends here
            raise ValueError(_difference(what, differing[0], every[0], every[differing[0]]))


def check_same_step(ranks: Ranks, step: int) -> None:
    """Raise unless all ranks begin with the same step; all must call it, and all raise.

    Raises:
        ValueError: they do not, since they have found different checkpoints.
    """
    steps = ranks.gather_json(step)
    if len(set(steps)) > 1:
        raise ValueError(
            f"the ranks go on from different steps, {steps}: they do not see the same checkpoints; "
            "all need the same output_path, on a disk that they share"
        )


def _digest(texts: Sequence[str]) -> str:
    """Return a hash of texts and their order."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


def _difference(what: str, rank: int, first: list[str], other: list[str]) -> str:
    only = {0: sorted(set(first) - set(other)), rank: sorted(set(other) - set(first))}
    parts = [
        f"only rank {number} has {', '.join(texts[:MAX_NAMED])}"
        + (f" and {len(texts) - MAX_NAMED} more" if len(texts) > MAX_NAMED else "")
        for number, texts in only.items()
        if texts
    ]
    return (
        f"rank {rank} has other {what} than rank 0: {'; '.join(parts) or 'another order'}; all "
        "ranks need the same config and must see the same files (is a disk not mounted, or was a "
        "table changed meanwhile?)"
    )
