"""Names in configs that come from outside: wrong ones are refused with the nearest right one."""

import dataclasses
import difflib
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["check_known", "one_of"]

MAX_SHOWN = 100


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
            near = difflib.get_close_matches(shown, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known {kind}s: {list(known)}"
            raise ValueError(f"unknown {kind} {shown!r} {place}; {hint}")
