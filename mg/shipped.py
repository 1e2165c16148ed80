"""Files that ship with the package: small weights, example clips, configs, protocols.

A wheel holds them in `mg/shipped`, a checkout beside `mg`. Both have the folders of `FOLDERS`.
"""

import os
from pathlib import Path

__all__ = ["FOLDERS", "find_shipped", "shipped_root", "short_path"]

FOLDERS = ("assets", "configs", "protocols")


def shipped_root() -> Path:
    """Return the folder that has the folders `FOLDERS` in it."""
    package = Path(__file__).resolve().parent
    inside = package / "shipped"
    return inside if inside.is_dir() else package.parent


def find_shipped(path: str | os.PathLike) -> str:
    """Return a path as text; that of a shipped file, if there is none in the current folder.

    So `configs/tae/train/demo.yaml` and `assets/clips/test` mean the same from any folder, with
    a wheel and with a checkout, unless the current folder has files of these names.

    Args:
        path: a relative path that begins with one of `FOLDERS`; others come back as they are.
    """
    parts = Path(path).parts
    if not parts or parts[0] not in FOLDERS or ".." in parts or os.path.exists(path):
        return os.fspath(path)
    shipped = shipped_root().joinpath(*parts)
    return str(shipped) if shipped.exists() else os.fspath(path)


def short_path(path: str | os.PathLike) -> str:
    """Return a path as people are shown it: shipped files and those below the current folder short.

    Args:
        path: absolute or relative; it comes back as `find_shipped` or the current folder finds it.
    """
    text = os.fspath(path)
    for folder in (os.getcwd(), str(shipped_root())):
        inside = text.removeprefix(f"{folder}{os.sep}")
        if inside != text and (folder == os.getcwd() or inside.split(os.sep)[0] in FOLDERS):
            return inside
    return text
