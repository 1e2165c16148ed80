#!/usr/bin/env python
"""Compare two training runs step by step, or a run with its reference curve.

    python tools/compare_runs.py outputs/unbroken outputs/resumed
    python tools/compare_runs.py outputs/a outputs/b --tolerance 1e-6 --keys loss,grad_norm
    python tools/compare_runs.py outputs/demo configs/tae/train/curves/demo.json
    python tools/compare_runs.py outputs/demo --write_reference configs/tae/train/curves/demo.json \
        --command "python scripts/train_tae.py --config configs/tae/train/demo.yaml"

Exit code: 0 equal (or written), 1 not equal, 2 they could not be compared.
"""

import argparse
import sys
from pathlib import Path

# From a checkout this also works without installing, from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mg.console import printable
from mg.files import write_text
from reference_curve import compare_with_reference, make_reference, read_reference
from run_comparison import Comparison, compare_runs, read_run

__all__ = ["main"]

REFERENCE_TOLERANCE = 0.05
REFERENCE_KEYS = ["loss"]
REFERENCE_STEPS = 10


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="a run's folder, or its log.jsonl")
    parser.add_argument(
        "other", nargs="?", help="another run, or a reference curve (.json) with its own tolerances"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        help="of two runs: the largest difference that counts as equal, absolute up to values of 1 "
        f"and relative above (default: 0). Of a new reference: relative ({REFERENCE_TOLERANCE})",
    )
    parser.add_argument(
        "--keys",
        type=lambda text: text.split(","),
        help="what to compare, with commas (default: all of two runs but what measures time; loss "
        "of a new reference)",
    )
    parser.add_argument("--write_reference", metavar="PATH", help="make a reference curve")
    parser.add_argument("--command", help="of a new reference: what was run")
    parser.add_argument(
        "--every", type=int, help=f"of a new reference: steps between points ({REFERENCE_STEPS})"
    )
    parser.add_argument(
        "--window", type=int, help=f"of a new reference: steps a point averages ({REFERENCE_STEPS})"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing reference")
    options = parser.parse_args(arguments)
    if (options.other is None) == (options.write_reference is None):
        parser.error("give either a second run or reference curve, or --write_reference")
    if options.write_reference and not options.command:
        parser.error("--write_reference needs --command, so that others can run the same")
    if not options.write_reference and any((options.command, options.every, options.window)):
        parser.error("--command, --every and --window are for --write_reference")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Compare or write as the command line says; return the exit code."""
    options = parse_arguments(arguments)
    try:
        if options.write_reference:
            write_reference(options)
            return 0
        comparison = compare(options)
    except (ValueError, OSError) as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return 2
    print(f"A {options.run}\nB {options.other}\n{comparison.table()}")
    return 0 if comparison.is_equal else 1


def compare(options: argparse.Namespace) -> Comparison:
    """Return the comparison with another run or with a reference curve."""
    if Path(options.run).suffix == ".json":
        raise ValueError(f"{options.run} is a reference curve; give the run first")
    if Path(options.other).suffix != ".json":
        return compare_runs(
            read_run(options.run),
            read_run(options.other),
            keys=options.keys,
            tolerance=options.tolerance or 0.0,
        )
    if options.tolerance is not None or options.keys is not None:
        raise ValueError("a reference curve has its own keys and tolerances; leave the flags out")
    return compare_with_reference(read_run(options.run), read_reference(options.other))


def write_reference(options: argparse.Namespace) -> None:
    """Write the reference curve of a run and print where and what."""
    tolerance = REFERENCE_TOLERANCE if options.tolerance is None else options.tolerance
    reference = make_reference(
        read_run(options.run),
        command=options.command,
        tolerance=dict.fromkeys(options.keys or REFERENCE_KEYS, tolerance),
        every=REFERENCE_STEPS if options.every is None else options.every,
        window=REFERENCE_STEPS if options.window is None else options.window,
    )
    write_text(options.write_reference, reference.to_json(), overwrite=options.overwrite)
    print(f"{options.write_reference}: {len(reference.curve)} points, {dict(reference.tolerance)}")


if __name__ == "__main__":
    sys.exit(main())
