"""Whether the fields of a dataclass hold what its type annotations say."""

import dataclasses
import functools
import math
import numbers
import os
import sys
import types
import typing
from collections.abc import Sequence
from typing import Any

from mg.console import one_line

__all__ = ["check_positive", "check_structure", "check_types", "check_whole"]

KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "text",
    types.NoneType: "null",
}
MANY = {bool: "values, true or false", int: "whole numbers", float: "finite numbers", str: "texts"}


def check_types(settings: Any, section: str = "") -> None:
    """Raise ValueError if a field of a dataclass holds another type than its annotation says.

    Numbers must be finite: NaN and infinity are never meant.

    Args:
        settings: the dataclass.
        section: what stands before the names of its fields in messages, e.g. "optim.".
    """
    for name, hint in _hints(type(settings)).items():
        value = getattr(settings, name)
        if not _fits(value, hint):
            raise ValueError(f"{section}{name}={one_line(repr(value))}; expected {_kind(hint)}")


def check_structure(config: Any, *, any_whole: Sequence[str] = ()) -> None:
    """Turn lists into tuples, and raise ValueError unless a network can have such fields.

    They hold what their annotations say, and whole numbers, alone or in a list, are 1 or more.

    Args:
        config: a frozen dataclass.
        any_whole: fields whose whole numbers may be any.
    """
    for field in dataclasses.fields(config):
        name, value = field.name, getattr(config, field.name)
        hint = _hints(type(config))[name]
        if isinstance(value, list):
            value = tuple(value)
            object.__setattr__(config, name, value)
        is_count = int in _leaves(hint) and name not in any_whole
        if not _fits(value, hint) or (is_count and _least(value) < 1):
            kind = _kind(hint, of=" of 1 or more" if is_count else "")
            raise ValueError(f"{name}={one_line(repr(value))}; expected {kind}")


def _leaves(hint: Any) -> list[Any]:
    """Return the types that an annotation is made of."""
    arguments = typing.get_args(hint)
    return [leaf for argument in arguments for leaf in _leaves(argument)] if arguments else [hint]


def _least(value: Any) -> float:
    """Return the least of the numbers that a field holds; infinity if there are none."""
    values = value if isinstance(value, tuple) else (value,)
    return min((number for number in values if number is not None), default=math.inf)


def check_whole(of: object, names: Sequence[str], prefix: str = "") -> None:
    """Raise ValueError unless these attributes are whole numbers of 1 or more.

    Args:
        of: the object that has them.
        names: the attributes.
        prefix: text before a name in the message.
    """
    for name in names:
        value = getattr(of, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{prefix}{name}={value!r}; expected a whole number of 1 or more")


def check_positive(of: object, names: Sequence[str]) -> None:
    """Raise ValueError unless these attributes are finite numbers above 0."""
    for name in names:
        value = getattr(of, name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 < value < float("inf"):
            raise ValueError(f"{name}={value!r}; expected a number above 0")


@functools.lru_cache(maxsize=64)
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is tuple and arguments[-1] is not ...:
        return (
            isinstance(value, list | tuple)
            and len(value) == len(arguments)
            and all(map(_fits, value, arguments))
        )
    if origin in (list, tuple):
        return isinstance(value, list | tuple) and all(_fits(v, arguments[0]) for v in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(v, arguments[1]) for v in value.values())
    if hint is float:
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        return is_number and abs(value) <= sys.float_info.max  # NaN is not
    if hint is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str | os.PathLike)
    return hint is Any or isinstance(value, hint)


def _kind(hint: Any, *, of: str = "") -> str:
    """Return what an annotation asks for in words; `of` follows whole numbers."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(argument, of=of) for argument in arguments)
    if origin is tuple and arguments[-1] is not ...:
        return f"a list of {len(arguments)}: " + ", ".join(map(_kind, arguments))
    if origin in (list, tuple):
        item = arguments[0]
        many = MANY.get(item, _kind(item))
        return f"a list of {many}{of if item is int else ''}"
    if origin is dict:
        return f"settings with {_kind(arguments[1])} each"
    return KINDS.get(hint, "settings") + (of if hint is int else "")
