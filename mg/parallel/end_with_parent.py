"""Lets a process end when its parent does, however that ends (Linux); also a start for any program.

python end_with_parent.py PID_OF_PARENT PROGRAM ARGUMENTS
"""

import ctypes
import os
import re
import signal
import sys
from pathlib import Path

__all__ = ["end_with_msrun", "end_with_parent"]

PR_SET_PDEATHSIG = 1  # of Linux's prctl; it outlasts exec
WAITING_MSRUN = re.compile(rb"(^|\0|/)msrun\0(.*\0)?--join[=\0]True\0", re.DOTALL)


def end_with_parent(parent: int) -> None:
    """Have the system kill this process (SIGKILL) once its parent has ended.

    Args:
        parent: process id; another one has taken this process over if that has ended already.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def end_with_msrun() -> None:
    """Do so if the parent is an msrun that waits for its ranks; without --join it ends first."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    try:
        command = Path(f"/proc/{parent}/cmdline").read_bytes()
    except OSError:  # it has ended, or may not be looked at
        return
    if WAITING_MSRUN.search(command):
        end_with_parent(parent)


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
