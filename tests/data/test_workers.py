"""A child process that hangs, crashes or is killed costs one call and nothing else."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mg.data.workers import CallFailedError, SupervisedProcess, WorkerPool, reason_of

PROJECT = Path(__file__).parents[2]


def test_a_call_that_fails_says_how_and_the_next_one_works(hostile):
    with SupervisedProcess(hostile.misbehave, seconds_limit=2) as process:
        assert process.call("fine") == "FINE"
        with pytest.raises(CallFailedError, match=r"^ZeroDivisionError: 0 frames per second$"):
            process.call("raises")
        with pytest.raises(CallFailedError, match=r"^decoder crashed \(signal 11\)$"):
            process.call("crashes")
        with pytest.raises(CallFailedError, match=r"^decoder hung for more than 2 s$"):
            process.call("hangs")
        assert process.call("fine again") == "FINE AGAIN"


def test_signals_to_the_group_leave_the_workers_alone(hostile):
    with SupervisedProcess(hostile.os_getpid, seconds_limit=60) as process:
        worker_id = process.call(None)
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(worker_id, number)
        assert process.call(None) == worker_id
        os.kill(worker_id, signal.SIGKILL)
        assert process.call(None) != worker_id  # no fault of a clip: simply a new process


def test_processes_that_end_before_any_work_are_an_error_not_a_loop(hostile):
    with (
        SupervisedProcess(hostile.FatalToLoad(), seconds_limit=60) as process,
        pytest.raises(RuntimeError, match=r"ended 3 times in a row .*\(exit code 3\)"),
    ):
        process.call(None)


def test_closing_ends_a_call_under_way(hostile, tmp_path):
    pool = WorkerPool(hostile.misbehave, 1, seconds_limit=60)
    assert pool.call("fine") == "FINE"
    errors = []

    def call():
        try:
            pool.call(str(tmp_path / "hangs"))
        except CallFailedError as error:
            errors.append(str(error))

    thread = threading.Thread(target=call)
    thread.start()
    while not (tmp_path / "hangs").exists():
        time.sleep(0.01)
    pool.close()
    thread.join(60)
    assert not thread.is_alive()
    assert errors == ["decoder crashed (signal 9)"]


SCRIPT = """
import sys
from mg.data.workers import SupervisedProcess

process = SupervisedProcess(str, seconds_limit=60)
print(process.call(7), flush=True)
"""


def test_a_script_that_closes_nothing_ends(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    result = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        timeout=300,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "7\n", "")


def test_reasons_name_the_kind_of_error_unless_made_for_users():
    assert reason_of(ValueError("cut off")) == "cut off"
    assert reason_of(KeyError("moov")) == "KeyError: 'moov'"
    assert reason_of(MemoryError()) == "MemoryError: "
