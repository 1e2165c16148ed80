"""Reading a file that was made to do harm, in a process of its own: what came of it, at what cost.

What must hold is the same for all such files: they are read, or refused in one line, in little time
and memory.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

__all__ = ["MAX_MEGABYTES", "MAX_SECONDS", "Outcome", "fault_of", "run_apart"]

ROOT = Path(__file__).resolve().parents[2]
MAX_SECONDS = 1.0  # of processor time
MAX_MEGABYTES = 200.0  # at the peak, with Python and the libraries that read the file

# The peak that `getrusage` tells counts the process that started this one too, but for macOS.
PROGRAM = """
import json, resource, sys, time
from pathlib import Path
{imports}
path, began, refusal = Path(sys.argv[1]), time.process_time(), ""
try:
    {reading}
except ValueError as error:
    refusal = str(error)
seconds = time.process_time() - began
if sys.platform == "darwin":
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
else:
    with open("/proc/self/status") as status:
        [peak] = [line.split()[1] for line in status if line.startswith("VmHWM:")]
    megabytes = int(peak) / (1 << 10)
print(json.dumps([refusal, seconds, megabytes]))
"""


class Outcome(NamedTuple):
    """What came of reading a file: the refusal (empty if it was read), and the cost."""

    refusal: str
    seconds: float
    peak_megabytes: float


def run_apart(imports: str, reading: str, path: Path) -> Outcome:
    """Return what another process says that reads a file.

    Args:
        imports: statements before the clock starts.
        reading: a statement that reads the file named by the variable `path`.
        path: the file.

    Raises:
        RuntimeError: the process did not end in the ordinary way.
    """
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(imports=imports, reading=reading), str(path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if finished.returncode != 0:
        raise RuntimeError(
            f"reading {path.name} ended with exit code {finished.returncode}: "
            f"{finished.stderr[-300:]}"
        )
    return Outcome(*json.loads(finished.stdout))


def fault_of(name: str, refusal: str, outcome: Outcome) -> str | None:
    """Return what is wrong with the way in which a file was taken; None if nothing is.

    Args:
        name: of the file, for the message.
        refusal: what the refusal must hold; empty: the file must be read.
        outcome: what came of it.
    """
    is_told = bool(refusal) == bool(outcome.refusal) and refusal in outcome.refusal
    if not is_told or "\n" in outcome.refusal:
        return f"{name}: {outcome.refusal[:500] or 'it was read'}"
    if outcome.seconds > MAX_SECONDS:
        return f"{name}: {outcome.seconds:.1f} s of processor time"
    if outcome.peak_megabytes > MAX_MEGABYTES:
        return f"{name}: {outcome.peak_megabytes:.0f} MB"
    return None
