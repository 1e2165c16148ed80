"""The table of prompts followed, on stand-ins for a generator whose right answers are known."""

import json
import sys

import cv2
import pytest

from mg.commands import eval_prompts as script
from mg.pipelines.generator_writer import save_generator
from mg.pipelines.sampling_settings import SamplingSettings
from mg.shapes import prompt_evaluation
from mg.shapes.clips import ALL_COLOURS, COLOURS, combinations, parse_caption, synthetic_clip
from mg.shapes.judge import judge_clip
from mg.shapes.prompt_evaluation import (
    EvaluationRun,
    check_evaluation,
    evaluate_prompts,
    wanted_clips,
)

SETTINGS = SamplingSettings(num_frames=8, height=64, width=64, fps=16, steps=2, guidance=3.0)


class Painter:
    """Draws what guided prompts say, and the same clip for all others."""

    def __init__(self):
        self.requests = []
        clips = [synthetic_clip(i, split="both", num_frames=8) for i in range(216)]
        self.clips = {combination: frames for combination, frames in clips}
        self.only = next(c for c in self.clips if c.is_held_out and c.colour == "red")

    def latents(self, prompts, seeds, *, settings, batch_size):
        self.requests.append((list(prompts), list(seeds), settings))
        for prompt in prompts:
            is_guided = prompt and settings.guidance != 1
            yield parse_caption(prompt) if is_guided else self.only

    def decode(self, latent, num_frames):
        return self.clips[latent]


@pytest.fixture
def painter(monkeypatch):
    monkeypatch.setattr(prompt_evaluation, "about_generator", lambda g: {"sha256": {"a": "b"}})
    return Painter()


def test_the_table_of_a_generator_that_listens(painter, tmp_path):
    wanted = wanted_clips()
    runs = evaluate_prompts(painter, wanted, tmp_path, settings=SETTINGS, seed=7, batch_size=4)
    assert [run.name for run in runs] == ["guidance 3", "guidance 1", "empty prompt"]
    columns = ("colour", "shape", "motion", "background", "all", "even motion", "full travel")
    assert runs[0].shares() == dict.fromkeys(columns, 1.0)
    only = painter.only
    for run in runs[1:]:
        shares = run.shares()
        assert shares["all"] == pytest.approx(1 / 48)
        for name in ("colour", "shape", "motion", "background"):
            count = sum(getattr(w, name) == getattr(only, name) for w in wanted)
            assert shares[name] == pytest.approx(count / 48)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["runs"][0]["num_videos"] == 48 and report["sha256"] == {"a": "b"}
    assert report["runs"][1]["clips"][0]["caption"] == wanted[0].caption
    chance = {"colour": 1 / 6, "shape": 1 / 3, "motion": 1 / 4, "background": 1 / 3}
    assert report["chance"] == pytest.approx(chance | {"all": 1 / 216})
    table = (tmp_path / "report.md").read_text()
    assert "| guidance 3 (48 videos) |" + 7 * " 100.0 |" in table
    assert "| chance | 16.7 | 33.3 | 25.0 | 33.3 | 0.5 |  |  |" in table
    assert cv2.imread(str(tmp_path / "contact_sheet.png")).shape[0] > 16 * 96


def test_clips_that_jump_or_hardly_move_are_told_from_even_ones():
    wanted, frames = synthetic_clip(0, split="held_out")
    jump = frames[[0] * 8 + [15] * 8]
    short = frames[:8]
    seen = tuple(judge_clip(clip) for clip in (frames, jump, short, frames))
    shares = EvaluationRun("guidance 3", (wanted,) * 4, seen).shares()
    assert shares["even motion"] == 0.75 and shares["full travel"] == 0.75


def test_all_rows_start_from_the_same_noise(painter, tmp_path):
    wanted = wanted_clips(2)
    evaluate_prompts(painter, wanted, tmp_path, settings=SETTINGS, seed=7)
    prompts, seeds, settings = zip(*painter.requests, strict=True)
    captions = [combination.caption for combination in wanted]
    assert prompts == (captions, captions, ["", ""])
    assert seeds == ([7, 8],) * 3
    assert [s.guidance for s in settings] == [3.0, 1.0, 1.0]


def test_wanted_clips_are_held_out():
    assert wanted_clips() == list(combinations("held_out")) and len(wanted_clips()) == 48
    few = wanted_clips(12, 2)
    assert len(few) == 24 and len(set(few)) == 12 and all(c.is_held_out for c in few)
    # A few of them stand for all: every value of each attribute but one at most is among them.
    assert len({c.colour for c in few}) >= 5 and len({c.motion for c in few}) == 4
    assert len({c.shape for c in few}) == 3 and len({c.background for c in few}) == 3
    for arguments in ((0,), (49,), (1, 0)):
        with pytest.raises(ValueError, match="expected 1"):
            wanted_clips(*arguments)


def test_a_new_colour_is_told_from_the_others(painter, tmp_path):
    clips = [synthetic_clip(i, split="new_colour_held_out", num_frames=8) for i in range(9)]
    painter.clips |= dict(clips)
    wanted = wanted_clips(split="new_colour_held_out")
    assert len(wanted) == 9 and {c.colour for c in wanted} == {"orange"}
    runs = evaluate_prompts(
        painter, wanted, tmp_path, settings=SETTINGS, batch_size=4, colours=ALL_COLOURS
    )
    assert runs[0].shares()["colour"] == 1.0 and runs[1].shares()["colour"] == 0.0
    assert runs[0].chance()["colour"] == pytest.approx(1 / 7)
    assert script.EvalPromptsConfig().colours == COLOURS
    assert script.EvalPromptsConfig(lora="a.safetensors").colours == ALL_COLOURS
    assert script.EvalPromptsConfig(split="new_colour_held_out").colours == ALL_COLOURS
    with pytest.raises(ValueError, match="unknown split 'train' of the captions"):
        script.EvalPromptsConfig(split="train")


def test_the_script(painter, generator_parts, tmp_path, monkeypatch, capsys):
    """The script on the stand-in; the generator's folder is a real one."""
    defaults = {"num_frames": 8, "size": [16, 16], "fps": 16, "steps": 3, "guidance": 3.0}
    save_generator(tmp_path / "generator", **{**generator_parts, "defaults": defaults})
    monkeypatch.setattr("mg.pipelines.text_to_video.TextToVideo", lambda parts: painter)
    arguments = ["--checkpoint", tmp_path / "generator", "--output_folder", tmp_path / "report"]
    arguments += ["--num_prompts=3", "--videos_per_prompt=2", "--steps=5", "--device=CPU"]
    monkeypatch.setattr(sys, "argv", ["eval_prompts.py", *map(str, arguments)])
    monkeypatch.setattr(script, "setup_device", lambda config: config.device)  # set already
    script.main()
    table = capsys.readouterr().out
    assert table == (tmp_path / "report" / "report.md").read_text()
    assert "| guidance 3 (6 videos) |" + 7 * " 100.0 |" in table
    assert painter.requests[0][2].steps == 5 and painter.requests[0][2].num_frames == 8
    with pytest.raises(FileExistsError, match="--overwrite"):
        script.main()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frames": 1}, "1 frames of 64x64: motion and shape"),
        ({"height": 8}, "8 frames of 8x64"),
        ({"guidance": 1.0}, "guidance=1 is one of the rows"),
    ],
)
def test_what_cannot_be_judged_is_refused(tmp_path, changes, message):
    settings = SamplingSettings(**{**SETTINGS.__dict__, **changes})
    with pytest.raises(ValueError, match=message):
        check_evaluation(tmp_path, settings, overwrite=False)


def test_a_report_is_not_overwritten_unasked(tmp_path):
    (tmp_path / "report.md").write_text("mine")
    with pytest.raises(FileExistsError, match=r"report\.md exists already"):
        check_evaluation(tmp_path, SETTINGS, overwrite=False)
    assert check_evaluation(tmp_path, SETTINGS, overwrite=True) is None
