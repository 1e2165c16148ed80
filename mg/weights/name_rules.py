"""Rules that turn the names of one publication into another's, and cut tensors along their rows.

A network's linear maps may be stored as one there and apart here: queries, keys and values, or
the shifts and scales of several norms. A `Part` says which rows of which tensor become another;
which tensors come of a file is known from names and shapes, before any is read.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

__all__ = ["Cut", "Part", "parts_by_rules", "shape_of_part", "take_part"]

Shapes = Mapping[str, tuple[int, ...]]


class Part(NamedTuple):
    """What becomes a tensor.

    Attributes:
        name: of a tensor in the file.
        rows: where the rows that are taken begin and end, joined in this order; None takes all.
    """

    name: str
    rows: tuple[tuple[int, int], ...] | None = None


class Cut(NamedTuple):
    """A linear map that is cut along its rows.

    Attributes:
        pieces: the names that come of it, each with the numbers of the pieces that are joined.
        equal: into how many pieces of one size it is cut.
        of_width: into how many pieces of the network's width, and what remains, in place of that.
    """

    pieces: Mapping[str, tuple[int, ...]]
    equal: int = 1
    of_width: int = 0


Rules = Mapping[str, str | Cut]


def take_part(array: np.ndarray, part: Part) -> np.ndarray:
    """Return the rows of an array that a part is, a view where it can be."""
    if part.rows is None:
        return array
    pieces = [array[start:stop] for start, stop in part.rows]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def shape_of_part(shape: tuple[int, ...], part: Part) -> tuple[int, ...]:
    """Return the shape of what `take_part` gives of an array of this shape."""
    if part.rows is None:
        return shape
    return sum(stop - start for start, stop in part.rows), *shape[1:]


def parts_by_rules(shapes: Shapes, rules: Rules, width: int) -> dict[str, Part]:
    """Return what each tensor becomes: {new name: part of a tensor}.

    Names that no rule knows stay as they are: whether they fit is for the strict loading to say.

    Args:
        shapes: of the tensors.
        rules: from modules to modules, their names without `.weight` and `.bias`; `{}` stands for
            the number of a block.
        width: of the network, for `Cut.of_width`.

    Raises:
        ValueError: rows that cannot be cut so, or two tensors that get the same name.
    """
    patterns = {re.compile(_pattern(old)): new for old, new in rules.items()}
    parts: dict[str, Part] = {}
    for name, shape in shapes.items():
        for new, part in _parts_of(name, shape, patterns, width).items():
            if new in parts:
                raise ValueError(
                    f"two tensors of the file get the name {new!r}; one of them is {name!r}"
                )
            parts[new] = part
    return parts


def _pattern(module: str) -> str:
    return re.escape(module).replace(re.escape("{}"), r"(\d{1,4})") + r"\.(weight|bias)"


def _parts_of(
    name: str,
    shape: tuple[int, ...],
    patterns: Mapping[re.Pattern, str | Cut],
    width: int,
) -> dict[str, Part]:
    matches = ((pattern.fullmatch(name), rule) for pattern, rule in patterns.items())
    match, rule = next(((m, rule) for m, rule in matches if m), (None, None))
    if match is None:
        return {name: Part(name)}
    *numbers, kind = match.groups()
    numbers = [int(number) for number in numbers]
    if isinstance(rule, str):
        return {f"{rule.format(*numbers)}.{kind}": Part(name)}
    ends = _ends(name, shape, rule, width)
    return {
        f"{new.format(*numbers)}.{kind}": Part(
            name, tuple((ends[piece], ends[piece + 1]) for piece in pieces)
        )
        for new, pieces in rule.pieces.items()
    }


def _ends(name: str, shape: tuple[int, ...], cut: Cut, width: int) -> list[int]:
    """Return where the pieces of a tensor begin, and where the last one ends."""
    rows = shape[0] if shape else 0
    if cut.of_width:
        if rows <= cut.of_width * width:
            raise ValueError(
                f"tensor {name!r} is {shape}; expected more than {cut.of_width} x {width} rows"
            )
        return [*(number * width for number in range(cut.of_width + 1)), rows]
    if rows == 0 or rows % cut.equal:
        raise ValueError(f"tensor {name!r} is {shape}; expected a multiple of {cut.equal} rows")
    return [number * rows // cut.equal for number in range(cut.equal + 1)]
