"""Command lines from dataclasses: YAML file plus `--a.b=c` overrides, checked before any work."""

import contextlib
import dataclasses
import difflib
import logging
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jsonargparse
import yaml

__all__ = ["config_to_yaml", "parse_config", "run_main", "save_config"]

Config = TypeVar("Config")


def parse_config(
    config_class: type[Config], argv: Sequence[str] | None = None, *, description: str
) -> Config:
    """Return a `config_class` from `--config FILE` and flags; later flags win over the file.

    Nested fields are written `--section.field=value`; a YAML file has the same structure.

    Args:
        config_class: a dataclass; its fields are the flags, its docstring their help.
        argv: the arguments; None takes those of the process.

    Raises:
        ValueError: an unknown key or flag (the nearest right one is named), a value of the wrong
            type, a missing required one, or a value the dataclass itself refuses.
        SystemExit: `--help`.
    """
    parser = jsonargparse.ArgumentParser(description=description, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file with any of these settings")
    parser.add_class_arguments(config_class, nested_key=None)
    try:
        namespace = parser.parse_args(list(sys.argv[1:] if argv is None else argv))
        values = parser.instantiate(namespace)
    except jsonargparse.ArgumentError as error:
        raise ValueError(_with_suggestion(str(error), config_class)) from error
    return config_class(**{f.name: values[f.name] for f in dataclasses.fields(config_class)})


def _keys(config_class: type, prefix: str = "") -> list[str]:
    keys = []
    for field in dataclasses.fields(config_class):
        keys.append(prefix + field.name)
        factory = field.default_factory
        if dataclasses.is_dataclass(factory):
            keys += _keys(factory, f"{prefix}{field.name}.")
    return keys


def _with_suggestion(message: str, config_class: type) -> str:
    known = ["config", *_keys(config_class)]
    nested = re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message)
    plain = re.search(r"(?:[Uu]nrecognized arguments: -*|option ')([\w.]+)", message)
    if nested:
        unknown = f"{nested[1]}.{nested[2]}"
    elif plain:
        unknown = plain[1]
    else:
        return message
    near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.5)
    if not near:
        last = {key.rsplit(".", 1)[-1]: key for key in known}
        near = [last[k] for k in difflib.get_close_matches(unknown.rsplit(".", 1)[-1], last, n=1)]
    hint = f"did you mean {near[0]!r}?" if near else "--help lists the settings"
    return f"unknown setting {unknown!r}; {hint}"


def config_to_yaml(config: Any) -> str:
    """Return a dataclass as YAML text that `parse_config` reads back to an equal one."""
    return yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def save_config(path: Path, config: Any) -> None:
    """Write the resolved config beside the outputs it made; replaces an older one."""
    from mg.files import write_text

    write_text(path, config_to_yaml(config), overwrite=True)


def run_main(main: Callable[[], None]) -> None:
    """Run a script's `main`; a user's fault ends in one clear line on stderr and exit code 1.

    Other exceptions are faults of ours and keep their traceback.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        main()
    except (ValueError, FileNotFoundError, FileExistsError, OSError) as error:
        if "--debug" in sys.argv:
            raise
        with contextlib.suppress(BrokenPipeError):
            print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
