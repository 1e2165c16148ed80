"""The content of config files, checked and rewritten as the parser needs it."""

import math
import typing
from pathlib import Path
from typing import Any

import yaml

from mg.cli.setting_names import own_name, say_renamed, unknown_setting
from mg.cli.settings_table import section_of
from mg.cli.values import is_whole, meant_value, whole_value
from mg.console import one_line
from mg.yaml_file import parse_yaml, read_yaml

__all__ = ["check_keys", "check_section_flag", "own_content", "with_own_files"]


def with_own_files(argv: list[str], settings: dict[str, Any]) -> list[str]:
    """Return the arguments with checked config files; one that is not as the parser needs it
    (`own_content`) becomes the text of YAML that is."""
    own, is_value = [], False
    for argument in argv:
        path = argument if is_value else argument.removeprefix("--config=")
        if is_value or path != argument:
            content = _checked_yaml(Path(path), settings)
            if content is not None:
                argument = argument.removesuffix(path) + yaml.safe_dump(content, sort_keys=False)
        is_value = argument == "--config"
        own.append(argument)
    return own


def own_content(content: dict, settings: dict[str, Any], prefix: str = "") -> dict:
    """Return settings of a file by the config's own names, whole numbers as such.

    Raises:
        ValueError: a setting is given under two names.
    """
    own: dict[str, Any] = {}
    renamed: list[tuple[str, str, Any]] = []
    for key, value in content.items():
        name, below = f"{prefix}{key}", isinstance(value, dict)
        if below and not prefix and name not in settings:  # such as `dataset: {data_path: ...}`
            values = {f"{name}.{k}": v for k, v in value.items()}
            ours = {given: own_name(given, settings, str(v)) for given, v in values.items()}
            if all(given != found for given, found in ours.items()):
                renamed += [(given, ours[given], v) for given, v in values.items()]
                continue
        ours = name if prefix else own_name(name, settings, str(value))
        if is_whole(settings.get(ours)):
            value = whole_value(value)
        if isinstance(value, str):
            value = meant_value(value, settings.get(ours))
        if ours != name:
            renamed.append((name, ours, value))
        else:
            is_section = below and name in settings
            own[key] = own_content(value, settings, f"{name}.") if is_section else value
    for name, ours, value in renamed:
        say_renamed(name, ours)
        *sections, last = ours.split(".")
        place = own
        for section in sections:
            place = place.setdefault(section, {})
        if not isinstance(place, dict) or last in place:
            raise ValueError(f"{name} and {ours} both stand there and mean the same; keep {ours}")
        place[last] = value
    return own


def check_section_flag(name: str, value: str, settings: dict[str, Any]) -> None:
    """Refuse what is given for a whole section: settings in braces, or else a config file."""
    if value.lstrip().startswith(("{", "[")):
        parse_yaml(value, f"--{name}")
    elif value != "null" and str not in typing.get_args(settings[name]):
        prefix = f"{name}."
        below = {k.removeprefix(prefix): v for k, v in settings.items() if k.startswith(prefix)}
        _checked_yaml(Path(value), below)


def _checked_yaml(path: Path, settings: dict[str, Any]) -> dict | None:
    """Return the settings of a file where they are not as they stand there; else None.

    Raises:
        ValueError: it is not YAML, or has keys that are not settings.
        FileNotFoundError: there is no such file.
    """
    try:
        content = read_yaml(path, finite=False)  # below, such a number is named by its setting
    except FileNotFoundError:
        raise FileNotFoundError(f"no such config file: {path}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no settings; expected lines like `steps: 1000`")
    try:
        own = own_content(content, settings)
        check_keys(own, settings)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return None if own == content and str(own) == str(content) else own


def check_keys(content: dict, settings: dict[str, Any], prefix: str = "") -> None:
    """Raise ValueError for a key that is no setting, or a value of the wrong structure."""
    for key, value in content.items():
        name = f"{prefix}{key}"
        if name not in settings:
            raise ValueError(unknown_setting(name, ["config", *settings]))
        hint = settings[name]
        if section_of(hint) is None and not _is_finite(value):
            raise ValueError(f"{name}={one_line(repr(value))}; expected a finite number")
        is_null = value is None and type(None) in typing.get_args(hint)
        is_text = isinstance(value, str) and str in typing.get_args(hint)
        if section_of(hint) is None or is_null or is_text:
            continue
        is_list = typing.get_origin(hint) is list
        if is_list and not isinstance(value, list):
            raise ValueError(f"{name}: expected a list, got {one_line(repr(value))}")
        for item in value if is_list else [value]:
            if not isinstance(item, dict) or (is_list and not item):
                raise ValueError(f"{name}: expected settings below it, got {one_line(repr(item))}")
            check_keys(item, settings, f"{name}.")


def _is_finite(value: Any) -> bool:
    """Return whether no number in a value is NaN or infinite."""
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)
