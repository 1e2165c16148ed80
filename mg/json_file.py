"""JSON that others wrote, read within bounds: size, depth, numbers; each key once; regular files.

All JSON that comes from files goes through here. Every fault is a ValueError of one line.
"""

import json
import math
import os
import re
from typing import Any

import numpy as np

from mg.console import one_line
from mg.files import read_bytes

__all__ = ["MAX_BYTES", "parse_json", "read_json", "read_json_object"]

MAX_BYTES = 1 << 20  # of a config or record; they take up to about 25 times that in memory
MAX_DEPTH = 64
MAX_DIGITS = 20  # of whole numbers: 2**64 has 20

STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
OPENING, CLOSING = list(b"[{"), list(b"]}")


def read_json(path: str | os.PathLike, *, max_bytes: int = MAX_BYTES) -> Any:
    """Return the content of a JSON file.

    Args:
        path: of a regular file, UTF-8 with or without byte order mark.
        max_bytes: size that is not exceeded; memory grows with the file, so lists of very many
            things may be given more.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no regular file, too large, or as `parse_json`.
        OSError: it cannot be read.
    """
    return parse_json(read_bytes(path, max_bytes=max_bytes), path, max_bytes=max_bytes)


def read_json_object(path: str | os.PathLike, *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Return the content of a JSON file that holds an object.

    Raises:
        FileNotFoundError, OSError: as `read_json`.
        ValueError: as `read_json`, or the file holds something else, such as a list.
    """
    content = read_json(path, max_bytes=max_bytes)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object ({{...}}); found {one_line(repr(content))}")
    return content


def parse_json(text: str | bytes, place: str | os.PathLike, *, max_bytes: int = MAX_BYTES) -> Any:
    """Return what a JSON text says.

    Args:
        text: the whole of it; bytes are UTF-8.
        place: where it stands, for messages.
        max_bytes: as `read_json`.

    Raises:
        ValueError: no JSON; too large; a key twice in one object; nested deeper than 64 levels; a
            number that is not finite or has more than 20 digits.
    """
    if len(text) > max_bytes:
        raise ValueError(f"{place} has more than {max_bytes} bytes of JSON, the most read here")
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        _check_depth(text)
        return json.loads(
            text,
            object_pairs_hook=_each_key_once,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"{place} is not UTF-8: {error.reason}") from None
    except ValueError as error:
        raise ValueError(f"{place} is not JSON that can be read: {one_line(error)}") from None


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"it has {one_line(twice)!r} twice")
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(f"the number {name} is not finite")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {one_line(digits)} is not finite")
    return number


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS + 1:  # with a sign
        raise ValueError(f"a number has {len(digits)} digits; at most {MAX_DIGITS} are due")
    return int(digits)


def _check_depth(text: str) -> None:
    """Raise ValueError unless lists and objects are nested in at most `MAX_DEPTH` levels.

    Before they are parsed: how deep Python's parser goes depends on settings of the process.
    """
    bytes_outside = np.frombuffer(STRING.sub("", text).encode("utf-8", "replace"), np.uint8)
    steps = np.isin(bytes_outside, OPENING).astype(np.int32) - np.isin(bytes_outside, CLOSING)
    if np.max(np.cumsum(steps), initial=0) > MAX_DEPTH:
        raise ValueError(f"it is nested too deeply: more than {MAX_DEPTH} levels")
