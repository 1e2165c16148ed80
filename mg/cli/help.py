"""The help of commands whose settings are a dataclass: the common ones, all, or a section's."""

import os
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mg.cli.setting_names import shared_name
from mg.cli.settings_table import REQUIRED, Setting, settings_of, value_text
from mg.shipped import find_shipped
from mg.yaml_file import read_yaml

__all__ = ["readable_configs", "wanted_help"]

WIDTH = 100
TIED = "\xa0"  # a space at which no line ends


def wanted_help(
    argv: Sequence[str], config_class: type, *, description: str, common: Sequence[str]
) -> str | None:
    """Return the help that the arguments ask for; None if they ask for none.

    `--help` (`-h`) shows the common settings, `--help-all` all, `--SECTION.help` a section's, or
    the fields of the families of networks. Defaults are those of the file that `--config` names.

    Args:
        config_class: the dataclass of the settings.
        description: of the command: what it does, and examples.
        common: names of the common settings, in order; with none, all are.
    """
    asked = [a for a in argv if a in ("-h", "--help", "--help-all") or a.endswith(".help")]
    if not asked:
        return None
    given = _values_of_files(argv)
    settings = [_with_default(setting, given) for setting in settings_of(config_class)]
    for argument in asked:
        if argument in ("-h", "--help") and common:
            named = {setting.name: setting for setting in settings}
            shown = [named[name] for name in common]
            title = f"common settings (--help-all shows all {len(settings)}):"
            return _text(settings, shown, title, description)
        if argument in ("-h", "--help", "--help-all"):
            return _text(settings, settings, "settings:", description)
        section = argument.removeprefix("--").removesuffix(".help")
        below = [s for s in settings if s.name.startswith(f"{section}.")]
        if below:
            return "\n".join([f"settings of {section}:", *map(_entry, below)])
        families = _families_text(config_class, section, _family(argv, section, given))
        if families is not None:
            return families
    return None


def _values_of_files(argv: Sequence[str]) -> dict[str, Any]:
    """Return what the files of `--config` set, by dotted names."""
    values: dict[str, Any] = {}
    for content in readable_configs(argv):
        values |= _flat(content)
    return values


def readable_configs(argv: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield what each file of `--config` holds; nothing of one that is wrong.

    Args:
        argv: the command's arguments. What is wrong is reported when the settings are parsed.
    """
    for place, argument in enumerate(argv):
        name, has_value, path = argument.partition("=")
        if name != "--config":
            continue
        path = path if has_value else "".join(argv[place + 1 : place + 2])
        try:
            content = read_yaml(find_shipped(path))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict):
            yield content


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in content.items():
        flat[f"{prefix}{key}"] = value
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
    return flat


def _with_default(setting: Setting, given: Mapping[str, Any]) -> Setting:
    """Return a setting with the default that a file gives it."""
    if setting.name not in given or setting.type == "section":
        return setting
    return setting._replace(default=value_text(given[setting.name]))


def _family(argv: Sequence[str], section: str, given: Mapping[str, Any]) -> str | None:
    """Return the family that the arguments name, if they do."""
    flag = f"--{section}.family"
    for i, argument in enumerate(argv):
        if argument == flag:
            return "".join(argv[i + 1 : i + 2])
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
    return given.get(f"{section}.family")


def _families_text(config_class: type, section: str, chosen: str | None) -> str | None:
    """Return the families and fields of a setting that takes those of a network; else None."""
    from mg.cli.family_settings import KINDS, family_settings, settings_with_families

    kind = settings_with_families(config_class).get(section)
    if kind is None:
        return None
    names = KINDS[kind][0]
    lines = [f"families of {kind}, --{section}.family: {', '.join(names)}"]
    for name in names if chosen not in names else [chosen]:
        lines += ["", f"fields of {name}:"]
        lines += map(_entry, family_settings(kind, name, f"{section}."))
    if chosen not in names:
        lines += ["", f"--{section}.family NAME --{section}.help shows those of one family."]
    return "\n".join(lines)


def _text(settings: list[Setting], shown: list[Setting], title: str, description: str) -> str:
    known = {setting.name for setting in settings}
    required = [
        f"--{shared_name(s.name, known) or s.name}{TIED}VALUE"
        for s in settings
        if s.default == REQUIRED and "." not in s.name
    ]
    program = os.path.basename(sys.argv[0])
    usage = textwrap.fill(
        " ".join(
            [
                f"usage: {program}",
                *required,
                f"[--config{TIED}FILE]",
                f"[--setting{TIED}VALUE{TIED}...]",
            ]
        ),
        WIDTH,
        subsequent_indent="    ",
    ).replace(TIED, " ")
    notes = (
        "--config FILE reads settings from a YAML file; flags win over it. A setting of true or\n"
        "false may stand without a value: --overwrite."
    )
    entries = [_entry(setting, shared_name(setting.name, known)) for setting in shown]
    return "\n".join([usage, "", description.strip(), "", title, *entries, "", notes])


def _entry(setting: Setting, shared: str | None = None) -> str:
    """Return a setting's lines: name, type, default, and what it is.

    Args:
        setting: of the command.
        shared: what all commands call it, where its own name is another.
    """
    name = setting.name if shared is None else f"{shared}, --{setting.name}"
    default = {"": "", REQUIRED: "; required"}.get(setting.default, f"; default {setting.default}")
    head = f"  --{name}  ({setting.type}{default})"
    if setting.type.startswith("{"):
        head = f"  --{name} {setting.type}  ({default.removeprefix('; ')})"
    text = textwrap.fill(setting.text, WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return f"{head}\n{text}" if setting.text else head
