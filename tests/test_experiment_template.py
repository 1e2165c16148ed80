"""The template of an experiment: copied and run as a user does it, and what it refuses."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "experiments" / "exp_template"


def run(*arguments):
    return subprocess.run(
        [sys.executable, TEMPLATE / "run.py", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def test_a_small_experiment_gives_table_and_plot(tmp_path):
    config = tmp_path / "config.yaml"
    text = (TEMPLATE / "config.yaml").read_text()
    shared = text[: text.index("\nvariants:") + 1]
    config.write_text(
        shared + "variants:\n  fast: {lr: 3.0e-3, lr_schedule: linear, loss: {l1_weight: 0.5}}\n"
    )
    finished = run(
        *("--config", config, "--steps=2", "--num_videos=2", "--num_held_out=1"),
        *("--batch_size=1", "--device=CPU", "--model.num_layers=1"),
        *(f"--output_path={tmp_path / 'out'}", f"--results={tmp_path / 'results'}"),
    )
    assert finished.returncode == 0, finished.stderr
    lines = (tmp_path / "results" / "table.md").read_text().splitlines()
    assert lines[0].startswith("| variant | parameters | held-out loss before |")
    assert lines[2].startswith("| fast | ") and "MindSpore" in lines[-1]
    assert (tmp_path / "results" / "losses.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ("{a: {heads: 8}}", "unknown key 'heads' in the variant a"),
        ("{a: {model: {num_attention_head: 8}}}", "variant a: model: "),
        ("{a: {loss: {l2: 1}}}", "variant a: unknown key 'l2' in loss"),
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
