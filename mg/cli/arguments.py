"""The arguments of a command line, rewritten as the parser needs them."""

import itertools
import json
import re
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mg.cli.setting_names import own_name, say_renamed, unknown_setting
from mg.cli.values import meant_text
from mg.shipped import find_shipped
from mg.yaml_file import parse_yaml, read_yaml

__all__ = [
    "Completed",
    "check_flags",
    "flags_of",
    "is_known_flag",
    "with_bare_switches",
    "with_further_settings",
    "with_own_names",
    "with_shipped_configs",
]

# From the flags and from the content of the config files to further settings by dotted name.
Completed = Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]]

# Flags that the parser itself has.
PARSER_FLAGS = ("config", "print_config")


def with_own_names(argv: list[str], settings: dict[str, Any]) -> list[str]:
    """Return the arguments with names that all commands share replaced by the config's own.

    Whole numbers may be written as 1e3, sizes as 96x160, a list of one text as that text.
    """
    renamed = []
    for argument, after in itertools.pairwise([*argv, ""]):
        flag = re.match(r"--([\w.-]+)(=?)(.*)", argument, re.DOTALL)
        if flag is not None:
            name = own_name(flag[1], settings, flag[3] if flag[2] else after)
            say_renamed(flag[1], name)
            value = flag[3]
            if flag[2]:
                value = meant_text(value, settings.get(name))
            argument = f"--{name}{flag[2]}{value}"
        elif renamed:
            argument = meant_text(argument, settings.get(renamed[-1].removeprefix("--")))
        renamed.append(argument)
    return renamed


def with_bare_switches(argv: list[str], settings: dict[str, Any]) -> list[str]:
    """Return the arguments with `=true` added to switches that have no value."""
    switches = {f"--{name}" for name, hint in settings.items() if hint is bool}
    return [
        f"{flag}=true" if flag in switches and after.startswith("--") else flag
        for flag, after in itertools.pairwise([*argv, "--"])
    ]


def with_shipped_configs(argv: list[str]) -> list[str]:
    """Return the arguments with `--config` naming the shipped file where no other is there."""
    found = list(argv)
    for i, argument in enumerate(argv):
        if argument.startswith("--config="):
            found[i] = "--config=" + find_shipped(argument.removeprefix("--config="))
        elif i and argv[i - 1] == "--config":
            found[i] = find_shipped(argument)
    return found


def with_further_settings(argv: list[str], completed: Completed) -> list[str]:
    """Return the arguments with settings added between the config files and the flags."""
    flags: dict[str, Any] = {}
    in_files: dict[str, Any] = {}
    for name, value in flags_of(argv):
        if name == "config":
            in_files = _merged(in_files, read_yaml(Path(value)))
        else:
            nested = _read_value(value)
            for part in reversed(name.split(".")):
                nested = {part: nested}
            flags = _merged(flags, nested)
    place = 0
    for i, argument in enumerate(argv):
        if argument == "--config" or argument.startswith("--config="):
            place = i + (2 if argument == "--config" else 1)
    added = [
        f"--{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in completed(flags, in_files).items()
    ]
    return [*argv[:place], *added, *argv[place:]]


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested mappings as one; of what both have, the second counts."""
    merged = {**first, **second}
    for key in first.keys() & second.keys():
        if isinstance(first[key], Mapping) and isinstance(second[key], Mapping):
            merged[key] = _merged(first[key], second[key])
    return merged


def _read_value(text: str) -> Any:
    """Return the value of a flag as YAML reads it, or the text where it is none."""
    try:
        return parse_yaml(text, "a flag")
    except ValueError:
        return text


def check_flags(argv: list[str], settings: dict[str, Any]) -> None:
    """Raise ValueError for a flag that is unknown, with the nearest right one."""
    for argument in argv:
        if argument.startswith("--"):
            name = argument[2:].split("=", 1)[0].removesuffix("+")  # --list+=item appends
            if not is_known_flag(name, settings):
                raise ValueError(unknown_setting(name, ["config", *settings]))


def is_known_flag(name: str, settings: dict[str, Any]) -> bool:
    """Return whether the parser takes a flag: one of its own, a setting, or an entry of a setting
    that takes any, such as `model.dim`."""
    section, _, entry = name.partition(".")
    is_entry = bool(entry) and typing.get_origin(settings.get(section)) is dict
    return name in settings or name in PARSER_FLAGS or is_entry


def flags_of(argv: list[str]) -> list[tuple[str, str]]:
    """Return (name, value) of every flag that has a value."""
    flags = []
    for flag, after in itertools.pairwise([*argv, "--"]):
        name, has_value, value = flag.removeprefix("--").partition("=")
        if flag.startswith("--") and (has_value or not after.startswith("--")):
            flags.append((name.removesuffix("+"), value if has_value else after))
    return flags
