"""Ctrl-C outside training: one line, exit code 130, and nothing of MindSpore's."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mg.interrupts import interruptible

ROOT = Path(__file__).parents[2]
SECONDS_LIMIT = 240  # on a busy machine

# With a line about progress after each step, and Ctrl-C as a terminal has it.
MG = """
import signal, sys
import mg.progress
from mg.commands import main
signal.signal(signal.SIGINT, signal.default_int_handler)
mg.progress.LINE_SECONDS = 0
sys.argv = ["mg", *sys.argv[1:]]
main()
"""
INSIDE = """
import os, signal, sys, time
from mg.cli import run_main
signal.signal(signal.SIGINT, signal.default_int_handler)
def main():
    {work}
run_main(main)
"""
# A function that the compiler calls while it analyses the graph.
COMPILING = """import mindspore as ms
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    from mindspore.ops import constexpr
    @constexpr
    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        return 1
    class Interrupting(ms.nn.Cell):
        def construct(self, x):
            return x + interrupt()
    Interrupting()(ms.Tensor([1.0])).asnumpy()
    time.sleep(600)
    """
# One call of a compiled library, of more than half an hour, in which Python runs no handler.
BUSY = """import hashlib
    print("busy", file=sys.stderr, flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)
    """
AFTER_A_GRAPH = """import mindspore as ms
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.nn.ReLU()(ms.Tensor([1.0])).asnumpy()
    time.sleep(2)
    print("waiting", file=sys.stderr, flush=True)
    time.sleep(600)
    """


def run(folder, program, *arguments, until=None, number=signal.SIGINT):
    """Return (exit code, lines of stderr); the signal is sent after a line that begins so."""
    path = folder.with_suffix(".py")  # the compiler reads the source of a network
    path.write_text(program)
    process = subprocess.Popen(
        [sys.executable, path, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = []
    while until is not None and not (lines and lines[-1].startswith(until)):
        lines.append(process.stderr.readline())
        assert lines[-1], "".join(lines)
    if until is not None:
        process.send_signal(number)
    _, rest = process.communicate(timeout=SECONDS_LIMIT)
    return process.returncode, [*map(str.rstrip, lines), *rest.splitlines()]


@pytest.mark.parametrize(
    ("mode", "until"),
    [
        ("pynative", "video 1: 9 of 250 steps"),
        ("graph", "Compiling the networks"),
        ("graph", "video 1: 9 of 250 steps"),
    ],
)
def test_ctrl_c_ends_generating_with_one_line(tmp_path, mode, until):
    flags = ["--output=a.mp4", "--steps=250", f"--mode={mode}", "--device=CPU"]
    code, lines = run(tmp_path, MG, "generate", *flags, until=until)
    assert code == 130
    assert lines[-1] == "Ended by Ctrl-C." and lines.count("Ended by Ctrl-C.") == 1
    assert not [line for line in lines if "ERROR" in line or "Traceback" in line]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("work", "until"),
    [(COMPILING, None), (BUSY, "busy"), (AFTER_A_GRAPH, "waiting")],
    ids=["compiling", "busy", "after_a_graph"],
)
def test_ctrl_c_ends_what_a_library_does(tmp_path, work, until):
    code, lines = run(tmp_path, INSIDE.format(work=work), until=until)
    assert code == 130
    assert [line for line in lines if "[WARNING]" not in line] == [
        *filter(None, [until]),
        "Ended by Ctrl-C.",
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_request_to_end_ends_as_it_does_without_us(tmp_path):
    waiting = 'print("waiting", file=sys.stderr, flush=True)\n    time.sleep(600)'
    program = INSIDE.format(work=waiting)
    code, lines = run(tmp_path, program, until="waiting", number=signal.SIGTERM)
    assert (code, lines) == (-signal.SIGTERM, ["waiting"])


def test_the_handler_of_before_is_back_afterwards():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), interruptible():
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_ignored_ctrl_c_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
