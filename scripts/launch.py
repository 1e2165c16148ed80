"""Run a script on several devices of this machine: python scripts/launch.py NUM SCRIPT [ARGUMENTS]

    python scripts/launch.py 8 scripts/train_tae.py --config configs/tae/train/demo.yaml

Rank 0 speaks here, the others in --log_folder. If one rank fails all are ended, with exit code 1.
"""

import argparse
import sys
from pathlib import Path

# From a checkout this also works without installing, from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mg.cli import run_main
from mg.parallel.launch import launch


def main() -> None:
    """Parse, start, wait."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--log_folder", default="outputs/ranks", help="logs of ranks 1 and up")
    parser.add_argument("num_ranks", type=int, help="processes, each with a device of its own")
    parser.add_argument("script", help="Python file")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on to the script")
    options = parser.parse_args()
    command = [sys.executable, options.script, *options.arguments]
    raise SystemExit(launch(options.num_ranks, command, options.log_folder))


if __name__ == "__main__":
    run_main(main)
