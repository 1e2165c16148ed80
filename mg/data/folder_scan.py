"""All files of a folder that may be videos or images, links followed, and a count of the others."""

import collections
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mg.data.media_rules import MEDIA_SUFFIXES

__all__ = ["FolderScan", "has_media_suffix"]


def has_media_suffix(name: str) -> bool:
    """Return whether a name is that of a video, an image or a prepared clip."""
    return PurePosixPath(name).suffix.lower() in MEDIA_SUFFIXES


class FolderScan:
    """Every name below a folder whose content should be looked at.

    Linked files and folders are followed. A folder is read once, however many links lead to it,
    so circles of links end; so is a file in the folder that links with a suffix lead to, as in the
    cache of Hugging Face (`snapshots/REVISION/a.mp4 -> ../../blobs/HASH`).

    Attributes:
        names: of the files, relative to the folder, sorted. Those with the suffix of a video need
            not be files: what looks like a video and is none should be reported.
        passed_over: how many entries are left out for each reason.
    """

    def __init__(self, folder: str | os.PathLike):
        self._root = Path(folder)
        self.passed_over: collections.Counter[str] = collections.Counter()
        names = list(self._walk())
        named_by_links = self._targets(names)
        self.names = []
        for name in sorted(names, key=lambda name: PurePosixPath(name).parts):
            if name in named_by_links:
                self.passed_over["files that links in the folder lead to"] += 1
            else:
                self.names.append(name)

    def _walk(self) -> Iterator[str]:
        """Yield the names of all files, those in linked folders after the others."""
        seen: set[tuple[int, int]] = set()
        starts = collections.deque([self._root])
        while starts:
            for place, folders, files in os.walk(starts.popleft(), onerror=self._count_unreadable):
                status = os.stat(place)
                if (status.st_dev, status.st_ino) in seen:
                    self.passed_over["links to folders that are read already"] += 1
                    folders.clear()
                    continue
                seen.add((status.st_dev, status.st_ino))
                folders[:] = sorted(self._shown(folders))
                linked = [name for name in folders if os.path.islink(os.path.join(place, name))]
                starts.extend(Path(place, name) for name in linked)
                relative = Path(place).relative_to(self._root)
                odd = [name for name in folders if has_media_suffix(name)]
                for name in (*self._shown(files), *odd):
                    yield (relative / name).as_posix()

    def _shown(self, names: list[str]) -> list[str]:
        """Return the names that are not hidden."""
        shown = [name for name in names if not name.startswith(".")]
        if len(shown) < len(names):
            self.passed_over["hidden files or folders"] += len(names) - len(shown)
        return shown

    def _count_unreadable(self, error: OSError) -> None:
        self.passed_over["folders that may not be read"] += 1

    def _targets(self, names: list[str]) -> set[str]:
        """Return the names without suffix of files that links among the others lead to."""
        paths = {name: self._root / name for name in names}
        links = [path for name, path in paths.items() if has_media_suffix(name)]
        targets = {os.path.realpath(path) for path in links if path.is_symlink()}
        if not targets:
            return set()
        return {
            name
            for name, path in paths.items()
            if not PurePosixPath(name).suffix
            and not path.is_symlink()
            and os.path.realpath(path) in targets
        }
