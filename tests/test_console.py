"""Tests of `mg.console`: what others wrote is shown, not obeyed, and never fills the screen."""

import logging
import sys

from mg.console import ConsoleFormatter, one_line, printable


def test_commands_to_a_terminal_are_shown():
    assert printable("a\x1b[2Jb\rc\x9b0m") == r"a\x1b[2Jb\rc\x9b0m"
    assert printable("gpj.\u202eexe \ud800") == r"gpj.\u202eexe \ud800"
    assert printable("é 漢\t1\n2") == "é 漢\t1\n2"


def test_long_messages_are_cut():
    line = printable("a" * 10**6)
    assert len(line) < 2100 and "(998000 characters)" in line
    many = printable("x\n" * 5000)
    assert many.count("\n") == 1000 and many.endswith("... (4001 more lines)")


def test_a_quoted_value_is_one_short_line():
    assert one_line("a\n  b\x1b") == r"a b\x1b"
    assert len(one_line("x " * 10**6)) < 250


def test_the_formatter_covers_message_and_traceback():
    try:
        raise KeyError("\x1b]0;title\x07")
    except KeyError:
        record = logging.LogRecord("mg", 40, "", 0, "%s", ("\x1b[31m",), sys.exc_info())
    text = ConsoleFormatter("%(message)s").format(record)
    assert "\x1b" not in text and text.startswith(r"\x1b[31m")
