"""Stop requests: the first signal is noted, the second ends the process, handlers come back."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mg.training.run.signals import StopRequest

ROOT = Path(__file__).parents[2]
SECONDS_LIMIT = 120  # on a busy machine

RUN = """
import logging, sys, time
from mg.training.run.signals import StopRequest
logging.basicConfig(format="%(message)s", stream=sys.stderr)
with StopRequest() as stop:
    print("started", flush=True)
    {waiting}
print("saved after", stop.requested, flush=True)
{after}
"""
UNTIL_REQUESTED = "while not stop.requested: time.sleep(0.001)"
# One call of a compiled library, of more than half an hour, in which Python runs no signal handler.
BUSY = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 2_000_000_000)"


def start(waiting, after=""):
    program = RUN.format(waiting=waiting, after=after)
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "started\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_lets_the_run_save_and_exit_with_0(number):
    process = start(UNTIL_REQUESTED)
    process.send_signal(number)
    output, log = process.communicate(timeout=SECONDS_LIMIT)
    assert process.returncode == 0
    assert output == f"saved after {number.name}\n"
    told = "Ctrl-C" if number == signal.SIGINT else number.name
    (line,) = log.splitlines()
    assert line.startswith(f"{told}: finishing the step, then saving.")
    assert line.endswith("A second one ends at once, without saving.")


REPLACED = """import ctypes
    libc = ctypes.CDLL(None)
    libc.signal.restype = ctypes.c_void_p
    libc.signal(2, ctypes.c_void_p(1))  # as a library does: here, ignore Ctrl-C
    time.sleep(2)
    print("replaced", flush=True)
    """
GRAPH = """import mindspore as ms
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.nn.ReLU()(ms.Tensor([1.0])).asnumpy()
    time.sleep(2)
    print("replaced", flush=True)
    """


@pytest.mark.parametrize("waiting", [REPLACED, GRAPH], ids=["another_handler", "mindspore"])
def test_ctrl_c_stays_ctrl_c_when_a_library_has_taken_its_place(waiting):
    process = start(waiting + UNTIL_REQUESTED)
    assert process.stdout.readline() == "replaced\n"
    process.send_signal(signal.SIGINT)
    output, log = process.communicate(timeout=SECONDS_LIMIT)
    assert output == "saved after SIGINT\n" and process.returncode == 0
    assert "Ctrl-C: finishing the step, then saving." in log and "SIGTERM" not in log


def test_what_a_signal_waits_for_is_named():
    waiting = f"""with stop.finishing("the compilation and one step"):
        print("inside", flush=True)
        {UNTIL_REQUESTED}"""
    process = start(waiting)
    assert process.stdout.readline() == "inside\n"
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=SECONDS_LIMIT)
    assert log.startswith("Ctrl-C: finishing the compilation and one step, then saving.")


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_ends_at_once_even_inside_compiled_code(second):
    process = start(BUSY)
    process.send_signal(signal.SIGTERM)
    assert "SIGTERM: finishing the step" in process.stderr.readline()  # not only after the call
    process.send_signal(second)
    output, _ = process.communicate(timeout=SECONDS_LIMIT)
    assert process.returncode == 128 + second
    assert output == ""


def test_after_the_context_signals_work_as_before():
    process = start("pass", after="time.sleep(600)")
    assert process.stdout.readline() == "saved after None\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=SECONDS_LIMIT)
    assert process.returncode == -signal.SIGTERM


def test_handlers_of_before_are_restored():
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested == "SIGTERM"
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGINT) is interrupt
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_the_main_thread_nothing_changes():
    found = []

    def enter():
        with StopRequest() as stop:
            found.append((signal.getsignal(signal.SIGTERM), stop.requested))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [(before, None)]
