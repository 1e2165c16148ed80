"""Training runs of scripts/train_tae.py as processes that can be ended at any instant."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mg.data.video_writer import write_video
from mg.training.run.checkpoint_store import CheckpointStore

__all__ = ["TINY_SETTINGS", "TrainingProcess", "TrainingRun", "checkpoint_difference"]

ROOT = Path(__file__).resolve().parents[2]
SECONDS_LIMIT = 900  # a start takes seconds, but minutes on a busy machine
# The real trainer and the real network, as small as it gets.
TINY_SETTINGS = {
    "device": "CPU",
    "steps": 50,
    "log_interval": 1,
    "model": {
        "ch": 8,
        "ch_mult": [1],
        "num_res_blocks": 1,
        "z_channels": 4,
        "norm_groups": 4,
        "attn_type": "spat_only",
        "temporal_downsample_level": [0],
        "temporal_upsample_level": [0],
    },
    "data": {"sample_n_frames": 2, "size": 8, "num_workers": 0},
    "loss": {"perceptual_loss_weight": 0.0, "mse_weight": 0.5},
    "optim": {"lr": 1e-3, "weight_decay": 0.1, "ema_decay": 0.9},
}


class TrainingRun:
    """A run's folder with its own videos and config, in which processes are started in turn.

    Args:
        folder: an existing folder.
        settings: changes of TINY_SETTINGS, by dotted name.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.output = folder / "out"
        self.store = CheckpointStore(self.output / "checkpoints", keep=2)
        videos = folder / "videos"
        rng = np.random.default_rng(0)
        for name in ("a", "b", "c"):
            frames = rng.integers(0, 256, (8, 24, 32, 3), np.uint8)
            write_video(videos / f"{name}.mp4", frames, fps=8)
        content = with_changes(TINY_SETTINGS, settings)
        content |= {"output_path": str(self.output), "video_folder": str(videos)}
        self.config = folder / "config.yaml"
        self.config.write_text(yaml.safe_dump(content))
        self.environment = {**os.environ, "GLOG_v": "3"}
        self.num_started = 0

    @contextlib.contextmanager
    def start(self, **flags: Any) -> Iterator["TrainingProcess"]:
        """Yield a process of the run, which goes on from what is there; it is killed at the end.

        Args:
            flags: settings by name.
        """
        is_begun = (self.output / "config.yaml").exists()
        command = [sys.executable, str(ROOT / "scripts" / "train_tae.py"), "--config", self.config]
        command += [f"--{name}={value}" for name, value in flags.items()]
        command += ["--resume=true"] if is_begun else []
        self.num_started += 1
        messages = self.folder / f"messages_{self.num_started}.txt"
        with messages.open("wb") as file:
            process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=file, stderr=file
            )
        try:
            yield TrainingProcess(process, messages, self.output)
        finally:
            process.kill()
            process.wait()


class TrainingProcess:
    """A started process and what it has said so far."""

    def __init__(self, process: subprocess.Popen, messages: Path, output: Path) -> None:
        self.process = process
        self._messages = messages
        self._log = output / "log.jsonl"

    @property
    def messages(self) -> str:
        """What it wrote to stdout and stderr."""
        return self._messages.read_text(errors="replace")

    @property
    def first_step(self) -> int:
        """The step that it went on from; 0 where it said nothing of resuming."""
        found = re.search(r"Resuming after step (\d+)\.", self.messages)
        return int(found[1]) if found else 0

    @property
    def last_saved_step(self) -> int | None:
        """The step of the last checkpoint that it said it had saved."""
        found = re.findall(r"Saved \S*step_(\d+)\S*\.\n", self.messages)
        return int(found[-1]) if found else None

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return when the condition holds.

        Raises:
            RuntimeError: the process ended before, or it takes too long.
        """
        deadline = time.monotonic() + SECONDS_LIMIT
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the run did not train: {self.messages[-2000:]}")
            time.sleep(0.02)

    def wait_until_resumes(self) -> None:
        """Return when it has loaded a checkpoint; then it compiles."""
        self.wait_until(lambda: "Resuming after step" in self.messages)

    def wait_until_trains(self) -> None:
        """Return when it has done a step of its own."""
        self.wait_until(lambda: re.search(r"^step \d+: ", self.messages, re.MULTILINE) is not None)

    def log(self) -> list[dict[str, Any]]:
        """Return the whole entries of the run's log."""
        lines = self._log.read_text().splitlines(keepends=True) if self._log.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def end(self, number: signal.Signals) -> int:
        """Send a signal; return the exit code."""
        self.process.send_signal(number)
        return self.finish()

    def finish(self) -> int:
        """Return the exit code when it has ended."""
        return self.process.wait(SECONDS_LIMIT)


def with_changes(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with some of them, given by dotted name, set otherwise."""
    changed = json.loads(json.dumps(settings))
    for name, value in changes.items():
        *sections, last = name.split(".")
        section = changed
        for key in sections:
            section = section.setdefault(key, {})
        section[last] = value
    return changed


def checkpoint_difference(one: TrainingRun, other: TrainingRun, *, step: int) -> str | None:
    """Return in what two runs' checkpoints of a step differ, or None: not in one bit."""
    stored, expected = (run.store.load(step) for run in (one, other))
    files = stored.manifest.files.keys()
    if files != expected.manifest.files.keys():
        return f"checkpoints of {sorted(files)} and {sorted(expected.manifest.files)}"
    for file in sorted(files):
        name = file.removesuffix(".safetensors")
        if name == file:
            continue
        tensors, others = stored.tensors(name), expected.tensors(name)
        if tensors.keys() != others.keys():
            return f"{file} holds other names"
        for key, values in tensors.items():
            if not np.array_equal(values, others[key]):
                largest = float(np.abs(values - others[key]).max())
                return f"{key} in {file} differs by up to {largest:g}"
    progress, other_progress = stored.document("progress"), expected.document("progress")
    return None if progress == other_progress else f"{progress} and {other_progress}"
