"""Show what is in a weight file, of any format and size, without loading it.

mg inspect vae/diffusion_pytorch_model.safetensors
"""

import json
import sys
from pathlib import Path

from mg.cli.argument_parser import CommandParser
from mg.console import printable
from mg.weights.inspection import inspect_checkpoint


def main() -> None:
    parser = CommandParser(__doc__, names={"input": "path", "weights": "path"})
    parser.add_argument(
        "path",
        type=Path,
        help="safetensors, PyTorch, MindSpore or npz file, or a folder with one",
    )
    parser.add_argument(
        "--key", help="which weights of a file that holds several; default: the averaged ones"
    )
    parser.add_argument("--sha256", action="store_true", help="hash the files (reads all of them)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    report = inspect_checkpoint(arguments.path, key=arguments.key, sha256=arguments.sha256)
    if arguments.json:
        print(json.dumps(report.as_dict(), indent=1))
    else:
        print(printable(str(report), max_lines=sys.maxsize))
