"""What settings a config has: names, types, defaults and texts, from its dataclass."""

import dataclasses
import inspect
import re
import types
import typing
from pathlib import Path
from typing import Any, NamedTuple

from docstring_parser import DocstringStyle, parse

from mg.dtypes import DTYPES
from mg.shipped import short_path

__all__ = [
    "REQUIRED",
    "Setting",
    "field_texts",
    "hints_of",
    "section_of",
    "settings_of",
    "type_text",
    "value_text",
]

REQUIRED = "required"


class Setting(NamedTuple):
    """A setting as people read it.

    Attributes:
        name: dotted, such as `optim.lr`.
        type: such as `int or null`, or the choices, such as `{graph,pynative}`; `section` for what
            has settings below it.
        default: as it is written in YAML, or `REQUIRED`; empty for a section.
        text: what the docstring says about it.
    """

    name: str
    type: str
    default: str
    text: str


def settings_of(config_class: type, prefix: str = "") -> list[Setting]:
    """Return the settings of a dataclass, those of its sections behind each section.

    Settings of the items of a list of sections have the list's name in front.
    """
    texts, hints = field_texts(config_class), typing.get_type_hints(config_class)
    settings = []
    for field in dataclasses.fields(config_class):
        section = section_of(hints[field.name])
        kind = choices_text(field, hints[field.name]) or type_text(hints[field.name])
        default = "" if section is not None else default_text(field)
        settings.append(Setting(prefix + field.name, kind, default, texts.get(field.name, "")))
        if section is not None:
            settings += settings_of(section, f"{prefix}{field.name}.")
    return settings


def section_of(hint: Any) -> type | None:
    """Return the dataclass that a type is, may be, or is a list of."""
    return next(filter(dataclasses.is_dataclass, (hint, *typing.get_args(hint))), None)


def hints_of(config_class: type, prefix: str = "") -> dict[str, Any]:
    """Return the type of every setting and section by its dotted name.

    The settings of the items of a list of sections are `list.name`.
    """
    hints = {}
    for name, hint in typing.get_type_hints(config_class).items():
        section = section_of(hint)
        hints[prefix + name] = hint
        if section is not None:
            hints |= hints_of(section, f"{prefix}{name}.")
    return hints


def choices_text(field: dataclasses.Field, hint: Any) -> str:
    """Return the values that a field may have, such as `{graph,pynative}`; "" if it has no list."""
    choices = field.metadata.get("choices", ())
    if not choices and field.name.endswith("dtype") and hint in (str, str | None):
        choices = DTYPES
    if not choices:
        return ""
    return "{" + ",".join(choices) + "}" + (" or null" if hint == str | None else "")


def type_text(hint: Any) -> str:
    """Return a type in words, such as `int, list of int or null`."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        parts = [type_text(part) for part in typing.get_args(hint)]
        parts.sort(key=lambda part: part == "null")
        return " or ".join([", ".join(parts[:-1]), parts[-1]])
    if hint is type(None):
        return "null"
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(str, typing.get_args(hint)))
    if dataclasses.is_dataclass(hint):
        return "section"
    if typing.get_origin(hint) in (list, tuple):
        inner = [type_text(part) for part in typing.get_args(hint) if part is not Ellipsis]
        return f"list of {inner[0]}" if len(set(inner)) == 1 else f"list ({', '.join(inner)})"
    if typing.get_origin(hint) is dict:
        return "mapping"
    names = {bool: "true or false", str: "text", float: "number", int: "int", Path: "path"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def default_text(field: dataclasses.Field) -> str:
    """Return a field's default as YAML writes it; shipped files by their short path."""
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return REQUIRED
    return value_text(value)


def value_text(value: Any) -> str:
    """Return a value as YAML writes it; shipped files by their short path."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(value_text, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {value_text(item)}" for key, item in value.items()) + "}"
    text = short_path(value) if isinstance(value, str | Path) else str(value)
    return text or '""'


def field_texts(config_class: type) -> dict[str, str]:
    """Return what the docstrings of a dataclass and its bases say about each field."""
    texts = {}
    for base in reversed(config_class.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        texts |= _comments(base)
        for entry in parse(base.__doc__ or "", DocstringStyle.GOOGLE).params:
            text = " ".join((entry.description or "").split())
            for name in entry.arg_name.split(","):
                texts[name.strip()] = text
    return texts


def _comments(config_class: type) -> dict[str, str]:
    """Return the comment behind each field in a dataclass's source, or else the one just above."""
    texts, above = {}, []
    for line in inspect.getsource(config_class).splitlines():
        field = re.match(r"    (\w+): [^#]*(?:# (.*))?$", line)
        if line.startswith("    # "):
            above.append(line.removeprefix("    # "))
            continue
        if field and (field[2] or above):
            texts[field[1]] = field[2] or " ".join(above)
        elif line.startswith("    def "):
            break
        above = []
    return texts
