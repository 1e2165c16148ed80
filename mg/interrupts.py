"""Ctrl-C ends a command with one line, even while a library compiles or has taken SIGINT away."""

import contextlib
import ctypes
import math
import os
import select
import signal
import socket
import threading
import time
import types
from collections.abc import Iterator, Mapping

__all__ = ["CHECK_SECONDS", "ENDED", "EXIT_CODE", "Disposition", "interruptible"]

CHECK_SECONDS = 0.1  # between looks at who handles Ctrl-C
PATIENCE_SECONDS = 2.0  # of a signal with a call of a library that does not return
FOREIGN_SECONDS = 1.0  # for which a handler that was replaced may still have sent SIGTERM
POINTER_BYTES = ctypes.sizeof(ctypes.c_void_p)
ENDED = "Ended by Ctrl-C."
EXIT_CODE = 128 + signal.SIGINT


class Disposition:
    """What the C library does about a signal, which others may change unseen by Python."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._lock = threading.Lock()
        self._replaced_at = -math.inf
        with contextlib.suppress(AttributeError, OSError, TypeError):  # no C library that has it
            self._sigaction = ctypes.CDLL(None).sigaction
            self._own = self._present()
            return
        self._own = None

    def _present(self) -> bytes:
        # Larger than any `struct sigaction`, whose first member is the handler.
        found = ctypes.create_string_buffer(512)
        self._sigaction(int(self._number), None, found)
        return found.raw

    def is_foreign(self) -> bool:
        """Return whether another handler has taken the place of the one that was there."""
        if self._own is None:
            return False
        return self._present()[:POINTER_BYTES] != self._own[:POINTER_BYTES]

    def keep(self) -> None:
        """Put back the handler that was there, if another has taken its place."""
        with self._lock:
            if self.is_foreign():
                self._replaced_at = time.monotonic()
                self._sigaction(int(self._number), self._own, None)

    def was_foreign(self) -> bool:
        """Return whether another handler is there, or was a moment ago."""
        return self.is_foreign() or time.monotonic() - self._replaced_at < FOREIGN_SECONDS

    def let_go(self) -> None:
        """Keep nothing any more."""
        with self._lock:
            self._own = None


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Context in which Ctrl-C raises KeyboardInterrupt, or ends the process where that cannot be.

    MindSpore's compiler answers a KeyboardInterrupt with a page of errors and a dump of its graph,
    and other calls of libraries may not return for minutes; there the process ends at once, as it
    does at a second Ctrl-C, with one line and exit code 130. The handler that MindSpore sets for
    SIGINT with the first graph, which sends SIGTERM to its own process, is replaced; a SIGTERM from
    it, before that, counts as Ctrl-C. Any other ends the process as it does without a handler.

    Outside the main thread, where Python allows no handlers, and where SIGINT is ignored or
    somebody else's, nothing changes.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    # As in `mg.training.run.signals`: a thread hears of a signal while the main one is busy.
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    is_raised = threading.Event()

    def interrupt(number: int, frame: types.FrameType | None) -> None:
        if _is_compiling(frame):
            _end()
        is_raised.set()
        raise KeyboardInterrupt

    def terminate(number: int, frame: types.FrameType | None) -> None:
        if disposition.was_foreign():
            interrupt(number, frame)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    handlers = {signal.SIGINT: interrupt}
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        handlers[signal.SIGTERM] = terminate
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    disposition = Disposition(signal.SIGINT)
    watcher = threading.Thread(
        target=_watch, args=(reader, disposition, handlers, is_raised), daemon=True
    )
    watcher.start()
    try:
        yield
    finally:
        disposition.let_go()
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(descriptor)
        writer.close()  # ends the watcher
        watcher.join()
        reader.close()


def _watch(
    reader: socket.socket,
    disposition: Disposition,
    handlers: Mapping[int, object],
    is_raised: threading.Event,
) -> None:
    """End the process at a signal that Python's handler does not come to, and at a second one."""
    num_received, deadline, ends_by = 0, math.inf, _end
    while True:
        disposition.keep()
        if select.select([reader], [], [], CHECK_SECONDS)[0]:
            received = reader.recv(1)
            if not received:
                return
            number = received[0]
            if number in handlers and signal.getsignal(number) is handlers[number]:
                num_received += 1
                deadline = time.monotonic() + PATIENCE_SECONDS
                if number == signal.SIGTERM and not disposition.was_foreign():
                    ends_by = _end_of_sigterm
        if num_received > 1 or (time.monotonic() > deadline and not is_raised.is_set()):
            ends_by()


def _is_compiling(frame: types.FrameType | None) -> bool:
    """Return whether MindSpore is compiling a graph below a frame."""
    while frame is not None:
        module = frame.f_globals.get("__name__") or ""
        if module.startswith("mindspore.") and frame.f_code.co_name == "compile":
            return True
        frame = frame.f_back
    return False


def _end_of_sigterm() -> None:
    os._exit(128 + signal.SIGTERM)


def _end() -> None:
    with contextlib.suppress(OSError):
        # Not through sys.stderr, whose lock the interrupted thread may hold.
        os.write(2, f"{ENDED}\n".encode())
    os._exit(EXIT_CODE)
