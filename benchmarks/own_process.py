"""Measuring a case in a process of its own, so that its memory and its threads are its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

__all__ = ["measured_apart", "print_result"]

MARK = "RESULT "


def measured_apart(
    script: str, case: str, *flags: str, environment: Mapping[str, str] | None = None
) -> tuple[Any, str]:
    """Return what `print_result` printed in a process of its own, and all of its output.

    Ends this process with the last lines of the other's errors if it fails.

    Args:
        script: which takes `--in_process CASE`.
        case: to measure.
        flags: more of them.
        environment: variables besides this process's.
    """
    command = [sys.executable, script, "--in_process", case, *flags]
    variables = {**os.environ, "GLOG_v": "3", **(environment or {})}
    done = subprocess.run(command, capture_output=True, text=True, env=variables)
    line = [x for x in done.stdout.splitlines() if x.startswith(MARK)]
    if not line:
        sys.exit(f"case {case} failed:\n{done.stderr[-2000:]}")
    return json.loads(line[0].removeprefix(MARK)), done.stdout + done.stderr


def print_result(result: Any) -> None:
    """Print a measurement for the process that asked for it."""
    print(MARK + json.dumps(result), flush=True)
