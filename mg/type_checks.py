"""Whether the fields of a dataclass hold what its type annotations say."""

import functools
import numbers
import os
import sys
import types
import typing
from typing import Any

from mg.console import one_line

__all__ = ["check_types"]

KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "text",
    types.NoneType: "null",
}


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


def _kind(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_kind, arguments))
    if origin is tuple and arguments[-1] is not ...:
        return f"a list of {len(arguments)}: " + ", ".join(map(_kind, arguments))
    if origin in (list, tuple):
        return f"a list, of {_kind(arguments[0])}"
    if origin is dict:
        return f"settings with {_kind(arguments[1])} each"
    return KINDS.get(hint, "settings")
