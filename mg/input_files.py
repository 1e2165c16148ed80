"""Files that come from outside, told what they are before they are read: no wait, no flood.

A pipe would wait for ever, a device never ends, and a small JSON text may be nested so deeply that
its reader fails. What often is saved in place of a file, a Git LFS pointer or a web page, is called
what it is.
"""

import json
import math
import os
import re
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["check_input_file", "parse_json", "read_json", "without_repeats"]

MAX_JSON_BYTES = 4 * 2**20  # the index of the largest published checkpoints has less than 2 MB
MAX_JSON_DEPTH = 32
NUM_HEAD_BYTES = 512
MAX_SHOWN = 60
STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
GIT_LFS = b"version https://git-lfs"
# Enough letters that no length at the beginning of a safetensors file can be taken for them.
WEB_PAGE = re.compile(rb"<(!doctype|!--|\?xml|html|head|body|script|title|meta)", re.IGNORECASE)


def check_input_file(path: str | os.PathLike) -> None:
    """Raise an error unless a path is a plain file, or a link to one, and what it seems to be.

    Raises:
        FileNotFoundError: there is nothing of that name.
        ValueError: it is a folder, a pipe, a socket or a device; or a Git LFS pointer or a web page
            in place of the file.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"not found: {path} does not exist") from None
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "no plain file")
        raise ValueError(f"{path} is {kind}; a plain file is expected here")
    _refuse_placeholder(path)


def _refuse_placeholder(path: str | os.PathLike) -> None:
    with open(path, "rb") as file:
        head = file.read(NUM_HEAD_BYTES)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(GIT_LFS):
        raise ValueError(
            f"{path} is a Git LFS pointer, not the file itself; fetch the file with `git lfs pull`,"
            " or download it again"
        )
    if WEB_PAGE.match(text):
        raise ValueError(
            f"{path} is a web page, not the file itself; download it again, by the link to the raw "
            "file"
        )


def read_json(path: str | os.PathLike, *, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Return what a JSON file holds, read within bounds of time and memory.

    Args:
        path: the file.
        max_bytes: a longer file is refused.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as `check_input_file` and `parse_json`; or it is too long.
    """
    check_input_file(path)
    with open(path, "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"{path} has more than {max_bytes} bytes, too many for such a JSON file")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    return parse_json(text, path)


def parse_json(text: str, place: str | Path) -> Any:
    """Return the value of a JSON text of moderate depth.

    Args:
        text: the JSON.
        place: where it stands, for messages.

    Raises:
        ValueError: no JSON; a key twice in an object; a number that is not finite; or more than
            `MAX_JSON_DEPTH` lists and objects inside one another.
    """
    _check_depth(text, place)
    try:
        return json.loads(
            text,
            object_pairs_hook=without_repeats,
            parse_constant=_finite,
            parse_float=_finite,
        )
    except ValueError as error:
        raise ValueError(f"{place} is not JSON: {error}") from error


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dict; a repeated key, which readers take as they like, fails."""
    found = dict(pairs)
    if len(found) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"it has {twice[:MAX_SHOWN]!r} twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"it has the number {text[:MAX_SHOWN]}, which is not finite")
    return number


def _check_depth(text: str, place: str | Path) -> None:
    """Raise ValueError for a text of too many brackets inside one another, before it is parsed.

    How deep a parser may go is set for the whole process, by packages too: beyond, it crashes.
    """
    characters = np.frombuffer(STRING.sub("", text).encode("ascii", "replace"), np.uint8)
    opening = (characters == ord("[")) | (characters == ord("{"))
    closing = (characters == ord("]")) | (characters == ord("}"))
    depth = np.cumsum(opening.astype(np.int8) - closing.astype(np.int8), dtype=np.int32)
    if depth.max(initial=0) > MAX_JSON_DEPTH:
        raise ValueError(
            f"{place} has more than {MAX_JSON_DEPTH} lists and objects inside one another; it is "
            "damaged, or made to do harm"
        )
