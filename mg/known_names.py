"""Names that come from outside: wrong ones are refused with the nearest right one."""

import dataclasses
import difflib
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["check_known", "did_you_mean", "nearest", "one_of"]

MAX_SHOWN = 100


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the known name that is most like another one; None if none is.

    Args:
        name: as given.
        known: the right ones.
        cutoff: how alike two names must be, from 0 to 1.
    """
    near = difflib.get_close_matches(name[:MAX_SHOWN], known, n=1, cutoff=cutoff)
    return near[0] if near else None


def did_you_mean(name: str, known: Iterable[str], otherwise: str, *, cutoff: float = 0.6) -> str:
    """Return a hint at the known name that may be meant, or `otherwise` if none is alike."""
    near = nearest(name, known, cutoff=cutoff)
    return otherwise if near is None else f"did you mean {near!r}?"


def one_of(default: str | None, choices: Sequence[str]) -> Any:
    """Return a dataclass field whose help lists the values that it may have.

    Args:
        default: of the field.
        choices: the values; the dataclass checks them itself.
    """
    return dataclasses.field(default=default, metadata={"choices": tuple(choices)})


def check_known(names: Iterable[str], known: Sequence[str], *, kind: str, place: str) -> None:
    """Raise ValueError for the first of `names` that is not among those known.

    Args:
        names: as given.
        known: the right ones.
        kind: what they are, such as `key`.
        place: where they stand, such as `in the TAE config`.
    """
    for name in names:
        if name not in known:
            shown = str(name)[:MAX_SHOWN]  # of a name from a file, however long
            hint = did_you_mean(shown, known, f"known {kind}s: {list(known)}")
            raise ValueError(f"unknown {kind} {shown!r} {place}; {hint}")
