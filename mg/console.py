"""What people read on a console: one place that keeps it readable, whatever is in a message.

File names, captions and configs of other people stand in messages. What a terminal would obey
(escape sequences, carriage returns, marks that reverse text) is shown as `\\x1b`, and no message
fills the screen.
"""

import logging
import re
import sys
import traceback
from types import TracebackType

__all__ = ["ConsoleFormatter", "one_line", "printable", "set_up_console"]

MAX_LINE = 2000  # characters
MAX_LINES = 1000
SHORT = 200  # of a value that is quoted in a message

# C0 but for tab and line feed, DEL, C1, what changes the direction of text, half surrogates.
COMMANDS = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)


def printable(text: str, *, max_lines: int = MAX_LINES) -> str:
    """Return a text that a terminal only shows: no command to it, no endless line.

    Args:
        text: of one or more lines.
        max_lines: what exceeds them is left out; reports that were asked for may have many.
    """
    lines = text.split("\n", max_lines)
    if len(lines) > max_lines:
        rest = lines.pop().count("\n") + 1
        lines.append(f"... ({rest} more lines)")
    return "\n".join(COMMANDS.sub(_escaped, _cut(line, MAX_LINE)) for line in lines)


def one_line(value: object, limit: int = SHORT) -> str:
    """Return a value as text of one line and at most about `limit` characters, to be quoted."""
    text = _cut(str(value), max(limit, 2))
    return COMMANDS.sub(_escaped, " ".join(text.split()))


def _cut(text: str, limit: int) -> str:
    """Return a text with its middle left out if it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} ... ({len(text) - 2 * half} characters) ... {text[-half:]}"


def _escaped(match: re.Match) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


class ConsoleFormatter(logging.Formatter):
    """Formats log records for people; see `printable`."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def set_up_console() -> None:
    """Make printable what goes to stderr: logs, unless they are set up already, and tracebacks."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ConsoleFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    sys.excepthook = _print_traceback


def _print_traceback(kind: type, error: BaseException, where: TracebackType | None) -> None:
    text = "".join(traceback.format_exception(kind, error, where))
    print(printable(text.rstrip("\n")), file=sys.stderr)
