"""Values as people write them, such as 1e3 and 96x160, turned into what the parser reads."""

import json
import re
import typing
from typing import Any

__all__ = ["is_whole", "meant_text", "meant_value", "whole_value"]


def is_whole(hint: Any) -> bool:
    """Return whether a setting takes whole numbers and no others."""
    kinds = {hint, *typing.get_args(hint)}
    return int in kinds and float not in kinds


def meant_text(text: str, hint: Any) -> str:
    """Return a flag's value as the parser reads it: whole numbers, sizes, lists of one text."""
    if is_whole(hint):
        text = _whole_text(text)
    meant = meant_value(text, hint)
    return text if meant == text else json.dumps(meant)


def meant_value(value: str, hint: Any) -> str | list:
    """Return [96, 160] for the size 96x160, a list for its only text, other values as they are."""
    kinds = {hint} if typing.get_origin(hint) is list else {hint, *typing.get_args(hint)}
    size = re.fullmatch(r"(\d+)[xX](\d+)", value)
    if size and {int, tuple[int, int]} <= kinds:
        return [int(size[1]), int(size[2])]
    # With a comma it could be one text or several.
    is_bare = value not in ("", "null") and not re.search(r"^[\[{]|[,\n]", value)
    return [value] if is_bare and list[str] in kinds and str not in kinds else value


def whole_value(value: Any) -> Any:
    """Return a whole number that a file has as 1e3, in quotes or not; other values as they are."""
    if isinstance(value, str):
        text = _whole_text(value)
        return value if text == value else int(text)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _whole_text(text: str) -> str:
    """Return a whole number that is written as 1e3 or 2.5e4 with all its digits."""
    if re.fullmatch(r"\d+(\.\d+)?[eE]\+?\d", text) and float(text).is_integer():
        return str(int(float(text)))
    return text
