"""One run per output folder: the second one is refused while the first is alive."""

import contextlib
import dataclasses
import json
import logging
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["Owner", "hold_folder", "refuse_if_held"]

logger = logging.getLogger("mg")

LOCK = ".run.lock"
BEAT_SECONDS = 5.0  # between two signs of life of the run that holds a folder
STALE_SECONDS = 60.0  # without one, after which the run of another host is taken for dead
TRIES, RETRY_SECONDS = 5, 0.2  # of locking: others may be looking at this moment


@dataclasses.dataclass(frozen=True)
class Owner:
    """Which process holds a folder: where it runs, its process id, and when it took the folder."""

    host: str
    pid: int
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on host {self.host} (since {self.since})"


@contextlib.contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder for the time of the block; rank 0 does it for all ranks.

    The operating system's lock on a file (flock) ends with the process, so a killed run leaves
    nothing behind. Where a network file system has no such locks, or keeps them from other hosts,
    the file tells: the run that holds the folder touches it every few seconds, and one that has
    not done so for a minute is taken for dead.

    Args:
        folder: which exists.

    Raises:
        ValueError: another run is at work there; the message names its host and process.
        OSError: the folder cannot be written to.
    """
    path = folder / LOCK
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0) as file:
        is_locked = _lock(file)
        before = _owner(file)
        if is_locked is False:
            raise ValueError(_refusal(folder, before))
        is_local = before is not None and before.host == socket.gethostname()
        if before is not None and not (is_locked and is_local):
            _wait_until_stale(path, before)
        if before is not None:
            logger.warning("%s was left by %s, which has ended; going on.", folder, before)
        owner = Owner(socket.gethostname(), os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S"))
        _write(file, json.dumps(dataclasses.asdict(owner)))
        is_over = threading.Event()
        beats = threading.Thread(target=_beat, args=(path, is_over), daemon=True)
        beats.start()
        try:
            yield
        finally:
            is_over.set()
            beats.join()
            with contextlib.suppress(OSError):  # a full disk, a folder that is gone
                _write(file, "")


def refuse_if_held(folder: Path) -> None:
    """Refuse a folder in which another run is at work, as far as this shows at once.

    Raises:
        ValueError: the message names the run's host and process.
    """
    try:
        file = open(folder / LOCK, "rb", buffering=0)  # noqa: SIM115
    except OSError:  # there is none, or only the run itself will tell
        return
    with file:
        if _lock(file, is_shared=True) is False:
            raise ValueError(_refusal(folder, _owner(file)))


def _lock(file, *, is_shared: bool = False) -> bool | None:
    """Return whether the file could be locked; None where there are no locks."""
    if fcntl is None:
        return None
    kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
    for _ in range(TRIES):
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(RETRY_SECONDS)
        except OSError:  # a file system without locks
            return None
    return False


def _owner(file) -> Owner | None:
    """Return who holds the folder, as the file tells; None if nobody does."""
    file.seek(0)
    content = file.read()
    try:
        return Owner(**json.loads(content)) if content else None
    except (ValueError, TypeError):  # written at this moment, or damaged
        return Owner("unknown", 0, "unknown")


def _write(file, text: str) -> None:
    file.seek(0)
    file.write(text.encode())
    file.truncate()
    os.fsync(file.fileno())


def _beat(path: Path, is_over: threading.Event) -> None:
    """Touch the file until it is over."""
    while not is_over.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(path)


def _wait_until_stale(path: Path, owner: Owner) -> None:
    """Return when a run has given no sign of life for long enough.

    Raises:
        ValueError: it is alive.
    """
    touched = _time_of(path)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".clock.") as now:
        seconds = STALE_SECONDS - (_time_of(now.name) - touched)  # by the file system's clock
    if seconds <= 0:
        return
    logger.warning(
        "%s is held by %s; looking for %.0f s whether it is alive.", path.parent, owner, seconds
    )
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(min(BEAT_SECONDS, seconds))
        if _time_of(path) != touched:
            raise ValueError(_refusal(path.parent, owner))


def _time_of(path: str | os.PathLike) -> float:
    """Return when a file was touched; opened, since clients of NFS ask the server only then."""
    with open(path, "rb") as file:
        return os.fstat(file.fileno()).st_mtime


def _refusal(folder: Path, owner: Owner | None) -> str:
    return (
        f"{folder} is in use by another run, {owner or 'which has just begun'}; wait for its end, "
        "end it, or choose another --output_path"
    )
