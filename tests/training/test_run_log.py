"""The JSON-lines log and the picture of the curves."""

import builtins
import json

import pytest

from mg.training.curves import save_curves
from mg.training.metric import PSNR
from mg.training.reports import closing_report, validation_line
from mg.training.run_log import RunLog, read_log


def test_a_log_drops_the_steps_that_are_run_again(tmp_path):
    path = tmp_path / "log.jsonl"
    log = RunLog(path)
    for step in range(4):
        log.write({"step": step, "loss": float(step)})
    log.close()
    log = RunLog(path, first_step=2)
    log.write({"step": 2, "loss": 20.0})
    log.close()
    assert [entry["loss"] for entry in read_log(path)] == [0.0, 1.0, 20.0]
    assert len(path.read_text().splitlines()) == 3


def test_a_line_cut_short_by_a_crash_is_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 0, "loss": 1.0}\n{"step": 1, "lo')
    assert read_log(path) == [{"step": 0, "loss": 1.0}]
    RunLog(path, first_step=5).close()
    assert path.read_text() == json.dumps({"step": 0, "loss": 1.0}) + "\n"
    assert read_log(tmp_path / "none.jsonl") == []


def test_tensorboard_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    real_import = builtins.__import__

    def without_tensorboard(name, *args, **kwargs):
        if name == "tensorboardX":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_tensorboard)
    with pytest.raises(ValueError, match="pip install tensorboardX"):
        RunLog(tmp_path / "log.jsonl", tensorboard_folder=tmp_path / "events")


def test_many_held_out_clips_are_neither_all_listed_nor_all_drawn(tmp_path):
    values = {f"clip_{number:02}.mp4": 20.0 + number for number in range(40)}
    validation = [{"step": step, "psnr": 39.5, "psnr_per_clip": values} for step in (0, 4)]
    few, many = ({**validation[0], "psnr_per_clip": dict(list(values.items())[:n])} for n in (8, 9))
    assert "clip_07.mp4: 27.00" in validation_line(few, PSNR)
    assert "more" not in validation_line(few, PSNR)
    assert validation_line(many, PSNR).endswith("and 1 more, in validation.jsonl)")
    report = closing_report([], validation, PSNR, first_line="Done.", last_lines=[])
    assert report.count("clip_") == 8 and "and 32 more, in validation.jsonl" in report
    save_curves(tmp_path / "curves.png", [], validation, PSNR)
    assert (tmp_path / "curves.png").stat().st_size < 50_000
