"""Child processes that may hang or crash without harm to the process that uses them.

Decoders are C code fed with files from anywhere: some files make them loop for ever, others crash
the whole process. So they run in children that their parent watches, ends and replaces.
"""

import atexit
import contextlib
import logging
import multiprocessing
import multiprocessing.util  # its exit handler must be registered before ours
import os
import pickle
import queue
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["CallFailedError", "SupervisedProcess", "WorkerPool", "reason_of"]

logger = logging.getLogger("mg")

# A worker imports NumPy, OpenCV and FFmpeg first; on a cold network disk this takes a while.
START_SECONDS_LIMIT = 300.0
# Starts in a row that may fail before it is plain that no clip is to blame.
MAX_STARTS = 3
# How long to wait for the end of a killed process; one stuck in the kernel is left behind.
KILL_SECONDS_LIMIT = 5.0


class CallFailedError(Exception):
    """The call raised an exception, hung, or took its process down; the message says which."""


class SupervisedProcess:
    """A child process that computes `function(argument)`, restarted when it hangs or crashes.

    Calls come from one thread at a time; `close` may be called from any. The child ignores SIGINT
    and SIGTERM, which reach whole groups of processes: the parent decides what happens then. It
    ends with its parent, however that ends.

    Args:
        function: picklable, like what it takes and returns.
        seconds_limit: a call that takes longer counts as hung and is killed.
    """

    def __init__(self, function: Callable[[Any], Any], *, seconds_limit: float):
        self._pickled_function = pickle.dumps(function)
        self._seconds_limit = seconds_limit
        self._process = None
        self._connection: Connection | None = None
        self._has_function = False
        self._is_closed = False
        self._lock = threading.Lock()
        # Without this, multiprocessing would send SIGTERM at exit and wait for ever.
        atexit.register(self.close)

    def __enter__(self) -> "SupervisedProcess":
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def start(self) -> None:
        """Start the process, without waiting until it is ready; the first call does so too."""
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the process is closed")
            # Spawned, not forked: the parent holds MindSpore's threads, which a fork would break.
            context = multiprocessing.get_context("spawn")
            connection, other_end = context.Pipe()
            process = context.Process(target=_serve, args=(other_end,), daemon=True)
            with _hidden_main_module():
                process.start()
            other_end.close()  # so that the end of the child ends the connection
            self._process, self._connection, self._has_function = process, connection, False

    def call(self, argument: Any) -> Any:
        """Return `function(argument)`.

        Raises:
            CallFailedError: the function raised, hung or crashed.
            RuntimeError: the process ends again and again before it begins.
        """
        self._begin(argument)
        try:
            if not self._connection.poll(self._seconds_limit):
                self._break_off()
                raise CallFailedError(f"decoder hung for more than {self._seconds_limit:g} s")
            succeeded, value = self._connection.recv()
        except (EOFError, OSError):
            raise CallFailedError(f"decoder crashed ({self._how_it_ended()})") from None
        if not succeeded:
            raise CallFailedError(value)
        return value

    def close(self) -> None:
        """End the process at once, even amid a call."""
        with self._lock:
            self._is_closed = True
            if self._process is not None:
                self._kill()
        atexit.unregister(self.close)

    def _begin(self, argument: Any) -> None:
        """Hand over an argument and return once the process begins to work on it."""
        for _ in range(MAX_STARTS):
            if self._connection is None or self._connection.closed or not self._process.is_alive():
                self.start()
            # What ends a process that has not begun is not the fault of the argument.
            with contextlib.suppress(EOFError, OSError):
                if not self._has_function:
                    self._connection.send_bytes(self._pickled_function)
                    self._has_function = True
                self._connection.send(argument)
                if self._connection.poll(START_SECONDS_LIMIT):
                    self._connection.recv()
                    return
            how = self._how_it_ended()
            logger.warning("a data worker ended between two clips (%s)", how)
        raise RuntimeError(
            f"data worker processes ended {MAX_STARTS} times in a row before they began to read "
            f"({how}); free memory, use fewer workers, or see the fault with num_workers=0"
        )

    def _how_it_ended(self) -> str:
        """Return the signal or exit code of a process whose connection has ended."""
        self._process.join(KILL_SECONDS_LIMIT)
        self._break_off()
        code = self._process.exitcode
        if code is None:
            return "cannot be killed"
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def _break_off(self) -> None:
        """Give the process up, even if the kernel does not let it go."""
        self._kill()
        self._connection.close()

    def _kill(self) -> None:
        self._process.kill()
        self._process.join(KILL_SECONDS_LIMIT)


class WorkerPool:
    """Several `SupervisedProcess`es for one function, for callers in several threads.

    Args:
        function: picklable, like what it takes and returns.
        num_workers: processes.
        seconds_limit: a call that takes longer counts as hung and is killed.
    """

    def __init__(self, function: Callable[[Any], Any], num_workers: int, *, seconds_limit: float):
        self._workers = [
            SupervisedProcess(function, seconds_limit=seconds_limit) for _ in range(num_workers)
        ]
        self._idle: queue.SimpleQueue[SupervisedProcess] = queue.SimpleQueue()
        for worker in self._workers:
            worker.start()
            self._idle.put(worker)

    def call(self, argument: Any) -> Any:
        """Return `function(argument)`, computed by the next idle process.

        Raises:
            CallFailedError, RuntimeError: as `SupervisedProcess.call`.
        """
        worker = self._idle.get()
        try:
            return worker.call(argument)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End all processes at once."""
        for worker in self._workers:
            worker.close()


def reason_of(error: Exception) -> str:
    """Return what to say of an error; the kind is named unless the message is made for users."""
    if isinstance(error, (ValueError, OSError)) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}"


_main_module_lock = threading.Lock()


@contextlib.contextmanager
def _hidden_main_module() -> Iterator[None]:
    """Hide the running script while a worker starts.

    A spawned process imports its parent's main script, and with it MindSpore: seconds of start-up
    and hundreds of megabytes per worker, for code that it never calls.
    """
    with _main_module_lock:
        main_module = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main_module


def _serve(connection: Connection) -> None:
    """Compute in the child what the parent asks for, until it asks no more."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    function = connection.recv()
    with contextlib.suppress(EOFError):
        while True:
            argument = connection.recv()
            connection.send("begun")
            connection.send(_outcome(function, argument))


def _outcome(function: Callable[[Any], Any], argument: Any) -> tuple[bool, Any]:
    """Return (True, result) or (False, reason)."""
    try:
        return True, function(argument)
    except Exception as error:
        return False, reason_of(error)


def _exit_with_parent() -> None:
    """End this worker when its parent is gone, even if that was killed without a chance to act."""
    multiprocessing.parent_process().join()
    os._exit(1)
