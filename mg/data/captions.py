"""Videos and their captions, from a CSV or JSONL table or a metadata.json."""

import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path

from mg.data.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from mg.files import resolve_under

__all__ = ["CaptionTable", "CaptionedVideo", "read_captions"]

# Names that such tables use; the first of them that is there is taken. Case does not matter.
VIDEO_COLUMNS = ("video", "video_path", "path", "file", "file_name", "filename", "file_path")
CAPTION_COLUMNS = ("caption", "text", "prompt", "description")


@dataclass(frozen=True)
class CaptionedVideo:
    """One row of a table. `name` is the video's path as the table writes it."""

    path: Path
    name: str
    caption: str


@dataclass(frozen=True)
class CaptionTable:
    """The rows with a caption, in the table's order, and the names of those without."""

    videos: tuple[CaptionedVideo, ...]
    without_caption: tuple[str, ...] = ()


def read_captions(
    table_path: str | os.PathLike, *, video_folder: str | os.PathLike | None = None
) -> CaptionTable:
    """Return the videos that a table names, with their captions.

    Whether the files exist is not looked at, except to complete names without a suffix. A video
    with several captions may stand in several rows.

    Args:
        table_path: a .csv or .jsonl table with a column for the path (`video`, `path`, ...) and
            one for the caption (`caption`, `text`, ...); or a .json file that maps names of videos
            to captions, or holds a list of such rows.
        video_folder: folder the paths are relative to; None: the table's own folder.

    Raises:
        FileNotFoundError: no such table or folder.
        ValueError: the file is no such table, a column is missing (the message tells which there
            are), a row has no path, a path leaves the folder, or no row has a caption.
    """
    table_path = Path(table_path)
    if not table_path.is_file():
        raise FileNotFoundError(f"no such table of captions: {table_path}")
    root = Path(video_folder) if video_folder is not None else table_path.parent
    if not root.is_dir():
        raise FileNotFoundError(f"no such video folder: {root}")
    videos, without_caption = [], []
    for place, name, caption in _read_rows(table_path):
        if not name.strip():
            raise ValueError(f"{table_path}, {place}: the path of the video is empty")
        if not caption.strip():
            without_caption.append(name)
            continue
        try:
            path = _with_suffix(resolve_under(root, name))
        except ValueError as error:
            raise ValueError(f"{table_path}, {place}: {error}") from error
        videos.append(CaptionedVideo(path, name, caption.strip()))
    if not videos:
        raise ValueError(
            f"{table_path} has no row with a caption ({len(without_caption)} rows without)"
        )
    return CaptionTable(tuple(videos), tuple(without_caption))


def _with_suffix(path: Path) -> Path:
    """Return the video or image that a path without suffix stands for, if there is one."""
    if path.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES or path.exists():
        return path
    for suffix in sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES):
        candidate = path.with_name(path.name + suffix)
        if candidate.exists():
            return candidate
    return path


def _read_rows(table_path: Path) -> list[tuple[str, str, str]]:
    """Return (where it stands, video, caption) of every row."""
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".json": _read_json}
    suffix = table_path.suffix.lower()
    if suffix not in readers:
        raise ValueError(f"captions are read from {', '.join(readers)}; not from {table_path.name}")
    try:
        columns, rows = readers[suffix](table_path)
    except (UnicodeDecodeError, csv.Error, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{table_path} cannot be read as {suffix} in UTF-8: {error}") from error
    video = _find_column(columns, VIDEO_COLUMNS, "the path of the video", table_path)
    caption = _find_column(columns, CAPTION_COLUMNS, "the caption", table_path)
    texts = []
    for place, row in rows:
        # A cell that is missing is empty.
        cells = [
            row.get(column) if row.get(column) is not None else "" for column in (video, caption)
        ]
        if not all(isinstance(cell, str) for cell in cells):
            raise ValueError(f"{table_path}, {place}: expected two texts, got {cells}")
        texts.append((place, *cells))
    return texts


def _find_column(columns: list[str], known: tuple[str, ...], what: str, table_path: Path) -> str:
    by_name = {column.strip().lower(): column for column in reversed(columns)}
    for name in known:
        if name in by_name:
            return by_name[name]
    raise ValueError(
        f"{table_path} needs a column with {what}, named {known[0]!r} (or one of "
        f"{', '.join(known[1:])}); columns found: {columns}"
    )


def _read_csv(table_path: Path) -> tuple[list[str], list[tuple[str, dict]]]:
    """Return the columns and (where it stands, row) of every row."""
    with open(table_path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        rows = []
        for row in reader:
            if None in row:  # else a caption would end at its first comma
                raise ValueError(
                    f"{table_path}, line {reader.line_num}: more cells than the header has; "
                    'put captions with commas in quotes ("...")'
                )
            rows.append((f"line {reader.line_num}", row))
        return list(reader.fieldnames or []), rows


def _read_jsonl(table_path: Path) -> tuple[list[str], list[tuple[str, dict]]]:
    """Return the columns of all rows and (where it stands, row) of every row."""
    rows = []
    lines = table_path.read_text(encoding="utf-8-sig").split("\n")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            rows.append((f"line {number}", json.loads(line)))
    return _columns(rows, table_path), rows


def _read_json(table_path: Path) -> tuple[list[str], list[tuple[str, dict]]]:
    """Return the columns of all rows and (where it stands, row) of every row."""
    content = json.loads(table_path.read_text(encoding="utf-8-sig"))
    if isinstance(content, dict):
        content = [{"video": name, "caption": caption} for name, caption in content.items()]
    if not isinstance(content, list):
        raise ValueError(
            f"{table_path}: expected a mapping of videos to captions, or a list of rows"
        )
    rows = [(f"entry {number}", row) for number, row in enumerate(content, start=1)]
    return _columns(rows, table_path), rows


def _columns(rows: list[tuple[str, object]], table_path: Path) -> list[str]:
    """Return the names of all columns that rows of JSON have, in order."""
    for place, row in rows:
        if not isinstance(row, dict):
            raise ValueError(
                f"{table_path}, {place}: expected an object with a video and a caption, got {row!r}"
            )
    return list(dict.fromkeys(column for _, row in rows for column in row))
