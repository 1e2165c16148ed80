"""`mg evaluate-edits` from a checkout, without installing: python scripts/eval_edits.py ..."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mg.commands import run_command

if __name__ == "__main__":
    run_command("evaluate-edits")
