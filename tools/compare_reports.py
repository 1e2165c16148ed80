#!/usr/bin/env python
"""Compare two reports of scripts/evaluate.py; refused if they were not measured alike.

    python tools/compare_reports.py outputs/evaluation_a outputs/evaluation_b

Exit code: 0 compared, 1 refused or not readable.
"""

import argparse
import sys
from pathlib import Path

# From a checkout this also works without installing, from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from report_comparison import compare_reports, read_report


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", help="a report.json, or the folder of an evaluation")
    parser.add_argument("second", help="another one")
    parser.add_argument(
        "--force", action="store_true", help="side by side even if they cannot be compared"
    )
    options = parser.parse_args(arguments)
    try:
        reports = [read_report(path) for path in (options.first, options.second)]
        print(compare_reports(*reports, force=options.force))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
