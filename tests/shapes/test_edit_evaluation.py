"""The evaluation of edits: its rows, its report, and the script as a user starts it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mg.conditions.visual import ChannelConditions
from mg.pipelines.sampling_settings import SamplingSettings
from mg.pipelines.text_to_video import TextToVideo
from mg.shapes.edit_evaluation import EditRun, evaluate_edits, held_out_edits, table_of_edits
from mg.shapes.edits import synthetic_edit
from mg.shapes.judge import judge_clip

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(make_square_generator):
    """Return a random generator that takes a source, of square videos."""
    return make_square_generator(ChannelConditions(has_source=True))


def test_shares_are_those_of_what_is_edited_and_of_what_is_kept():
    pairs = held_out_edits(8, size=64, num_frames=8)
    edits = tuple(edit for edit, _, _ in pairs)
    perfect = EditRun("perfect", edits, tuple(judge_clip(target) for _, _, target in pairs))
    assert set(perfect.shares().values()) == {1.0}
    # A generator that gives back the source keeps everything and edits nothing.
    lazy = EditRun("lazy", edits, tuple(judge_clip(source) for _, source, _ in pairs)).shares()
    assert lazy.pop("edited") == lazy.pop("all") == 0.0 and set(lazy.values()) == {1.0}
    table = table_of_edits([perfect])
    assert "| perfect (8 edits) | 100.0 | 100.0 | 100.0 | 100.0 | 100.0 | 100.0 |" in table
    with pytest.raises(ValueError, match="num_edits=0; expected 1 to"):
        held_out_edits(0, size=64, num_frames=8)


def test_further_pairs_are_of_combinations_that_training_shows():
    for split, is_held_out in (("train", False), ("held_out", True)):
        edits = [edit for edit, _, _ in held_out_edits(8, size=64, num_frames=8, split=split)]
        assert [edit.target.is_held_out for edit in edits] == [is_held_out] * 8
    _, new, _ = held_out_edits(1, size=64, num_frames=8, split="train")[0]
    assert (new != synthetic_edit(0, num_frames=8)[1]).any()


def test_the_report_has_three_rows_and_a_sheet(folder, tmp_path, pynative_mode):
    generator = TextToVideo.from_pretrained(folder)
    settings = SamplingSettings.of(generator.defaults)
    runs = evaluate_edits(generator, tmp_path, settings=settings, num_edits=4, batch_size=2)
    assert [run.name for run in runs] == [
        "with the source",
        "without",
        "the autoencoder's limit",
    ]
    report = json.loads((tmp_path / "report.json").read_text())
    assert [len(run["clips"]) for run in report["runs"]] == [4, 4, 4]
    assert report["runs"][0]["clips"][0]["instruction"].startswith("make it ")
    assert (tmp_path / "report.md").read_text() == table_of_edits(runs)
    assert (tmp_path / "contact_sheet.png").is_file()
    with pytest.raises(FileExistsError, match="exists already"):
        evaluate_edits(generator, tmp_path, settings=settings, num_edits=4)
    wide = SamplingSettings.of(generator.defaults, width=24)
    with pytest.raises(ValueError, match="16x24: drawn clips are square"):
        evaluate_edits(generator, tmp_path / "other", settings=wide)


def test_the_script(folder, generator_folder, tmp_path):
    def run(checkpoint, output, *flags):
        flags = ["--checkpoint", checkpoint, "--output_folder", output, *flags]
        return subprocess.run(
            [sys.executable, "scripts/eval_edits.py", *map(str, flags)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    result = run(folder, tmp_path / "a", "--num_edits", 2, "--mode", "pynative")
    assert result.returncode == 0, result.stderr
    assert "| with the source (2 edits) |" in result.stdout
    refused = run(folder, tmp_path / "b", "--split", "both")
    assert refused.returncode == 1 and "split" in refused.stderr
    refused = run(generator_folder, tmp_path / "b")
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert "16x24: drawn clips are square" in refused.stderr
