"""Which files a folder, a table or shards name, before any of them is looked at."""

import collections
import os
from dataclasses import dataclass
from pathlib import Path

from mg.console import one_line
from mg.data.folder_scan import FolderScan, has_media_suffix
from mg.data.media_source import MediaSource
from mg.data.prepared_index import INDEX_NAME, read_index
from mg.data.shards import VideoFolder, names_shards, read_shard, shard_names, shard_paths
from mg.data.table_names import NamedFiles, composed
from mg.data.tar_index import SHARD_SUFFIX
from mg.data.video_table import read_video_table
from mg.files import path_under

__all__ = ["Entry", "Rejected", "entries_of_csv", "entries_of_folder", "left_out_when_prepared"]


@dataclass(frozen=True)
class Rejected:
    """One file that cannot be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Entry:
    """One file to be probed, with what is known of it."""

    path: MediaSource
    name: str
    caption: str = ""
    fps: float = 0.0  # where the file itself does not tell
    is_named: bool = True  # by a user or by its suffix: listed whatever it is


def entries_of_folder(
    video_folder: VideoFolder, passed_over: collections.Counter[str]
) -> list[Entry | Rejected]:
    """Return every candidate in a folder or in shards, or the one file; count what is none."""
    shards = shard_paths(video_folder)
    if shards is not None:
        return _entries_of_shards(dict(zip(shard_names(shards), shards, strict=True)), passed_over)
    folder = Path(video_folder)
    if not folder.is_dir():
        return [Entry(folder, folder.name)]
    if (folder / INDEX_NAME).exists():
        return [
            Entry(path_under(folder, piece.file), piece.file, piece.caption, piece.fps)
            for piece in read_index(folder).pieces()
        ]
    scan = FolderScan(folder)
    passed_over.update(scan.passed_over)
    entries = []
    for name in scan.names:
        if name.endswith(SHARD_SUFFIX):
            entries += _entries_of_shards({name: folder / name}, passed_over)
        else:
            entries.append(Entry(folder / name, name, is_named=has_media_suffix(name)))
    return entries


def _entries_of_shards(
    shards: dict[str, Path], passed_over: collections.Counter[str]
) -> list[Entry | Rejected]:
    """Return the clips of shards, given by name, and what cannot be used of them."""
    entries = []
    for shard_name, path in shards.items():
        try:
            shard = read_shard(path)
        except (OSError, ValueError) as error:
            entries.append(Rejected(shard_name, str(error)))
            continue
        entries += [
            Entry(clip.source, f"{shard_name}/{clip.source.member}", clip.caption, clip.fps)
            for clip in shard.clips
        ]
        entries += [
            Rejected(one_line(f"{shard_name}/{name}" if name else shard_name), reason)
            for name, reason in shard.rejected
        ]
        passed_over.update(shard.passed_over)
    return entries


def entries_of_csv(
    csv_path: Path, video_folder: VideoFolder | None, *, with_sources: bool
) -> list[Entry]:
    """Return every row of the table; with `with_sources` each source too, once."""
    root = Path(video_folder) if video_folder is not None else csv_path.parent
    if not root.is_dir():
        raise ValueError(f"with a CSV file, video_folder must be a folder; {root} is a file")
    table = read_video_table(csv_path)
    rows = [(row.video, row.caption.strip()) for row in table]
    if with_sources:
        videos = {row.video for row in table}
        sources = dict.fromkeys(row.source.strip() for row in table)
        rows += [(name, "") for name in sources if name and name not in videos]
    if (root / INDEX_NAME).exists():
        return _prepared_entries(root, rows)
    files = NamedFiles(root)
    found = [(files.find(name), caption) for name, caption in rows]
    return [Entry(file.path, file.name, caption) for file, caption in found]


def _prepared_entries(folder: Path, rows: list[tuple[str, str]]) -> list[Entry]:
    """Return the prepared clips of the sources that the rows of a table name."""
    sources = {composed(source.name): source for source in read_index(folder).sources.values()}
    entries = []
    for name, caption in rows:
        source = sources.get(composed(name))
        pieces = source.pieces if source is not None else ()
        entries += [
            Entry(path_under(folder, p.file), p.file, caption or p.caption, p.fps) for p in pieces
        ] or [Entry(path_under(folder, name), name, caption)]
    return entries


def left_out_when_prepared(
    csv_path: str | os.PathLike | None, video_folder: VideoFolder | None
) -> list[Rejected]:
    """Return the sources that the making of a prepared folder had to leave out."""
    if csv_path is not None or names_shards(video_folder):
        return []
    if not (Path(video_folder) / INDEX_NAME).exists():
        return []
    sources = read_index(video_folder).sources.values()
    return [Rejected(source.name, source.reason) for source in sources if not source.pieces]
