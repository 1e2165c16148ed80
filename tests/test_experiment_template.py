"""The template of an experiment: copied and run as a user does it, and what it refuses."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mg.data.video import probe_video

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "experiments" / "exp_template"


def run(*arguments, folder=TEMPLATE):
    return subprocess.run(
        [sys.executable, folder / "run.py", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def test_a_small_experiment_gives_table_and_plot(tmp_path):
    copy = tmp_path / "experiments" / "exp1_attention_ablation"
    shutil.copytree(TEMPLATE, copy, ignore=shutil.ignore_patterns("results"))
    config = copy / "config.yaml"
    text = config.read_text()
    shared = text[: text.index("\nvariants:") + 1]
    small = "{resolution: 32, num_frames: 8, lr_schedule: cosine, optim.lr_end: 1.0e-5}"
    fast = "{lr: 3.0e-3, loss: {l1_weight: 0.5}}"
    config.write_text(shared + f"variants:\n  fast: {fast}\n  small: {small}\n")
    finished = run(
        *("--steps=2", "--num_videos=2", "--num_held_out=1"),
        *("--batch_size=1", "--device=CPU", "--mode=pynative", "--model.num_layers=1"),
        f"--output_path={tmp_path / 'out'}",
        folder=copy,
    )
    assert finished.returncode == 0, finished.stderr
    lines = (copy / "results" / "table.md").read_text().splitlines()
    assert lines[0].startswith("| variant | parameters | held-out loss before |")
    assert lines[2].startswith("| fast | ") and "MindSpore" in lines[-1]
    assert lines[3].startswith("| small | ")
    written = {
        name: yaml.safe_load((tmp_path / "out" / "runs" / name / "config.yaml").read_text())
        for name in ("fast", "small")
    }
    assert written["fast"]["optim"]["lr"] == 3e-3 and written["small"]["optim"]["lr"] == 1e-3
    assert written["fast"]["optim"]["lr_schedule"] == "constant"
    assert written["fast"]["loss"]["l1_weight"] == 0.5
    assert written["small"]["optim"]["lr_schedule"] == "cosine"
    assert written["small"]["optim"]["lr_end"] == 1e-5
    clips = Path(written["small"]["csv_path"]).parent
    assert clips.name == "clips_32px_8f" and probe_video(clips / "00000.mp4").num_frames == 8
    assert (copy / "results" / "losses.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ("{a: {heads: 8}}", "variant a: unknown setting 'heads'"),
        ("{a: {optim.lr_shedule: cosine}}", "did you mean 'optim.lr_schedule'"),
        ("{a: {optim.lr_schedule: cosin}}", "variant a: optim.lr_schedule='cosin'"),
        ("{a: {csv_path: b.csv}}", "variant a: csv_path is set by the experiment; leave it out"),
        ("{a: {resolution: 8}}", "resolution=8; expected a whole number of 16 or more"),
        ("{a: {model: {num_attention_head: 8}}}", "variant a: model: "),
        ("{a: {loss: {l2: 1}}}", "variant a: unknown setting 'loss.l2'"),
        ("{a: {lr_schedule: steps}}", "variant a: optim.lr_schedule='steps'; expected constant,"),
        ("{a: {lr: -1.0}}", "variant a: optim.lr=-1.0"),
        ("{}", "variants is empty"),
    ],
)
def test_wrong_variants_stop_before_anything_is_drawn(tmp_path, variants, message):
    finished = run(f"--variants={variants}", f"--output_path={tmp_path / 'out'}")
    assert finished.returncode != 0
    assert message in finished.stderr and "Traceback" not in finished.stderr
    assert not (tmp_path / "out").exists()
