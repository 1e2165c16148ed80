"""Versions of what mg runs with: which it takes, and which its tests ran with."""

import re
from typing import NamedTuple

__all__ = ["PACKAGES", "PYTHONS", "Versions", "untested_mindspore", "version_numbers"]


class Versions(NamedTuple):
    """Versions of a package: from, below (None: any), and the one that the tests ran with."""

    lowest: str
    below: str | None
    tested: str


PYTHONS = ((3, 10), (3, 13))  # from, and below
# The bounds are those of pyproject.toml.
PACKAGES = {
    "mindspore": Versions("2.7.2", "2.12", "2.10.0"),
    "numpy": Versions("1.26", "3", "1.26.4"),
    "safetensors": Versions("0.4", None, "0.8.0"),
    "opencv-python": Versions("4.8", "5", "4.11.0.86"),
    "av": Versions("17.1", None, "18.1.0"),
}


def version_numbers(version: str) -> tuple[int, ...]:
    """Return up to three numbers of a version, to compare."""
    return tuple(map(int, re.findall(r"\d+", version.split("+")[0])[:3]))


def untested_mindspore(version: str) -> str | None:
    """Return a warning if a version of MindSpore is of another minor than the tested one's."""
    tested = PACKAGES["mindspore"].tested
    if version_numbers(version)[:2] == version_numbers(tested)[:2]:
        return None
    return (
        f"MindSpore {version} is not what this version of mg was tested with ({tested}); "
        "`mg doctor` tries an operation of each kind."
    )
