"""The files in a tar and where their bytes stand, found once, so that each is read by its place.

Tars come from anywhere. Only headers are read here, each of a bounded size; what is not a plain
file (links, devices, sparse files) is reported and never followed, and names are only names.
"""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from mg.console import one_line
from mg.data.media_source import MediaState, TarMember
from mg.files import open_regular_file

__all__ = ["SHARD_SUFFIX", "TarIndex", "index_tar"]

SHARD_SUFFIX = ".tar"
MAX_MEMBERS = 1 << 18
MAX_HEADER_BYTES = 1 << 16  # a long name; nothing in a header is larger
COMPRESSED_STARTS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")


class TarIndex(NamedTuple):
    """What a tar holds: plain files in their order, and (name, reason) of what cannot be used."""

    members: list[TarMember]
    rejected: list[tuple[str, str]]


def index_tar(path: Path) -> TarIndex:
    """Return the plain files of a tar. What is whole in a damaged one is there.

    Raises:
        FileNotFoundError: no such tar.
        OSError: it may not be read.
    """
    members: dict[str, TarMember] = {}
    rejected: list[tuple[str, str]] = []
    with open_regular_file(path) as file:
        status = os.fstat(file.fileno())
        state = MediaState(status.st_size, status.st_mtime_ns)
        try:
            for info in _headers(file):
                name = info.name.removeprefix("./")
                reason = _fault(info, state.num_bytes)
                if reason is None and name in members:
                    reason = "a second member of this name"
                if reason is not None:
                    rejected.append((name, reason))
                elif info.isreg():
                    place = info.offset_data, info.size
                    members[name] = TarMember(path, name, *place, state)
        except Exception as error:  # Python's reader raises all kinds of errors
            rejected.append(("", f"damaged after {len(members)} files: {one_line(error)}"))
    return TarIndex(list(members.values()), rejected)


def _headers(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Yield what stands in a tar, its end checked.

    Raises:
        ValueError: it is not a tar, compressed, or damaged.
    """
    if file.read(6).startswith(COMPRESSED_STARTS):
        raise ValueError("a compressed tar; unpack it (such as with gunzip) to read it by places")
    file.seek(0)
    end = number = 0
    with tarfile.open(fileobj=_SmallReads(file), mode="r:") as tar:
        while (info := tar.next()) is not None:
            number += 1
            if number > MAX_MEMBERS:
                raise ValueError(f"more than {MAX_MEMBERS} members; write several tars")
            if info.size < 0 or info.offset_data < end:  # else it could lead round in circles
                raise ValueError(f"the header of {one_line(info.name)} leads backwards")
            end = info.offset_data + 1
            yield info
        # Python takes any bytes that are not a header for the end.
        file.seek(tar.offset)
        if any(file.read(tarfile.BLOCKSIZE)):
            raise ValueError(f"no header of a member at byte {tar.offset}")


def _fault(info: tarfile.TarInfo, num_bytes: int) -> str | None:
    """Return why a member cannot be used, if so."""
    path = PurePosixPath(info.name)
    if info.isdir():
        return None
    if not info.isreg() or info.issparse():
        return "a link, a device or a sparse file; only plain files are read from a tar"
    if path.is_absolute() or ".." in path.parts or "\\" in info.name or "\0" in info.name:
        return "its name leads out of the tar; names are relative, with / between folders"
    missing = info.offset_data + info.size - num_bytes
    if missing > 0:
        return f"cut off: {missing} of {info.size} bytes are missing"
    return None


class _SmallReads:
    """A file whose headers are read, none of them larger than a header may be."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, num_bytes: int = -1) -> bytes:
        if not 0 <= num_bytes <= MAX_HEADER_BYTES:
            raise ValueError(f"a header of {num_bytes} bytes; at most {MAX_HEADER_BYTES} are read")
        return self._file.read(num_bytes)
