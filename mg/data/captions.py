"""Tables of captions: what each video shows, as CSV or as one JSON object per line."""

import csv
import json
import os
from pathlib import Path
from typing import NamedTuple

__all__ = ["CaptionRow", "captions_by_video", "read_captions"]


class CaptionRow(NamedTuple):
    """One row: path of the video relative to its folder ("" where the table has none), caption."""

    video: str
    caption: str


def read_captions(path: str | os.PathLike) -> list[CaptionRow]:
    """Return the rows of a table with the column `caption` and, if it has one, `video`.

    Args:
        path: `.jsonl`, else CSV, both in UTF-8.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be read, has no column `caption`, or a row without a caption.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such table of captions: {path}")
    try:
        rows = _rows_of_jsonl(path) if path.suffix == ".jsonl" else _rows_of_csv(path)
    except (UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read as a table in UTF-8: {error}") from error
    found = []
    for number, row in enumerate(rows, start=1):
        caption, video = row.get("caption"), row.get("video") or ""
        if not isinstance(caption, str) or not caption.strip() or not isinstance(video, str):
            raise ValueError(
                f"{path}: row {number} has no caption in a column `caption`; it holds {row}"
            )
        found.append(CaptionRow(video, caption.strip()))
    return found


def captions_by_video(path: str | os.PathLike) -> dict[str, str]:
    """Return {video: caption} of a table with both columns.

    Raises:
        FileNotFoundError, ValueError: as `read_captions`; or a row without a video, or two
            captions of one video.
    """
    captions: dict[str, str] = {}
    for number, row in enumerate(read_captions(path), start=1):
        if not row.video:
            raise ValueError(f"{path}: row {number} has no video in a column `video`")
        if captions.setdefault(row.video, row.caption) != row.caption:
            raise ValueError(f"{path}: {row.video} has two captions; leave one")
    return captions


def _rows_of_csv(path: Path) -> list[dict]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or [])
        if "caption" not in columns:
            raise ValueError(f"{path} needs a column `caption`; columns found: {columns}")
        return list(reader)


def _rows_of_jsonl(path: Path) -> list[dict]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: expected one JSON object per line")
    return rows
