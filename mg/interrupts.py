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
from collections.abc import Iterator

__all__ = ["CHECK_SECONDS", "ENDED", "EXIT_CODE", "Disposition", "interruptible"]

CHECK_SECONDS = 0.1  # between looks at who handles Ctrl-C
PATIENCE_SECONDS = 2.0  # of Ctrl-C with a call of a library that does not return
POINTER_BYTES = ctypes.sizeof(ctypes.c_void_p)
ENDED = "Ended by Ctrl-C."
EXIT_CODE = 128 + signal.SIGINT


class Disposition:
    """What the C library does about a signal, which others may change unseen by Python."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._lock = threading.Lock()
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
                self._sigaction(int(self._number), self._own, None)

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
    SIGINT with the first graph, which sends SIGTERM to its own process, is replaced.

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

    signal.signal(signal.SIGINT, interrupt)
    disposition = Disposition(signal.SIGINT)
    watcher = threading.Thread(
        target=_watch, args=(reader, disposition, interrupt, is_raised), daemon=True
    )
    watcher.start()
    try:
        yield
    finally:
        disposition.let_go()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.set_wakeup_fd(descriptor)
        writer.close()  # ends the watcher
        watcher.join()
        reader.close()


def _watch(
    reader: socket.socket,
    disposition: Disposition,
    handler: object,
    is_raised: threading.Event,
) -> None:
    """End the process at a Ctrl-C that Python's handler does not come to, and at a second one."""
    num_received, deadline = 0, math.inf
    while True:
        disposition.keep()
        if select.select([reader], [], [], CHECK_SECONDS)[0]:
            received = reader.recv(1)
            if not received:
                return
            if received[0] == signal.SIGINT and signal.getsignal(signal.SIGINT) is handler:
                num_received += 1
                deadline = time.monotonic() + PATIENCE_SECONDS
        if num_received > 1 or (time.monotonic() > deadline and not is_raised.is_set()):
            _end()


def _is_compiling(frame: types.FrameType | None) -> bool:
    """Return whether MindSpore is compiling a graph below a frame."""
    while frame is not None:
        module = frame.f_globals.get("__name__") or ""
        if module.startswith("mindspore.") and frame.f_code.co_name == "compile":
            return True
        frame = frame.f_back
    return False


def _end() -> None:
    with contextlib.suppress(OSError):
        # Not through sys.stderr, whose lock the interrupted thread may hold.
        os.write(2, f"{ENDED}\n".encode())
    os._exit(EXIT_CODE)
