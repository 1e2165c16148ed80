"""Programs on two ranks: started on a free port, ended after a hard limit, logs in the failure."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mg.data.video_writer import write_video

ROOT = Path(__file__).parents[2]
# How msrun and our launcher say that a rank died of signal 11.
SEGMENTATION_FAULTS = ("Error code: -11", "was killed by signal 11")


@pytest.fixture(scope="session")
def free_port():
    """Return a port on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="session")
def run_limited():
    """Return a function that runs a command: (exit code, output); it is killed after the limit."""

    # msrun takes the first Python on the path.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {"PATH": path, "PYTHONPATH": str(ROOT), "GLOG_v": "3"}

    def run(command, *, seconds=900, log_folder=None):
        code, output = run_once(command, seconds=seconds, log_folder=log_folder)
        if code != 0 and any(sign in output for sign in SEGMENTATION_FAULTS):
            # About once in hundreds of starts MindSpore's own receiver of messages
            # (RECV_EVENT_LOOP in libmindspore_cluster) reads address 0 while ranks find each other.
            code, output = run_once(command, seconds=seconds, log_folder=log_folder)
        return code, output

    def run_once(command, *, seconds, log_folder):
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=ROOT,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            children = _descendants(process.pid)
            for pid in (process.pid, *children):
                os.kill(pid, signal.SIGKILL)
            logs = sorted(Path(log_folder).glob("*.log")) if log_folder else []
            texts = "\n".join(f"{log.name}:\n{log.read_text()[-2000:]}" for log in logs)
            pytest.fail(f"{command} did not end within {seconds} s\n{texts}")
        return process.returncode, output

    return run


def _descendants(pid):
    """Return the process ids of all below a process, of whatever session."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    children = [int(word) for word in listed.stdout.split()]
    return children + [below for child in children for below in _descendants(child)]


@pytest.fixture(scope="session")
def descendants():
    """Return a function that lists the process ids of all below a process."""
    return _descendants


@pytest.fixture(scope="session")
def make_videos():
    """Return a function that writes videos of two frames of 16x16 into a folder; it gives that."""

    def make(folder, names):
        for number, name in enumerate(names):
            frames = np.random.default_rng(number).integers(0, 255, (2, 16, 16, 3), np.uint8)
            write_video(folder / name, frames, fps=25, lossless=True)
        return folder

    return make


@pytest.fixture(scope="session")
def launch_script():
    """Return the start of a command line that runs a Python file on two ranks."""

    def command(log_folder, *arguments):
        launcher = ROOT / "scripts" / "launch.py"
        return [sys.executable, launcher, "--log_folder", log_folder, "2", *arguments]

    return command
