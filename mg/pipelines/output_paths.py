"""Where the outputs for many inputs go: under one folder, each with its own name."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from mg.files import resolve_under

__all__ = ["output_paths"]


def output_paths(names: Iterable[str], folder: str | os.PathLike, suffix: str) -> dict[str, Path]:
    """Return {name: its output path}; subfolders in the names are kept.

    `a/b.mov` becomes `FOLDER/a/b.SUFFIX`, and `FOLDER/a/b.mov.SUFFIX` if there is also an
    `a/b.mp4`.

    Args:
        names: input paths relative to their folder.
        folder: of the outputs.
        suffix: of the outputs, with its dot.

    Raises:
        ValueError: a name that would lead outside `folder`, or under which no file can be written
            because folders and files there have the names of each other.
    """
    names = list(dict.fromkeys(names))
    stems = Counter(PurePosixPath(name).with_suffix("") for name in names)
    paths = {}
    for name in names:
        stem = PurePosixPath(name).with_suffix("")
        paths[name] = resolve_under(folder, f"{name if stems[stem] > 1 else stem}{suffix}")
    for path in paths.values():
        place = next(place for place in (path, *path.parents) if place.exists())
        if place.is_dir() == (place == path):
            kind = "a folder" if place == path else "a file"
            raise ValueError(f"{path} cannot be written: {place} is {kind}")
    return paths
