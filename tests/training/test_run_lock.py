"""One run per folder: refused, taken over, shared; also where the file system has no locks."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mg.training.run import run_lock
from mg.training.run.run_lock import LOCK, hold_folder, refuse_if_held

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
from mg.training.run.run_lock import hold_folder
with hold_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Return another process that holds the folder until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.fixture
def quick(monkeypatch):
    """Let signs of life come often, and be missed soon."""
    monkeypatch.setattr(run_lock, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(run_lock, "STALE_SECONDS", 0.5)


def hold_once(folder):
    with hold_folder(folder):
        return json.loads((folder / LOCK).read_text())


def test_the_second_run_is_told_host_and_process_of_the_first(tmp_path, holder):
    told = rf"in use by another run, process {holder.pid} on host {socket.gethostname()} \(since 20"
    for refused in (hold_once, refuse_if_held):
        with pytest.raises(ValueError, match=told):
            refused(tmp_path)
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == holder.pid


def test_a_folder_is_free_after_the_run(tmp_path, holder, caplog):
    holder.communicate()
    refuse_if_held(tmp_path)
    assert hold_once(tmp_path)["pid"] == os.getpid()
    assert (tmp_path / LOCK).read_text() == "" and not caplog.messages


def test_a_killed_run_holds_nothing_and_is_told(tmp_path, holder, caplog):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    refuse_if_held(tmp_path)
    assert hold_once(tmp_path)["pid"] == os.getpid()
    assert f"was left by process {holder.pid} on host" in caplog.text


def test_looking_does_not_lock_others_out(tmp_path):
    hold_once(tmp_path)
    with open(tmp_path / LOCK, "rb") as file:
        assert run_lock._lock(file, is_shared=True)
        refuse_if_held(tmp_path)


def leave(folder, host):
    """Write the file of a run that did not end by itself."""
    owner = {"host": host, "pid": 7, "since": "2026-01-01 00:00:00"}
    (folder / LOCK).write_text(json.dumps(owner))


@pytest.fixture(params=["locks of its own host only", "no locks"])
def network_disk(request, monkeypatch):
    """Let files be on a network file system of that kind."""
    if request.param == "no locks":
        monkeypatch.setattr(run_lock, "_lock", lambda file, **kind: None)


def test_a_live_run_of_another_host_is_seen_by_its_signs_of_life(
    tmp_path, quick, network_disk, monkeypatch
):
    leave(tmp_path, "elsewhere")
    monkeypatch.setattr(run_lock.time, "sleep", lambda seconds: os.utime(tmp_path / LOCK))
    with pytest.raises(ValueError, match="in use by another run, process 7 on host elsewhere"):
        hold_once(tmp_path)
    assert json.loads((tmp_path / LOCK).read_text())["host"] == "elsewhere"


def test_a_dead_run_of_another_host_is_taken_over(tmp_path, quick, network_disk, caplog):
    leave(tmp_path, "elsewhere")
    assert hold_once(tmp_path)["pid"] == os.getpid()
    assert "looking for" in caplog.text and "was left by process 7 on host" in caplog.text


def test_one_that_died_long_ago_is_not_waited_for(tmp_path, network_disk, caplog):
    leave(tmp_path, "elsewhere")
    os.utime(tmp_path / LOCK, (1, 1))
    assert hold_once(tmp_path)["pid"] == os.getpid()
    assert "looking" not in caplog.text


def test_a_run_gives_signs_of_life(tmp_path, quick):
    with hold_folder(tmp_path):
        os.utime(tmp_path / LOCK, (1, 1))
        deadline = time.monotonic() + 60
        while os.stat(tmp_path / LOCK).st_mtime == 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert os.stat(tmp_path / LOCK).st_mtime > 1


def test_a_damaged_file_holds_for_as_long_as_it_is_touched(tmp_path, quick):
    for content in ("{", "7", '{"host": "elsewhere"}'):
        (tmp_path / LOCK).write_text(content)
        assert hold_once(tmp_path)["pid"] == os.getpid()
