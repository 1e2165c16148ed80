"""Configs from command lines: a YAML file plus `--a.b=c` overrides, checked before any work."""

import math
import re
import sys
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jsonargparse

from mg.cli.arguments import (
    Completed,
    check_flags,
    flags_of,
    is_known_flag,
    with_bare_switches,
    with_further_settings,
    with_own_names,
    with_shipped_configs,
)
from mg.cli.config_content import check_keys, check_section_flag, own_content, with_own_files
from mg.cli.help import wanted_help
from mg.cli.parser_messages import plain_message
from mg.cli.setting_names import own_name
from mg.cli.settings_table import hints_of, section_of
from mg.shipped import find_shipped

__all__ = ["config_of_mapping", "is_setting", "parse_config"]

Config = TypeVar("Config")

SHORT_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def parse_config(
    config_class: type[Config],
    argv: Sequence[str] | None = None,
    *,
    description: str,
    common: Sequence[str] = (),
    completed: Completed | None = None,
) -> Config:
    """Return a `config_class` from `--config FILE` and flags; later flags win over the file.

    Nested fields are written `--section.field=value`; a YAML file has the same structure. A flag
    for a yes-or-no setting may stand without a value: `--resume` is `--resume=true`. Names that all
    commands share (`mg.cli.setting_names.ONE_NAME`) stand for the config's own.

    Args:
        config_class: a dataclass; its fields are the flags, its docstring their help.
        argv: the arguments; None takes those of the process.
        description: what the command does, for its help.
        common: names of the settings that `--help` shows; none for all.
        completed: from the flags and from the content of the `--config` files, both nested, to
            {dotted name: value} of further settings; they win over the files, flags over them.

    Raises:
        ValueError: an unknown key or flag (the nearest right one is named), a value of the wrong
            type, a missing required one, a number that is not finite, or a value the dataclass
            itself refuses.
        FileNotFoundError: the file that `--config` names does not exist.
        SystemExit: `--help`, `--help-all`, `--SECTION.help`.
    """
    settings = hints_of(config_class)
    argv = list(sys.argv[1:] if argv is None else argv)
    text = wanted_help(argv, config_class, description=description, common=common)
    if text is not None:
        print(text)
        raise SystemExit(0)
    argv = with_bare_switches(with_own_names(argv, settings), settings)
    argv = with_shipped_configs(argv)
    check_flags(argv, settings)
    argv = with_own_files(argv, settings)
    for name, value in flags_of(argv):
        if name == "config":
            continue
        if section_of(settings.get(name)) is not None:
            check_section_flag(name, value, settings)
    if completed is not None:
        argv = with_further_settings(argv, completed)
    parser = jsonargparse.ArgumentParser(exit_on_error=False, allow_abbrev=False, add_help=False)
    parser.add_argument("--config", action="config", help="YAML file with any of these settings")
    parser.add_class_arguments(config_class, nested_key=None)
    try:
        namespace = parser.parse_args(argv)
    except (jsonargparse.ArgumentError, ValueError) as error:
        raise ValueError(plain_message(str(error))) from error
    return _build(config_class, namespace)


def is_setting(config_class: type, flag: str) -> bool:
    """Return whether a command with this config takes a flag, given without its dashes."""
    settings = hints_of(config_class)
    name = own_name(flag.removesuffix("+"), settings)
    is_help = flag in ("help", "help-all") or flag.endswith(".help")
    return is_help or is_known_flag(name, settings)


def config_of_mapping(config_class: type[Config], mapping: Mapping[str, Any]) -> Config:
    """Return a `config_class` from the content of a YAML file, checked as `parse_config` does.

    Raises:
        ValueError: as `parse_config`.
    """
    settings = hints_of(config_class)
    mapping = own_content(dict(mapping), settings)
    check_keys(mapping, settings)
    parser = jsonargparse.ArgumentParser(exit_on_error=False, allow_abbrev=False, add_help=False)
    parser.add_class_arguments(config_class, nested_key=None)
    try:
        namespace = parser.parse_object(dict(mapping))
    except (jsonargparse.ArgumentError, ValueError) as error:
        raise ValueError(plain_message(str(error))) from error
    return _build(config_class, namespace)


def _build(config_class: type[Config], values: jsonargparse.Namespace, prefix: str = "") -> Config:
    """Return a dataclass from parsed values; errors name the section."""
    arguments = {}
    for name, hint in typing.get_type_hints(config_class).items():
        value, section = values[name], section_of(hint)
        if isinstance(value, jsonargparse.Namespace):
            value = _build(section, value, f"{prefix}{name}.")
        elif section is not None and isinstance(value, list):
            value = [_build(section, item, f"{prefix}{name}.") for item in value]
        _check_finite(f"{prefix}{name}", value)
        if isinstance(value, str):
            value = find_shipped(value)
            if name.endswith("dtype"):
                value = SHORT_DTYPES.get(value, value)
        arguments[name] = value
    try:
        return config_class(**arguments)
    except ValueError as error:
        message = str(error)
        if message.startswith(prefix.removesuffix(".")):
            raise
        is_about_field = re.match(r"\w+=", message)
        separator = "" if is_about_field else ": "
        section_name = prefix if is_about_field else prefix.removesuffix(".")
        raise ValueError(f"{section_name}{separator}{message}") from error


def _check_finite(name: str, value: Any) -> None:
    """Raise ValueError if a value is, or holds, a number that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}={value}; expected a finite number")
    if isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            _check_finite(name, item)
