"""Ending a run on request: finish the step, save, and only then exit."""

import logging
import os
import signal
import socket
import threading
import types

__all__ = ["StopRequest"]

logger = logging.getLogger("mg")

SIGNALS = (signal.SIGTERM, signal.SIGINT)


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

    Attributes:
        requested: name of the first signal ("SIGTERM", "SIGINT"); None: none has come.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
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
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *exc_info) -> None:
        if not self._previous:
            return
        while self._previous:
            number, handler = self._previous.popitem()
            # None: it was set outside Python, where it cannot be set again from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._previous_descriptor)
        self._writer.close()  # ends the watcher
        self._watcher.join()
        self._reader.close()

    def _handle(self, number: int, frame: types.FrameType | None) -> None:
        self._note(number)

    def _note(self, number: int) -> None:
        self.requested = self.requested or signal.Signals(number).name

    def _watch(self) -> None:
        """Announce the first signal, end the process at the second one."""
        num_received = 0
        while received := self._reader.recv(1):
            number = received[0]
            if number not in SIGNALS:
                continue
            num_received += 1
            if num_received > 1:
                os._exit(128 + number)
            self._note(number)
            logger.warning(
                "%s: finishing the step, then saving. A graph that is being compiled is finished "
                "first, which can take minutes; a second one ends at once, without saving.",
                "Ctrl-C" if self.requested == "SIGINT" else self.requested,
            )
