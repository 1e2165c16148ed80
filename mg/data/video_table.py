"""Rows of a table of videos, with or without captions: CSV, JSONL or JSON."""

import csv
import json
from pathlib import Path

from mg.data.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from mg.files import resolve_under

__all__ = ["full_name", "read_video_table"]

# Names that such tables use; the first of them that is there is taken. Case does not matter.
VIDEO_COLUMNS = ("video", "video_path", "path", "file", "file_name", "filename", "file_path")
CAPTION_COLUMNS = ("caption", "text", "prompt", "description")


def read_video_table(
    table_path: Path, *, needs_captions: bool = False
) -> list[tuple[str, str, str]]:
    """Return (where it stands, video, caption) of every row; a cell that is missing is empty.

    Args:
        table_path: a .csv or .jsonl table with a column for the path (`video`, `path`, ...) and
            one for the caption (`caption`, `text`, ...); or a .json file that maps names of videos
            to captions, or holds a list of such rows.
        needs_captions: whether a table without captions, and rows of a CSV with more cells than its
            header, are refused.

    Raises:
        ValueError: the file is no such table, or a column is missing (the message tells which
            there are).
    """
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".json": _read_json}
    suffix = table_path.suffix.lower()
    if suffix not in readers:
        raise ValueError(f"tables are read from {', '.join(readers)}; not from {table_path.name}")
    try:
        columns, rows = readers[suffix](table_path)
    except (UnicodeDecodeError, csv.Error, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{table_path} cannot be read as {suffix} in UTF-8: {error}") from error
    wanted = [_find_column(columns, VIDEO_COLUMNS, "the path of the video", table_path)]
    if needs_captions or set(CAPTION_COLUMNS) & set(_by_name(columns)):
        wanted.append(_find_column(columns, CAPTION_COLUMNS, "the caption", table_path))
    texts = []
    for place, row in rows:
        if needs_captions and None in row:  # else a caption would end at its first comma
            raise ValueError(
                f"{table_path}, {place}: more cells than the header has; "
                'put captions with commas in quotes ("...")'
            )
        cells = [row.get(column) if row.get(column) is not None else "" for column in wanted]
        if not all(isinstance(cell, str) for cell in cells):
            raise ValueError(f"{table_path}, {place}: expected two texts, got {cells}")
        video, caption = (*cells, "")[:2]
        texts.append((place, video, caption))
    return texts


def full_name(root: Path, name: str) -> str:
    """Return the name of a video in a table, with the suffix that it may lack there.

    A name without suffix stands for the video or image of that name in `root`, if there is one.

    Raises:
        ValueError: the path leaves `root`.
    """
    path = resolve_under(root, name)
    if path.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES or path.exists():
        return name
    suffixes = sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES)
    there = (suffix for suffix in suffixes if path.with_name(path.name + suffix).exists())
    return name + next(there, "")


def _by_name(columns: list[str]) -> dict[str, str]:
    """Return the columns by their names in lower case; of several the first."""
    return {column.strip().lower(): column for column in reversed(columns)}


def _find_column(columns: list[str], known: tuple[str, ...], what: str, table_path: Path) -> str:
    by_name = _by_name(columns)
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
        rows = [(f"line {reader.line_num}", row) for row in reader]
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
