"""Starts a program on several ranks of this machine, and ends all of them when one fails.

What msrun does for one machine, with these differences: when a rank dies the others are ended
within a second and the message names it (msrun waits half a minute for its scheduler);
SIGTERM and Ctrl-C reach the ranks, so that they can save; rank 0 speaks on the console. On Linux a
launcher that is killed takes all it has started with it.
The environment variables are those of MindSpore's dynamic cluster startup.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

__all__ = ["launch"]

logger = logging.getLogger("mg")

POLL_SECONDS = 0.2
GRACE_SECONDS = 0.5  # for the rank that failed first to end: one that merely lost it may be quicker
NUM_LOG_LINES = 20  # of a failed rank's log that are shown
SCHEDULER = "from mindspore import communication; communication.init()"

END_WITH_US = (sys.executable, "-I", "-S", str(Path(__file__).with_name("end_with_parent.py")))


def launch(num_ranks: int, command: Sequence[str], log_folder: str | os.PathLike) -> int:
    """Return the exit code of a program that was run on several ranks: 0 if all ended well.

    Rank 0 writes to this process's output, rank r to `log_folder/rank_R.log`. SIGTERM and SIGINT
    are passed to all ranks as SIGTERM.

    Args:
        num_ranks: processes; rank r uses device r.
        command: the program and its arguments, such as [sys.executable, "-m", "mg", "train-tae"].
        log_folder: made if missing.

    Raises:
        ValueError: fewer than one rank.
    """
    if num_ranks < 1:
        raise ValueError(f"number of ranks {num_ranks}; expected 1 or more")
    log_folder = Path(log_folder)
    log_folder.mkdir(parents=True, exist_ok=True)
    cluster = _Cluster(num_ranks, command, log_folder)
    before = {
        number: signal.signal(number, lambda *_: cluster.ask_to_stop())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        return cluster.wait()
    finally:
        cluster.kill()
        for number, handler in before.items():
            signal.signal(number, handler)


class _Cluster:
    """The scheduler, which brings the ranks together, and the ranks themselves."""

    def __init__(self, num_ranks: int, command: Sequence[str], log_folder: Path) -> None:
        self.log_folder = log_folder
        self.shared = {
            "MS_WORKER_NUM": str(num_ranks),
            "MS_SCHED_HOST": "127.0.0.1",
            "MS_SCHED_PORT": str(_free_port()),
            "RANK_SIZE": str(num_ranks),
        }
        self.ranks: list[subprocess.Popen] = []
        self.scheduler = self._start(
            [sys.executable, "-c", SCHEDULER], {"MS_ROLE": "MS_SCHED"}, "scheduler"
        )
        for rank in range(num_ranks):
            names = {"MS_NODE_ID": str(rank), "RANK_ID": str(rank), "DEVICE_ID": str(rank)}
            log_name = f"rank_{rank}" if rank else None
            self.ranks.append(self._start(command, {"MS_ROLE": "MS_WORKER", **names}, log_name))

    def _start(
        self, command: Sequence[str], variables: dict[str, str], log_name: str | None
    ) -> subprocess.Popen:
        environment = {**os.environ, **self.shared, **variables}
        if sys.platform == "linux":
            command = [*END_WITH_US, str(os.getpid()), *map(str, command)]
        # In sessions of their own, so that Ctrl-C reaches them through us alone.
        if log_name is None:
            return subprocess.Popen(command, env=environment, start_new_session=True)
        with open(self.log_folder / f"{log_name}.log", "w") as log:
            return subprocess.Popen(
                command,
                env=environment,
                start_new_session=True,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def ask_to_stop(self) -> None:
        """Send SIGTERM to all ranks."""
        for process in self.ranks:
            if process.poll() is None:
                process.terminate()

    def wait(self) -> int:
        """Return when all ranks have ended well, or one has not."""
        while True:
            codes = [process.poll() for process in self.ranks]
            failed = [rank for rank, code in enumerate(codes) if code not in (None, 0)]
            if failed:
                self._report_failures()
                return 1
            if all(code == 0 for code in codes):
                return 0
            if self.scheduler.poll() not in (None, 0):
                log = self.log_folder / "scheduler.log"
                logger.error("error: the scheduler of the ranks ended\n%s", _last_lines(log))
                return 1
            time.sleep(POLL_SECONDS)

    def _report_failures(self) -> None:
        """Name every rank that failed, with the end of its log."""
        time.sleep(GRACE_SECONDS)
        for rank, process in enumerate(self.ranks):
            if process.poll() not in (None, 0):
                self._report(rank, process.returncode)

    def _report(self, rank: int, code: int) -> None:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        message = f"error: rank {rank} of {len(self.ranks)} {how}; all ranks are stopped"
        if rank:
            log = self.log_folder / f"rank_{rank}.log"
            message += f". Its last lines ({log}):\n{_last_lines(log)}"
        logger.error("%s", message)

    def kill(self) -> None:
        """End whatever still runs, with its child processes."""
        for process in (*self.ranks, self.scheduler):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _last_lines(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-NUM_LOG_LINES:])
