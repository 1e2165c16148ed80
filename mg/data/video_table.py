"""Tables of videos, with or without captions: read from CSV, JSONL, JSON, written as CSV, JSON."""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from mg.console import one_line
from mg.files import open_regular_file, write_text
from mg.json_file import parse_json, read_json

__all__ = ["MAX_CHARACTERS", "VideoRow", "read_video_table", "write_video_table"]

# Names that such tables use; the first of them that is there is taken. Case does not matter.
VIDEO_COLUMNS = ("video", "video_path", "path", "file", "file_name", "filename", "file_path")
CAPTION_COLUMNS = ("caption", "text", "prompt", "description")
SOURCE_COLUMNS = ("source", "source_video", "source_path")
MAX_CHARACTERS = 131_072  # of a cell; Python's reader of CSV has the same limit
MAX_LINE = 1 << 21  # characters; what has no ends of lines must not fill the memory
MAX_JSON_BYTES = 1 << 26  # of a table that is in memory as a whole; CSV and JSONL have no limit


class VideoRow(NamedTuple):
    """One row of a table: where it stands, and its cells; one that is missing is empty."""

    place: str
    video: str
    caption: str
    source: str  # the video that `video` was made from, if it is an edit


def read_video_table(table_path: Path, *, needs_captions: bool = False) -> list[VideoRow]:
    """Return every row.

    Args:
        table_path: a .csv or .jsonl table with a column for the path (`video`, `path`, ...), one
            for the caption (`caption`, `text`, ...) and perhaps one for the video that it is an
            edit of (`source`); or a .json file that maps names of videos to captions, or holds a
            list of such rows.
        needs_captions: whether a table without captions is refused.

    Raises:
        FileNotFoundError: no such table.
        ValueError: the file is not such a table, or a column is missing (the message tells which
            there are); a row of a CSV has more cells than its header, such as those that commas
            without quotes make, or a quote that is never closed; a cell is too long or no text;
            the path of a video is empty.
    """
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".json": _read_json}
    suffix = table_path.suffix.lower()
    if suffix not in readers:
        raise ValueError(f"tables are read from {', '.join(readers)}; not from {table_path.name}")
    try:
        columns, rows = readers[suffix](table_path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{table_path} cannot be read as {suffix} in UTF-8: {error}") from error
    there = set(_by_name(columns))
    wanted = [_find_column(columns, VIDEO_COLUMNS, "the path of the video", table_path)]
    for names, what, is_needed in (
        (CAPTION_COLUMNS, "the caption", needs_captions),
        (SOURCE_COLUMNS, "the source", False),
    ):
        if is_needed or set(names) & there:
            wanted.append(_find_column(columns, names, what, table_path))
        else:
            wanted.append(None)
    found = []
    for place, row in rows:
        cells = ["" if row.get(column) is None else row[column] for column in wanted]
        _check_cells(cells, f"{table_path}, {place}")
        found.append(VideoRow(place, *cells))
    return found


def write_video_table(
    path: str | os.PathLike,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    overwrite: bool = False,
) -> None:
    """Write a table of videos that `read_video_table` reads, all of it or nothing.

    Args:
        path: of the table, a CSV; one that ends in .json maps videos to captions, or holds a list
            of rows where there are more columns.
        columns: its header, such as ("video", "caption").
        rows: the cells of each row.
        overwrite: whether an existing table may be replaced.

    Raises:
        FileExistsError: `path` exists and `overwrite` is false.
    """
    if Path(path).suffix.lower() == ".json":
        rows = list(rows)
        content = [dict(zip(columns, row, strict=True)) for row in rows]
        if tuple(columns) == ("video", "caption"):
            content = dict(rows)
        write_text(path, json.dumps(content, indent=2) + "\n", overwrite=overwrite)
        return
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    write_text(path, text.getvalue(), overwrite=overwrite)


def _check_cells(cells: list, place: str) -> None:
    """Raise ValueError unless these are the path of a video, a caption and a source."""
    if not all(isinstance(cell, str) for cell in cells):
        shown = cells if cells[2] else cells[:2]
        numbers = "three" if cells[2] else "two"
        raise ValueError(f"{place}: expected {numbers} texts, got {one_line(shown)}")
    if not cells[0].strip():
        raise ValueError(f"{place}: the path of the video is empty")
    longest = max(map(len, cells))
    if longest > MAX_CHARACTERS:
        raise ValueError(
            f"{place}: a cell of {longest} characters; at most {MAX_CHARACTERS} are read"
        )


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


def _open_text(table_path: Path) -> TextIO:
    return io.TextIOWrapper(open_regular_file(table_path), encoding="utf-8-sig", newline="")


def _lines(file: TextIO, table_path: Path) -> Iterator[str]:
    """Yield the lines of a text, each with its end."""
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        if len(line) == MAX_LINE:
            raise ValueError(f"{table_path}, line {number}: {MAX_LINE} characters or more in it")
        yield line


def _read_csv(table_path: Path) -> tuple[list[str], list[tuple[str, dict]]]:
    """Return the columns and (where it stands, row) of every row."""
    with _open_text(table_path) as file:
        lines = _csv_rows(file, table_path)
        _, columns = next(lines, ("", []))
        rows = []
        for place, cells in lines:
            if len(cells) > len(columns):  # else a caption would end at its first comma
                raise ValueError(
                    f"{table_path}, {place}: more cells than the header has; "
                    'put captions with commas in quotes ("...")'
                )
            rows.append((place, dict(zip(columns, cells, strict=False))))
    return columns, rows


def _csv_rows(file: TextIO, table_path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield (where it begins, cells) of every row that is not empty."""
    csv.field_size_limit(MAX_CHARACTERS)  # which other packages may have changed
    reader = csv.reader(_lines(file, table_path), strict=True)
    while True:
        first_line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            place = f"{table_path}, line {first_line}"
            raise ValueError(f"{place}: {_csv_fault(error, reader.line_num)}") from error
        if cells is None:
            return
        if cells:
            yield f"line {first_line}", cells


def _csv_fault(error: csv.Error, line: int) -> str:
    """Return what is wrong with a row of a CSV that Python's reader refuses, and where it ends."""
    message = str(error)
    if "unexpected end of data" in message:
        return 'a quote (") that opens in this row is never closed'
    if "expected after" in message:
        return (
            f'text follows a closing quote (") in line {line}: close the quote that opens in this '
            'row where its text ends, and write quotes inside of it twice ("")'
        )
    if "field limit" in message:
        return (
            f"a cell of more than {csv.field_size_limit()} characters, the most that is read; "
            'is a quote (") never closed?'
        )
    return f"cannot be read as .csv: {message}"


def _read_jsonl(table_path: Path) -> tuple[list[str], list[tuple[str, dict]]]:
    """Return the columns of all rows and (where it stands, row) of every row."""
    with _open_text(table_path) as file:
        rows = [
            (f"line {number}", parse_json(line, f"{table_path}, line {number}"))
            for number, line in enumerate(_lines(file, table_path), start=1)
            if line.strip()
        ]
    return _columns(rows, table_path), rows


def _read_json(table_path: Path) -> tuple[list[str], list[tuple[str, dict]]]:
    """Return the columns of all rows and (where it stands, row) of every row."""
    content = read_json(table_path, max_bytes=MAX_JSON_BYTES)
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
                f"{table_path}, {place}: expected an object with a video and a caption, "
                f"got {one_line(repr(row))}"
            )
    return list(dict.fromkeys(column for _, row in rows for column in row))
