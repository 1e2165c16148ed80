"""Run a command on several devices of this machine: mg launch NUM COMMAND [ARGUMENTS]

    mg launch 8 train-tae --config configs/tae/train/demo.yaml

Rank 0 speaks here, the others in --log_folder. If one rank fails all are ended, with exit code 1.
"""

import argparse
import sys
from pathlib import Path

from mg.commands import COMMANDS
from mg.known_names import did_you_mean
from mg.parallel.launch import launch


def main() -> None:
    """Parse, start, wait."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--log_folder",
        default="outputs/ranks",
        help="logs of ranks 1 and up (default: %(default)s)",
    )
    parser.add_argument("num_ranks", type=int, help="processes, each with a device of its own")
    parser.add_argument("script", help="a command of mg, such as train-tae, or a Python file")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on to it")
    options = parser.parse_args()
    if options.script not in COMMANDS and not Path(options.script).is_file():
        name = options.script.replace("_", "-")
        hint = did_you_mean(name, COMMANDS, "`mg --help` lists the commands")
        raise ValueError(f"{options.script!r} is neither a command of mg nor a file; {hint}")
    program = ["-m", "mg", options.script] if options.script in COMMANDS else [options.script]
    command = [sys.executable, *program, *options.arguments]
    raise SystemExit(launch(options.num_ranks, command, options.log_folder))
