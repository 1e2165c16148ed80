"""The launcher: exit codes, messages, signals, and no hang when a rank dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mg.data.latent_files import read_latent_info
from mg.models.tae.tae import TemporalAutoencoder
from mg.parallel.launch import launch
from mg.weights.checkpoint_file import write_weights
from mg.weights.stored_config import config_metadata
from tests.tiny import TAE_OF_IMAGES

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "programs"


def python(code):
    """Return the command of a small program that knows its `rank` as text."""
    start = "import os, signal, sys, time; rank = os.environ['RANK_ID']"
    return [sys.executable, "-c", f"{start}\n{code}"]


def test_all_ranks_run_with_the_variables_of_the_cluster(tmp_path):
    names = "MS_ROLE MS_WORKER_NUM MS_NODE_ID DEVICE_ID RANK_SIZE MS_SCHED_HOST"
    code = (
        f"text = ' '.join(os.environ[name] for name in {names.split()})\n"
        f"open(os.path.join({str(tmp_path)!r}, rank + '.txt'), 'w').write(text)"
    )
    assert launch(3, python(code), tmp_path / "logs") == 0
    texts = [(tmp_path / f"{rank}.txt").read_text() for rank in range(3)]
    assert texts == [f"MS_WORKER 3 {rank} {rank} 3 127.0.0.1" for rank in range(3)]
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == [
        "rank_1.log",
        "rank_2.log",
        "scheduler.log",
    ]


def test_a_failing_rank_is_named_and_ends_the_others(tmp_path, caplog):
    code = "if rank == '1': print('out of luck'); sys.exit(3)\ntime.sleep(600)"
    began = time.monotonic()
    assert launch(2, python(code), tmp_path) == 1
    assert time.monotonic() - began < 300  # the other one sleeps for twice as long
    assert "rank 1 of 2 ended with exit code 3; all ranks are stopped" in caplog.text
    assert "  out of luck" in caplog.text


def test_every_rank_that_failed_is_named(tmp_path, caplog):
    """The one that lost another may end first; the one at fault is named all the same."""
    code = "time.sleep(0.4 * int(rank)); print('fault', rank); sys.exit(3)"
    assert launch(2, python(code), tmp_path) == 1
    for rank in (0, 1):
        assert f"rank {rank} of 2 ended with exit code 3" in caplog.text
    assert "  fault 1" in caplog.text


def test_sigterm_reaches_the_ranks_which_may_end_well(tmp_path):
    """The launcher gets the signal from rank 0, once both ranks can handle it."""
    code = (
        "def stop(*_):\n"
        f"    open(os.path.join({str(tmp_path)!r}, 'stopped_' + rank), 'w')\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        f"open(os.path.join({str(tmp_path)!r}, 'ready_' + rank), 'w')\n"
        f"while rank == '0' and not os.path.exists(os.path.join({str(tmp_path)!r}, 'ready_1')):\n"
        "    time.sleep(0.01)\n"
        "if rank == '0': os.kill(os.getppid(), signal.SIGTERM)\n"
        "time.sleep(600)"
    )
    before = signal.getsignal(signal.SIGTERM)
    assert launch(2, python(code), tmp_path / "logs") == 0
    assert (tmp_path / "stopped_0").exists() and (tmp_path / "stopped_1").exists()
    assert signal.getsignal(signal.SIGTERM) is before


def has_ended(pid):
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return not listed.stdout.strip() or listed.stdout.startswith("Z")


def assert_ends_all_that_it_started(launcher, pids):
    """Kill a process; no other one may stay."""
    assert not any(map(has_ended, pids))
    launcher.kill()
    launcher.wait()
    deadline = time.monotonic() + 60
    while not all(map(has_ended, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(map(has_ended, pids))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of such an end")
def test_a_killed_launcher_leaves_no_process_behind(tmp_path, launch_script, descendants):
    (tmp_path / "wait.py").write_text(
        "import os, sys, time\n"
        "open(os.path.join(sys.argv[1], 'ready_' + os.environ['RANK_ID']), 'w')\n"
        "time.sleep(600)\n"
    )
    command = launch_script(tmp_path / "logs", tmp_path / "wait.py", tmp_path)
    with subprocess.Popen([str(part) for part in command]) as launcher:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("ready_*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        pids = descendants(launcher.pid)
        assert len(pids) == 3  # the scheduler too
        assert_ends_all_that_it_started(launcher, pids)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of such an end")
@pytest.mark.parametrize("is_joined", [True, False])
def test_a_rank_ends_with_an_msrun_that_waits_for_it(tmp_path, is_joined):
    """msrun stands for itself by its name and arguments."""
    rank = (
        "import os, time; from mg.parallel.end_with_parent import end_with_msrun\n"
        "end_with_msrun(); print(os.getpid(), flush=True); time.sleep(600)"
    )
    (tmp_path / "msrun").write_text(
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {rank!r}])"
    )
    command = [sys.executable, tmp_path / "msrun", "--worker_num=2", f"--join={is_joined}", "x.py"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as msrun:
        pid = int(msrun.stdout.readline())
        if is_joined:
            assert_ends_all_that_it_started(msrun, [pid])
        else:
            msrun.kill()
            msrun.wait()
            time.sleep(0.2)
            assert not has_ended(pid)
            os.kill(pid, signal.SIGKILL)


def test_no_ranks_are_refused(tmp_path):
    with pytest.raises(ValueError, match="number of ranks 0; expected 1 or more"):
        launch(0, ["true"], tmp_path)


def test_a_killed_rank_ends_the_run_at_once(tmp_path, run_limited, launch_script):
    code, output = run_limited(
        launch_script(tmp_path, PROGRAMS / "kill_a_rank.py"), log_folder=tmp_path
    )
    seconds = time.time() - (tmp_path / "rank_1.log").stat().st_mtime  # since its last line
    assert code == 1 and seconds < 25  # MindSpore's own ranks give up after 30
    assert "error: rank 1 of 2 was killed by signal 9; all ranks are stopped" in output
    assert "rank 1 is about to die" in output  # the end of its log
    listed = subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True, check=True)
    assert str(PROGRAMS / "kill_a_rank.py") not in listed.stdout


def test_a_script_on_two_ranks(tmp_path, run_limited, launch_script, make_videos):
    tae = TemporalAutoencoder(TAE_OF_IMAGES)
    write_weights(
        tmp_path / "tae.safetensors", tae.tensors(), metadata=config_metadata(tae.config.to_dict())
    )
    # fmt: off
    command = launch_script(
        tmp_path / "logs", "scripts/encode.py",
        "--ckpt_path", tmp_path / "tae.safetensors",
        "--input", make_videos(tmp_path / "videos", ("a.mp4", "b.mp4", "c.mp4")),
        "--output_path", tmp_path / "latents",
        "--device", "CPU",
        "--mode", "pynative",
    )
    # fmt: on
    code, output = run_limited(command, log_folder=tmp_path / "logs")
    assert code == 0, output
    assert "Running on 2 ranks." in output
    assert "3 encoded, 0 finished before, 0 left out" in output
    for name in "abc":
        assert read_latent_info(tmp_path / "latents" / f"{name}.safetensors").num_frames == 2
    assert (tmp_path / "latents" / "encode.yaml").is_file()
    assert "encoded" not in (tmp_path / "logs" / "rank_1.log").read_text()
