"""The help of commands whose settings are a dataclass: the common ones, all, or a section's."""

import os
import sys
import textwrap
from collections.abc import Sequence

from mg.settings_table import REQUIRED, Setting, settings_of

__all__ = ["wanted_help"]

WIDTH = 100


def wanted_help(
    argv: Sequence[str], config_class: type, *, description: str, common: Sequence[str]
) -> str | None:
    """Return the help that the arguments ask for; None if they ask for none.

    `--help` (`-h`) shows the common settings, `--help-all` all, `--SECTION.help` a section's.

    Args:
        config_class: the dataclass of the settings.
        description: of the command: what it does, and examples.
        common: names of the common settings, in order; with none, all are.
    """
    settings = settings_of(config_class)
    for argument in argv:
        if argument in ("-h", "--help") and common:
            named = {setting.name: setting for setting in settings}
            shown = [named[name] for name in common]
            title = f"common settings (--help-all shows all {len(settings)}):"
            return _text(settings, shown, title, description)
        if argument in ("-h", "--help", "--help-all"):
            return _text(settings, settings, "settings:", description)
        section = argument.removeprefix("--").removesuffix(".help")
        below = [s for s in settings if s.name.startswith(f"{section}.")]
        if argument == f"--{section}.help" and below:
            return "\n".join([f"settings of {section}:", *map(_entry, below)])
    return None


def _text(settings: list[Setting], shown: list[Setting], title: str, description: str) -> str:
    required = [
        f"--{s.name} VALUE" for s in settings if s.default == REQUIRED and "." not in s.name
    ]
    program = os.path.basename(sys.argv[0])
    usage = textwrap.fill(
        " ".join([f"usage: {program}", *required, "[--config FILE] [--setting VALUE ...]"]),
        WIDTH,
        subsequent_indent="    ",
    )
    notes = (
        "--config FILE reads settings from a YAML file; flags win over it. A setting of true or\n"
        "false may stand without a value: --overwrite."
    )
    return "\n".join([usage, "", description.strip(), "", title, *map(_entry, shown), "", notes])


def _entry(setting: Setting) -> str:
    """Return a setting's lines: name, type, default, and what it is."""
    default = {"": "", REQUIRED: "; required"}.get(setting.default, f"; default {setting.default}")
    head = f"  --{setting.name}  ({setting.type}{default})"
    text = textwrap.fill(setting.text, WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return f"{head}\n{text}" if setting.text else head
