"""Which files in a folder the names in a table mean.

A name means the file of that path. If there is none, accents may be composed differently from those
on the disk (Unicode NFC and NFD: macOS and Linux differ), and the suffix may be missing.
"""

import dataclasses
import os
import posixpath
import unicodedata
from pathlib import Path, PurePosixPath

from mg.data.media_rules import MEDIA_SUFFIXES
from mg.files import path_under

__all__ = ["NamedFile", "NamedFiles", "composed", "hint_of_name"]


def composed(name: str) -> str:
    """Return a name with its accents composed (Unicode NFC), to be compared with others."""
    return unicodedata.normalize("NFC", name)


def hint_of_name(name: str) -> str:
    """Return what may be wrong with a name that nothing has, to stand behind a reason; or ""."""
    if name != name.strip():
        return f"; the name {name!r} begins or ends with a blank"
    if "\\" in name:
        return "; the name has backslashes: write folders with /, as in a/b.mp4"
    return ""


@dataclasses.dataclass(frozen=True)
class NamedFile:
    """What a name stands for: `name` as on the disk, relative to the folder, if it is there."""

    name: str
    path: Path


@dataclasses.dataclass(frozen=True)
class _Listing:
    """The entries of a folder by their composed names; media also by that without suffix."""

    entries: dict[str, str]
    stems: dict[str, str]


class NamedFiles:
    """Finds the files that a table names under one folder; each folder is listed at most once."""

    def __init__(self, root: Path):
        self._root = root
        self._listings: dict[Path, _Listing] = {}

    def find(self, name: str) -> NamedFile:
        """Return the file that a table calls `name`; there may be none.

        Raises:
            ValueError: the path leaves the folder.
        """
        path = path_under(self._root, name)
        if os.path.lexists(path):
            return NamedFile(name, path)
        found = self._match(posixpath.normpath(name))
        return NamedFile(found or name, path_under(self._root, found or name))

    def _match(self, name: str) -> str | None:
        """Return the name on the disk of the file that is called so but for accents or suffix."""
        *folders, last = PurePosixPath(name).parts or ("",)
        place, found = path_under(self._root, "."), []
        for folder in folders:
            actual = self._listing(place).entries.get(composed(folder))
            if actual is None:
                return None
            found.append(actual)
            place = place / actual
        listing, key = self._listing(place), composed(last)
        actual = listing.entries.get(key) or listing.stems.get(key)
        return "/".join([*found, actual]) if actual else None

    def _listing(self, folder: Path) -> _Listing:
        if folder not in self._listings:
            try:
                names = sorted(os.listdir(folder))
            except OSError:
                names = []
            media = [name for name in names if Path(name).suffix.lower() in MEDIA_SUFFIXES]
            self._listings[folder] = _Listing(
                {composed(name): name for name in reversed(names)},
                {composed(Path(name).stem): name for name in reversed(media)},
            )
        return self._listings[folder]
