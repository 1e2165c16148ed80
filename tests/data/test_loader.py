"""Batches from worker processes equal those computed in this process; faults end cleanly."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mg.data.clips import ClipConfig, ClipDataset
from mg.data.loader import ClipLoader
from mg.data.manifest import build_manifest

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, make_frames):
    for number in range(4):
        np.save(tmp_path / f"clip{number}.npy", make_frames(12 + number, 24, 32))
    return tmp_path


def make_dataset(folder):
    config = ClipConfig(sample_n_frames=4, size=16, crop="random", flip=True)
    return ClipDataset(build_manifest(video_folder=folder), config, seed=3, max_bad_share=1.0)


def test_workers_change_nothing_but_time(folder):
    data = make_dataset(folder)
    expected = [data.batch(step, 2) for step in range(5, 12)]
    for num_workers in (0, 2):
        with ClipLoader(
            make_dataset(folder), 2, start_step=5, num_steps=7, num_workers=num_workers
        ) as loader:
            batches = list(loader)
        assert [batch.names for batch in batches] == [batch.names for batch in expected]
        for batch, reference in zip(batches, expected, strict=True):
            np.testing.assert_array_equal(batch.frames, reference.frames)


def test_bad_clips_of_workers_are_reported(folder):
    data = make_dataset(folder)
    (folder / "clip2.npy").write_bytes(b"broken")
    with ClipLoader(data, 4, num_steps=2, num_workers=1) as loader:
        names = {name for batch in loader for name in batch.names}
    assert names == {"clip0.npy", "clip1.npy", "clip3.npy"}
    assert list(data.bad) == ["clip2.npy"]


def test_an_error_in_a_worker_is_raised_here(folder):
    data = make_dataset(folder)
    for path in folder.glob("*.npy"):
        path.unlink()
    with pytest.raises(ValueError, match="none of the 4 clips can be read"):
        next(ClipLoader(data, 2, num_workers=1))


def test_a_worker_killed_between_two_clips_is_replaced(folder):
    data = make_dataset(folder)
    expected = [data.batch(step, 2) for step in range(8)]
    with ClipLoader(data, 2, num_steps=8, num_workers=1) as loader:
        batches = [next(loader)]
        time.sleep(0.5)  # until the batches ahead are done
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid, signal.SIGKILL)
        batches += list(loader)
        with pytest.raises(StopIteration):
            next(loader)
    assert not data.bad
    assert [batch.names for batch in batches] == [batch.names for batch in expected]
    assert not multiprocessing.active_children()


SCRIPT = """
import multiprocessing, sys, time
from mg.data.clips import ClipConfig, ClipDataset
from mg.data.loader import ClipLoader
from mg.data.manifest import build_manifest

# No `if __name__ == "__main__"` here: workers must not run this script at all.
with open(sys.argv[2], "a") as log:
    log.write("run\\n")
config = ClipConfig(sample_n_frames=4, size=16)
loader = ClipLoader(ClipDataset(build_manifest(video_folder=sys.argv[1]), config), 2, num_workers=1)
frames = next(loader).frames
(worker,) = multiprocessing.active_children()
print(frames.shape, worker.pid, flush=True)
time.sleep(60)
"""


def test_workers_neither_run_the_script_nor_outlive_it(folder, tmp_path):
    script, log = tmp_path / "script.py", tmp_path / "log.txt"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder), str(log)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    try:
        *shape, worker_id = process.stdout.readline().replace("(", "").replace(")", "").split()
        assert " ".join(shape) == "2, 3, 4, 16, 16"
        assert log.read_text() == "run\n"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert ends_soon(int(worker_id))


def ends_soon(process_id, seconds=10):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(process_id, 0)
        except ProcessLookupError:
            return True
        state = Path(f"/proc/{process_id}/stat")
        if state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_reading_data_loads_no_mindspore(folder):
    code = (
        "import sys, mg.data.loader, mg.data.prepare, mg.data.video_writer\n"
        "assert 'mindspore' not in sys.modules\n"
        "print(len(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("settings", [{"num_workers": -1}, {"prefetch": 0}, {"start_step": -1}])
def test_settings_out_of_range(folder, settings):
    with pytest.raises(ValueError, match=r"must be|at least"):
        ClipLoader(make_dataset(folder), 2, **settings)
