"""The command that prints what training costs."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments):
    command = [sys.executable, "tools/estimate_costs.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_tables_of_the_documentation_are_what_the_command_prints():
    done = run()
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(rows) == (2 + 6) + (2 + 9) + (2 + 6)
    document = (ROOT / "docs" / "costs.md").read_text(encoding="utf-8").splitlines()
    assert [row for row in rows if row not in document] == []


def test_a_video_of_one_frame_and_one_tile_has_one_token():
    done = run("--presets", "tiny", "--num_frames", "1", "--sides", "16")
    assert "| tiny | 16 px | 1 |" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sides", "100"), "multiples of 16"),
        (("--num_frames", "0"), "1 frame or more"),
        (("--card_gb", "0"), "above 0"),
        (("--usable", "1.5"), "from 0 to 1"),
    ],
)
def test_wrong_sizes_are_refused(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2 and message in done.stderr
