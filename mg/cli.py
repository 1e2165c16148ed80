"""Command lines from dataclasses: YAML file plus `--a.b=c` overrides, checked before any work."""

import contextlib
import dataclasses
import itertools
import json
import logging
import math
import os
import re
import select
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jsonargparse
import yaml

from mg.cli_help import wanted_help
from mg.console import one_line, printable, set_up_console
from mg.files import write_text
from mg.interrupts import ENDED, EXIT_CODE, interruptible
from mg.setting_names import SHARED_NAMES, own_name, unknown_setting
from mg.shipped import find_shipped
from mg.yaml_file import parse_yaml, read_yaml

__all__ = [
    "config_of_mapping",
    "config_to_yaml",
    "is_setting",
    "parse_config",
    "plain_settings",
    "run_main",
    "save_config",
]

logger = logging.getLogger("mg")

Config = TypeVar("Config")
Completed = Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]]

# Flags that the parser itself has.
PARSER_FLAGS = ("config", "print_config")
UNREAD_CODE = 141  # of a process that SIGPIPE ends, as shells give it
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
    commands share (`mg.setting_names.ONE_NAME`) stand for the config's own.

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
    settings = _settings(config_class)
    argv = list(sys.argv[1:] if argv is None else argv)
    text = wanted_help(argv, config_class, description=description, common=common)
    if text is not None:
        print(text)
        raise SystemExit(0)
    argv = _with_bare_switches(_with_own_names(argv, settings), settings)
    argv = _with_shipped_configs(argv)
    _check_flags(argv, settings)
    argv = _with_own_files(argv, settings)
    for name, value in _flags(argv):
        if name == "config":
            continue
        if _section(settings.get(name)) is not None:
            _check_section_flag(name, value, settings)
    if completed is not None:
        argv = _with_further_settings(argv, completed)
    parser = jsonargparse.ArgumentParser(exit_on_error=False, allow_abbrev=False, add_help=False)
    parser.add_argument("--config", action="config", help="YAML file with any of these settings")
    parser.add_class_arguments(config_class, nested_key=None)
    try:
        namespace = parser.parse_args(argv)
    except (jsonargparse.ArgumentError, ValueError) as error:
        raise ValueError(_plain_message(str(error))) from error
    return _build(config_class, namespace)


def is_setting(config_class: type, flag: str) -> bool:
    """Return whether a command with this config takes a flag, given without its dashes."""
    settings = _settings(config_class)
    name = own_name(flag.removesuffix("+"), settings)
    is_help = flag in ("help", "help-all") or flag.endswith(".help")
    return is_help or name in settings or name in PARSER_FLAGS or _is_in_mapping(name, settings)


def config_of_mapping(config_class: type[Config], mapping: Mapping[str, Any]) -> Config:
    """Return a `config_class` from the content of a YAML file, checked as `parse_config` does.

    Raises:
        ValueError: as `parse_config`.
    """
    settings = _settings(config_class)
    mapping = _own_content(dict(mapping), settings)
    _check_keys(mapping, settings)
    parser = jsonargparse.ArgumentParser(exit_on_error=False, allow_abbrev=False, add_help=False)
    parser.add_class_arguments(config_class, nested_key=None)
    try:
        namespace = parser.parse_object(dict(mapping))
    except (jsonargparse.ArgumentError, ValueError) as error:
        raise ValueError(_plain_message(str(error))) from error
    return _build(config_class, namespace)


def _section(hint: Any) -> type | None:
    """Return the dataclass that a type is, may be, or is a list of."""
    return next(filter(dataclasses.is_dataclass, (hint, *typing.get_args(hint))), None)


def _build(config_class: type[Config], values: jsonargparse.Namespace, prefix: str = "") -> Config:
    """Return a dataclass from parsed values; errors name the section."""
    arguments = {}
    for name, hint in typing.get_type_hints(config_class).items():
        value, section = values[name], _section(hint)
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


def _settings(config_class: type, prefix: str = "") -> dict[str, Any]:
    """Return the type of every setting and section by its dotted name.

    The settings of the items of a list of sections are `list.name`.
    """
    settings = {}
    for name, hint in typing.get_type_hints(config_class).items():
        section = _section(hint)
        settings[prefix + name] = hint
        if section is not None:
            settings |= _settings(section, f"{prefix}{name}.")
    return settings


def _with_own_names(argv: list[str], settings: dict[str, Any]) -> list[str]:
    """Return the arguments with names that all commands share replaced by the config's own.

    Whole numbers may be written as 1e3, sizes as 96x160, a list of one text as that text.
    """
    renamed = []
    for argument, after in itertools.pairwise([*argv, ""]):
        flag = re.match(r"--([\w.-]+)(=?)(.*)", argument, re.DOTALL)
        if flag is not None:
            name = own_name(flag[1], settings, flag[3] if flag[2] else after)
            _say_renamed(flag[1], name)
            value = flag[3]
            if flag[2]:
                value = _meant_text(value, settings.get(name))
            argument = f"--{name}{flag[2]}{value}"
        elif renamed:
            argument = _meant_text(argument, settings.get(renamed[-1].removeprefix("--")))
        renamed.append(argument)
    return renamed


def _say_renamed(given: str, own: str) -> None:
    plain = given.replace("-", "_")
    if own.replace("-", "_") != plain and plain not in SHARED_NAMES:
        logger.info("%s is taken as %s, its name in this command.", given, own)


def _is_whole(hint: Any) -> bool:
    """Return whether a setting takes whole numbers and no others."""
    kinds = {hint, *typing.get_args(hint)}
    return int in kinds and float not in kinds


def _meant_text(text: str, hint: Any) -> str:
    """Return a flag's value as the parser reads it: whole numbers, sizes, lists of one text."""
    if _is_whole(hint):
        text = _whole_text(text)
    meant = _meant_value(text, hint)
    return text if meant == text else json.dumps(meant)


def _meant_value(value: str, hint: Any) -> str | list:
    """Return [96, 160] for the size 96x160, a list for its only text, other values as they are."""
    kinds = {hint} if typing.get_origin(hint) is list else {hint, *typing.get_args(hint)}
    size = re.fullmatch(r"(\d+)[xX](\d+)", value)
    if size and {int, tuple[int, int]} <= kinds:
        return [int(size[1]), int(size[2])]
    # With a comma it could be one text or several.
    is_bare = value not in ("", "null") and not re.search(r"^[\[{]|[,\n]", value)
    return [value] if is_bare and list[str] in kinds and str not in kinds else value


def _whole_text(text: str) -> str:
    """Return a whole number that is written as 1e3 or 2.5e4 with all its digits."""
    if re.fullmatch(r"\d+(\.\d+)?[eE]\+?\d", text) and float(text).is_integer():
        return str(int(float(text)))
    return text


def _with_own_files(argv: list[str], settings: dict[str, Any]) -> list[str]:
    """Return the arguments with checked config files; one that is not as the parser needs it
    (`_own_content`) becomes the text of YAML that is."""
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


def _own_content(content: dict, settings: dict[str, Any], prefix: str = "") -> dict:
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
        if _is_whole(settings.get(ours)):
            value = _whole_value(value)
        if isinstance(value, str):
            value = _meant_value(value, settings.get(ours))
        if ours != name:
            renamed.append((name, ours, value))
        else:
            is_section = below and name in settings
            own[key] = _own_content(value, settings, f"{name}.") if is_section else value
    for name, ours, value in renamed:
        _say_renamed(name, ours)
        *sections, last = ours.split(".")
        place = own
        for section in sections:
            place = place.setdefault(section, {})
        if not isinstance(place, dict) or last in place:
            raise ValueError(f"{name} and {ours} both stand there and mean the same; keep {ours}")
        place[last] = value
    return own


def _whole_value(value: Any) -> Any:
    if isinstance(value, str):
        text = _whole_text(value)
        return value if text == value else int(text)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _with_bare_switches(argv: list[str], settings: dict[str, Any]) -> list[str]:
    """Return the arguments with `=true` added to switches that have no value."""
    switches = {f"--{name}" for name, hint in settings.items() if hint is bool}
    return [
        f"{flag}=true" if flag in switches and after.startswith("--") else flag
        for flag, after in itertools.pairwise([*argv, "--"])
    ]


def _with_shipped_configs(argv: list[str]) -> list[str]:
    """Return the arguments with `--config` naming the shipped file where no other is there."""
    found = list(argv)
    for i, argument in enumerate(argv):
        if argument.startswith("--config="):
            found[i] = "--config=" + find_shipped(argument.removeprefix("--config="))
        elif i and argv[i - 1] == "--config":
            found[i] = find_shipped(argument)
    return found


def _with_further_settings(argv: list[str], completed: Completed) -> list[str]:
    """Return the arguments with settings added between the config files and the flags."""
    flags: dict[str, Any] = {}
    in_files: dict[str, Any] = {}
    for name, value in _flags(argv):
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


def _check_flags(argv: list[str], settings: dict[str, Any]) -> None:
    for argument in argv:
        if argument.startswith("--"):
            name = argument[2:].split("=", 1)[0].removesuffix("+")  # --list+=item appends
            if name in settings or name in PARSER_FLAGS or _is_in_mapping(name, settings):
                continue
            raise ValueError(unknown_setting(name, ["config", *settings]))


def _is_in_mapping(name: str, settings: dict[str, Any]) -> bool:
    """Return whether a setting is an entry of one that takes any, such as `model.dim`."""
    section, _, entry = name.partition(".")
    return bool(entry) and typing.get_origin(settings.get(section)) is dict


def _flags(argv: list[str]) -> list[tuple[str, str]]:
    """Return (name, value) of every flag that has a value."""
    flags = []
    for flag, after in itertools.pairwise([*argv, "--"]):
        name, has_value, value = flag.removeprefix("--").partition("=")
        if flag.startswith("--") and (has_value or not after.startswith("--")):
            flags.append((name.removesuffix("+"), value if has_value else after))
    return flags


def _check_section_flag(name: str, value: str, settings: dict[str, Any]) -> None:
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
        own = _own_content(content, settings)
        _check_keys(own, settings)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return None if own == content and str(own) == str(content) else own


def _check_keys(content: dict, settings: dict[str, Any], prefix: str = "") -> None:
    for key, value in content.items():
        name = f"{prefix}{key}"
        if name not in settings:
            raise ValueError(unknown_setting(name, ["config", *settings]))
        hint = settings[name]
        if _section(hint) is None and not _is_finite(value):
            raise ValueError(f"{name}={one_line(repr(value))}; expected a finite number")
        is_null = value is None and type(None) in typing.get_args(hint)
        is_text = isinstance(value, str) and str in typing.get_args(hint)
        if _section(hint) is None or is_null or is_text:
            continue
        is_list = typing.get_origin(hint) is list
        if is_list and not isinstance(value, list):
            raise ValueError(f"{name}: expected a list, got {one_line(repr(value))}")
        for item in value if is_list else [value]:
            if not isinstance(item, dict) or (is_list and not item):
                raise ValueError(f"{name}: expected settings below it, got {one_line(repr(item))}")
            _check_keys(item, settings, f"{name}.")


def _is_finite(value: Any) -> bool:
    """Return whether no number in a value is NaN or infinite."""
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _plain_message(message: str) -> str:
    """Return the parser's message as one line without its inner workings."""
    union = re.search(r"Errors:\n(.*?)\n\s*Given value type", message, re.DOTALL)
    if union:  # an optional setting: its own fault is reported, not that it is not null either
        keys = ".".join(re.findall(r'Parser key "([\w.]+)":', message[: union.start()]))
        given = re.search(r"Given value: (.*)", message)
        others = "NoneType"
        if "- Problem with given" in union[1]:  # a fault inside a section; text is not meant
            others = "NoneType|str"
        faults = re.sub(
            rf"- Expected a <class '({others})'>\S*|- Problem with given .*", "", union[1]
        )
        message = " ".join(faults.split()).removeprefix("- ")
        is_size = re.match(
            r"Expected a <class 'int'> - (Expected a (<class 't|t)uple|expected)", message
        )
        if given and is_size:
            message = f"expected a size such as 96 or [96, 160], got {given[1]}"
        elif given and re.fullmatch(r"Expected an? <class '\w+'>", message):
            message += f". Got value: {given[1]}"
        message = f"{keys}: {message}" if keys else message
    message = re.sub(r'Parser key "([\w.]+)":', r"\1:", message)
    message = re.sub(r"Expected an? <class '(\w+)'>\.? Got value:", r"expected \1, got", message)
    stray = re.search(r"[Uu]nrecognized arguments: (.*)", message)
    if stray:
        return (
            f"{stray[1]!r} belongs to no setting; write --name=value (--help-all lists the names)"
        )
    message = " ".join(message.split())
    wants_list = re.fullmatch(r"([\w.]+): expected list, got ([\w./*, -]+)", message)
    if wants_list:
        message += f"; a list is written --{wants_list[1]} '[{wants_list[2]}]'"
    return message


def config_to_yaml(config: Any) -> str:
    """Return a dataclass as YAML text that `parse_config` reads back to an equal one."""
    return yaml.safe_dump(plain_settings(config), sort_keys=False)


def plain_settings(config: Any) -> dict[str, Any]:
    """Return the fields of a dataclass as YAML holds them: paths as text, tuples as lists."""
    return _plain(dataclasses.asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def save_config(path: Path, config: Any) -> None:
    """Write the resolved config beside the outputs it made; replaces an older one."""
    write_text(path, config_to_yaml(config), overwrite=True)


def run_main(main: Callable[[], int | None]) -> None:
    """Run a command's `main`; a user's fault ends in one clear line on stderr and exit code 1.

    An exit code that `main` returns becomes the process's. Ctrl-C ends in one line and exit code
    130, also while a network is compiled (`mg.interrupts`). Output that nobody reads to its end, as
    in `mg ... | head`, ends it quietly.

    Other exceptions are faults of ours and keep their traceback, as all do if the environment
    variable MG_DEBUG is set. All output is made printable (`mg.console`).
    """
    set_up_console()
    try:
        _run(main)
    finally:
        _is_unread()  # what is still to be flushed would end in a message of the interpreter's


def _run(main: Callable[[], int | None]) -> None:
    try:
        with interruptible():
            code = main()
    except KeyboardInterrupt:
        with contextlib.suppress(BrokenPipeError):
            print(ENDED, file=sys.stderr)
        raise SystemExit(EXIT_CODE) from None
    except (ValueError, OSError, FloatingPointError) as error:
        if isinstance(error, BrokenPipeError) and _is_unread():
            raise SystemExit(UNREAD_CODE) from None
        if os.environ.get("MG_DEBUG"):
            raise
        with contextlib.suppress(BrokenPipeError):
            print(printable(f"error: {error}"), file=sys.stderr)
        raise SystemExit(1) from None
    if code:
        raise SystemExit(code)


def _is_unread() -> bool:
    """Return whether nobody reads stdout any more; if so, what is left of it goes nowhere."""
    try:
        descriptor = sys.stdout.fileno()
        outlook = select.poll()
    except (AttributeError, OSError, ValueError):  # no file, a closed one, or Windows
        return False
    outlook.register(descriptor, 0)
    is_unread = any(event & select.POLLERR for _, event in outlook.poll(0))
    if is_unread:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
    return is_unread
