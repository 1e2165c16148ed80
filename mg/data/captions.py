"""Videos and their captions, from a CSV or JSONL table or a metadata.json."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mg.data.table_names import NamedFiles
from mg.data.video_table import read_video_table, write_video_table

__all__ = ["CaptionTable", "CaptionedVideo", "add_captions", "read_captions"]


@dataclass(frozen=True)
class CaptionedVideo:
    """One row of a table. `name` is the video's path as the table writes it, as is `source`."""

    path: Path
    name: str
    caption: str
    source: str | None = None  # the video that it is an edit of


@dataclass(frozen=True)
class CaptionTable:
    """The rows with a caption, in the table's order, and the names of those without."""

    videos: tuple[CaptionedVideo, ...]
    without_caption: tuple[str, ...] = ()


def read_captions(
    table_path: str | os.PathLike, *, video_folder: str | os.PathLike | None = None
) -> CaptionTable:
    """Return the videos that a table names, with their captions.

    The files need not exist; names are matched to those that do (`mg.data.table_names`). A video
    with several captions may stand in several rows.

    Args:
        table_path: as `mg.data.video_table.read_video_table` reads it.
        video_folder: folder the paths are relative to; None: the table's own folder.

    Raises:
        FileNotFoundError: no such table or folder.
        ValueError: the file is not such a table, a column is missing (the message tells which there
            are), a row has no path, a path leaves the folder, or no row has a caption.
    """
    table_path = Path(table_path)
    if not table_path.exists():
        raise FileNotFoundError(f"no such table of captions: {table_path}")
    root = Path(video_folder) if video_folder is not None else table_path.parent
    if not root.is_dir():
        raise FileNotFoundError(f"no such video folder: {root}")
    videos, without_caption = [], []
    files = NamedFiles(root)
    for place, name, caption, source in read_video_table(table_path, needs_captions=True):
        if not caption.strip():
            without_caption.append(name)
            continue
        try:
            path = files.find(name).path
        except ValueError as error:
            raise ValueError(f"{table_path}, {place}: {error}") from error
        videos.append(CaptionedVideo(path, name, caption.strip(), source.strip() or None))
    if not videos:
        raise ValueError(
            f"{table_path} has no row with a caption ({len(without_caption)} rows without)"
        )
    return CaptionTable(tuple(videos), tuple(without_caption))


def add_captions(table_path: str | os.PathLike, captions: Mapping[str, str]) -> None:
    """Write captions into a table; rows of other videos that it has stay.

    Args:
        table_path: a .csv that this function wrote before, or a new one.
        captions: of videos, by their names.

    Raises:
        ValueError: a table is there that cannot be read.
    """
    table_path, rows = Path(table_path), {}
    if table_path.exists():
        rows = {row.video: row.caption for row in read_video_table(table_path, needs_captions=True)}
    write_video_table(
        table_path, ("video", "caption"), {**rows, **captions}.items(), overwrite=True
    )
