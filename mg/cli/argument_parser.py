"""The parser of the small commands: common names of settings, and mistakes in one line."""

import argparse
import itertools
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from mg.cli.setting_names import SHARED_NAMES, own_name, unknown_setting
from mg.console import printable

__all__ = ["CommandParser"]

logger = logging.getLogger("mg")


class CommandParser(argparse.ArgumentParser):
    """An `ArgumentParser` that takes the names which all commands share (`mg.cli.setting_names`).

    A mistake is answered with one line on stderr and exit code 2.

    Args:
        description: what the command does, and examples, shown as it stands.
        names: further names of arguments, positional ones too, such as {"input": "src"}.
    """

    def __init__(self, description: str, *, names: Mapping[str, str] | None = None) -> None:
        super().__init__(
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._names = dict(names or {})

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """Return the values of the arguments; None takes those of the process."""
        given = list(sys.argv[1:] if args is None else args)
        if "--help-all" in given:  # as of the large commands; here --help shows all there is
            given = ["--help"]
        return super().parse_args(self._with_own_names(given), namespace)

    def error(self, message: str) -> NoReturn:
        """End with one line instead of the usage."""
        stray = re.match(r"unrecognized arguments: --([\w.-]+)", message)
        if stray:
            message = unknown_setting(stray[1], self._known()).replace("--help-all", "--help")
        print(printable(f"error: {message}"), file=sys.stderr)
        raise SystemExit(2)

    def _known(self) -> list[str]:
        return [action.dest for action in self._actions if action.dest != "help"]

    def _with_own_names(self, given: list[str]) -> list[str]:
        """Return the arguments by their own names, positional ones in their places."""
        known = self._known()
        places = [action.dest for action in self._actions if not action.option_strings]
        by_place, others = {}, []
        arguments = iter(itertools.pairwise([*given, ""]))
        for argument, after in arguments:
            flag = re.match(r"--([\w.-]+)(=?)(.*)", argument, re.DOTALL)
            if flag is None:
                others.append(argument)
                continue
            plain = flag[1].replace("-", "_")
            own = plain if plain in known else self._names.get(plain, own_name(plain, known))
            if own in known and own != plain and plain not in SHARED_NAMES:
                logger.info("%s is taken as %s, its name in this command.", flag[1], own)
            if own in places:
                by_place[own] = flag[3] if flag[2] else next(arguments, (after, ""))[0]
            else:
                others.append(f"--{own if own in known else flag[1]}{flag[2]}{flag[3]}")
        return [by_place[name] for name in places if name in by_place] + others
