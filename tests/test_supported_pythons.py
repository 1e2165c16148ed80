"""The oldest Python that the project names is enough for it."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_nothing_asks_for_a_newer_python_than_the_oldest_that_is_named():
    least = re.search(r'requires-python = ">=([\d.]+)', (ROOT / "pyproject.toml").read_text())[1]
    vermin = "import sys; from vermin.main import main; sys.exit(main())"
    command = [sys.executable, "-c", vermin, "--no-tips", "--violations", f"-t={least}-"]
    result = subprocess.run(
        [*command, "mg", "scripts", "tools", "benchmarks", "run.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
