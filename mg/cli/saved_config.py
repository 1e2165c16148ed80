"""Configs as YAML, as they are written beside what they made."""

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from mg.files import write_text

__all__ = ["config_to_yaml", "plain_settings", "save_config"]


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
