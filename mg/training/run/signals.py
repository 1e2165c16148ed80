"""Ending a run on request: finish the step, save, and only then exit."""

import contextlib
import logging
import os
import select
import signal
import socket
import threading
import types
from collections.abc import Iterator

from mg.interrupts import CHECK_SECONDS, Disposition

__all__ = ["StopRequest"]

logger = logging.getLogger("mg")

SIGNALS = (signal.SIGTERM, signal.SIGINT)
A_STEP = "the step"


class StopRequest:
    """Context in which SIGTERM and SIGINT ask for the end instead of enforcing it.

        with StopRequest() as stop:
            for step in steps:
                ...
                if stop.requested:
                    save()
                    break

    The first signal sets `requested`; a second one ends the process at once, with exit code
    128 + its number. Outside the main thread, where Python allows no handlers, nothing changes
    and `requested` stays None. Processes that are forked (not spawned) inside share all this.

    MindSpore sets a handler of its own for SIGINT with the first graph, which sends SIGTERM to its
    own process (`RegisterGlobalSignalHandler`). It is replaced, so that Ctrl-C stays SIGINT.

    Attributes:
        requested: name of the first signal ("SIGTERM", "SIGINT"); None: none has come.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._work = A_STEP
        self._awaited = A_STEP  # the work that was under way when the first signal came
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is not threading.main_thread():
            return self
        # Python runs its handlers between two bytecodes of the main thread, which may be minutes
        # away while a network is compiled or computed. Its wake-up socket gets a byte for each
        # signal at once, so a thread that reads it need not wait.
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._previous_descriptor = signal.set_wakeup_fd(self._writer.fileno())
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)
        self._interrupt = Disposition(signal.SIGINT)
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *exc_info) -> None:
        if not self._previous:
            return
        self._interrupt.let_go()
        while self._previous:
            number, handler = self._previous.popitem()
            # None: it was set outside Python, where it cannot be set again from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._previous_descriptor)
        self._writer.close()  # ends the watcher
        self._watcher.join()
        self._reader.close()

    @contextlib.contextmanager
    def finishing(self, work: str) -> Iterator[None]:
        """Say what a signal waits for during a block.

        Args:
            work: what is finished first, such as "the validation".
        """
        before, self._work = self._work, work
        try:
            yield
        finally:
            self._work = before

    def _handle(self, number: int, frame: types.FrameType | None) -> None:
        self._note(number)

    def _note(self, number: int) -> None:
        if self.requested is None:
            self._awaited = self._work
            self.requested = signal.Signals(number).name

    def _watch(self) -> None:
        """Announce the first signal, end the process at the second one."""
        num_received = 0
        while True:
            self._interrupt.keep()
            if not select.select([self._reader], [], [], CHECK_SECONDS)[0]:
                continue
            received = self._reader.recv(1)
            if not received:
                return
            number = received[0]
            if number not in SIGNALS:
                continue
            if number == signal.SIGTERM and self._interrupt.is_foreign():
                number = signal.SIGINT  # between two looks; a SIGTERM just then has the same effect
            num_received += 1
            if num_received > 1:
                os._exit(128 + number)
            self._note(number)
            logger.warning(
                "%s: finishing %s, then saving. A second one ends at once, without saving.",
                "Ctrl-C" if self.requested == "SIGINT" else self.requested,
                self._awaited,
            )
