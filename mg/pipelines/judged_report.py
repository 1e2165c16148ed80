"""The files of a report on judged clips: a table, all judgements as JSON, and a contact sheet."""

import os
from pathlib import Path

from mg.files import check_writable_folder

__all__ = ["REPORT_FILES", "check_report_folder"]

REPORT_FILES = ("report.json", "report.md", "contact_sheet.png")


def check_report_folder(folder: str | os.PathLike, *, overwrite: bool) -> None:
    """Raise unless a report may be written.

    Raises:
        FileExistsError: there is one and `overwrite` is false.
        OSError: the folder cannot be written to.
    """
    check_writable_folder(folder)
    there = [name for name in REPORT_FILES if (Path(folder) / name).exists()]
    if there and not overwrite:
        raise FileExistsError(
            f"{Path(folder) / there[0]} exists already; choose another folder or pass --overwrite"
        )
