"""Run a command: its faults in one line, Ctrl-C, and output that nobody reads."""

import contextlib
import os
import select
import sys
from collections.abc import Callable

from mg.console import printable, set_up_console
from mg.interrupts import ENDED, EXIT_CODE, interruptible

__all__ = ["run_main"]

UNREAD_CODE = 141  # of a process that SIGPIPE ends, as shells give it


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
