"""Ending a run on request: finish the step, save, and only then exit."""

import logging
import os
import signal
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
    and `requested` stays None.

    Attributes:
        requested: name of the first signal ("SIGTERM", "SIGINT"); None: none has come.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc_info) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            # None: it was set outside Python, where it cannot be set again from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, frame: types.FrameType | None) -> None:
        if self.requested is not None:
            os._exit(128 + number)
        self.requested = signal.Signals(number).name
        # From a thread: the signal may have come in the midst of writing another log line, and a
        # buffered stream refuses a second write from within the first.
        message = "%s: finishing the step, then saving; a second signal ends at once"
        threading.Thread(target=logger.warning, args=(message, self.requested), daemon=True).start()
