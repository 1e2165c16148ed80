"""The evaluation of first frames: its rows, its report, and the script as a user starts it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mg.conditions.visual import ChannelConditions
from mg.pipelines.sampling_settings import SamplingSettings
from mg.pipelines.text_to_video import TextToVideo
from mg.shapes.first_frame_evaluation import (
    FirstFrameRun,
    evaluate_first_frames,
    held_out_clips,
    table_of_first_frames,
)
from mg.shapes.judge import judge_clip

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(make_square_generator):
    """Return a random generator that takes a first frame, of square videos."""
    return make_square_generator(ChannelConditions(frame_modes=["first_frame"]))


def test_shares_are_those_of_what_is_kept():
    clips = held_out_clips(8, size=64, num_frames=8)
    wanted = tuple(combination for combination, _ in clips)
    given = tuple(judge_clip(frames) for _, frames in clips)

    def shares(change):
        seen = tuple(judge_clip(change(frames)) for _, frames in clips)
        return FirstFrameRun("row", wanted, given, seen).shares()

    assert set(shares(lambda frames: frames).values()) == {1.0}
    # Backwards in time a clip has the same shape on the same ground, and begins elsewhere.
    backwards = shares(lambda frames: frames[::-1])
    assert [backwards[name] for name in ("colour", "shape", "background")] == [1.0] * 3
    assert backwards["start"] == backwards["all kept"] == backwards["motion"] == 0.0
    # Two pixels of 64 are within the tolerance, three are not.
    assert shares(lambda frames: np.roll(frames, 1, axis=(1, 2)))["start"] == 1.0
    assert shares(lambda frames: np.roll(frames, 3, axis=2))["start"] == 0.0
    nothing = shares(np.zeros_like)
    assert nothing["colour"] == nothing["start"] == 0.0
    table = table_of_first_frames([FirstFrameRun("perfect", wanted, given, given)])
    assert "| perfect (8 clips) | 100.0 | 100.0 | 100.0 | 100.0 | 100.0 | 100.0 |" in table
    with pytest.raises(ValueError, match="num_clips=0; expected 1 to"):
        held_out_clips(0, size=64, num_frames=8)


def test_the_report_has_three_rows_and_a_sheet(folder, tmp_path, pynative_mode):
    generator = TextToVideo.from_pretrained(folder)
    settings = SamplingSettings.of(generator.defaults)
    runs = evaluate_first_frames(generator, tmp_path, settings=settings, num_clips=4, batch_size=2)
    names = ["with the first frame", "without", "the autoencoder's limit"]
    assert [run.name for run in runs] == names
    report = json.loads((tmp_path / "report.json").read_text())
    assert [len(run["clips"]) for run in report["runs"]] == [4, 4, 4]
    assert set(report["runs"][0]["clips"][0]["right"]) == set(report["runs"][0]["shares"])
    assert (tmp_path / "report.md").read_text() == table_of_first_frames(runs)
    assert (tmp_path / "contact_sheet.png").is_file()
    with pytest.raises(FileExistsError, match="exists already"):
        evaluate_first_frames(generator, tmp_path, settings=settings, num_clips=4)
    wide = SamplingSettings.of(generator.defaults, width=24)
    with pytest.raises(ValueError, match="16x24: drawn clips are square"):
        evaluate_first_frames(generator, tmp_path / "other", settings=wide)


def test_the_script(folder, generator_folder, tmp_path):
    def run(checkpoint, output, *flags):
        flags = ["--checkpoint", checkpoint, "--output_folder", output, *flags]
        return subprocess.run(
            [sys.executable, "scripts/eval_first_frames.py", *map(str, flags)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    result = run(folder, tmp_path / "a", "--num_clips", 2, "--mode", "pynative")
    assert result.returncode == 0, result.stderr
    assert "| with the first frame (2 clips) |" in result.stdout
    refused = run(generator_folder, tmp_path / "b")
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert "16x24: drawn clips are square" in refused.stderr
