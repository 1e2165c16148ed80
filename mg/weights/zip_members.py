"""The members of a zip archive that someone else made: listed, and located in the file, warily."""

import mmap
import os
import struct
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mg.input_files import check_input_file

__all__ = ["ZIP_MAGIC", "ZipMembers"]

ZIP_MAGIC = b"PK\x03\x04"
ENCRYPTED = 0x1  # bits of an entry's flags
UTF8_NAME = 0x800
MAX_DIRECTORY_BYTES = 4 * 2**20  # about 90 bytes per member
MAX_END_BYTES = 2**16 + 22 + 76  # what may follow the directory: a comment, and where it is
# Signature, 3 x 2 bytes (version, flags, method), 16 bytes (times, CRC, sizes), two lengths.
LOCAL_HEADER = struct.Struct("<4sHHH16xHH")


@dataclass(frozen=True)
class ZipMembers:
    """A zip archive in a memory map, and its directory: names to entries, each name once.

    `limits` says for each member where the next one, or the directory, begins.
    """

    data: mmap.mmap
    entries: dict[str, zipfile.ZipInfo]
    limits: dict[str, int]

    @classmethod
    def open(cls, path: str | os.PathLike) -> "ZipMembers":
        """Return the members of the archive at `path`; nothing but its directory is read.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the directory is damaged or truncated, or names a member twice.
        """
        path = Path(path)
        check_input_file(path)
        with open(path, "rb") as file:
            _check_directory_size(file)
            try:
                with zipfile.ZipFile(file) as archive:
                    listed, directory_begin = archive.infolist(), archive.start_dir
            # On damaged archives zipfile leaks whatever its parts raise: OSError by seeking before
            # the start, struct.error, NotImplementedError, UnicodeDecodeError, ...
            except Exception as error:
                raise ValueError(
                    f"its zip directory cannot be read ({error}); it is truncated or damaged, "
                    "fetch or save it again"
                ) from error
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        entries = {entry.filename: entry for entry in listed}
        if len(entries) < len(listed):
            [(twice, _)] = Counter(entry.filename for entry in listed).most_common(1)
            raise ValueError(f"its zip directory names {twice!r} twice")
        begins = sorted(entry.header_offset for entry in listed)
        following = dict(zip(begins, [*begins[1:], directory_begin], strict=True))
        limits = {
            name: min(following[e.header_offset], directory_begin) for name, e in entries.items()
        }
        return cls(data, entries, limits)

    def locate(self, name: str) -> tuple[int, int]:
        """Return (offset, length) of an uncompressed member's content in the file.

        Raises:
            ValueError: no such member; it is compressed or encrypted; its own header contradicts
                the directory; or it reaches into the next one.
        """
        if name not in self.entries:
            raise ValueError(f"it has no member {name!r}; it is incomplete")
        entry = self.entries[name]
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise ValueError(f"its member {name!r} is compressed; weights are stored as they are")
        begin = self._content_begin(entry)
        if begin + entry.file_size > self.limits[name]:
            raise ValueError(f"its member {name!r} reaches into what follows it")
        return begin, entry.file_size

    def _content_begin(self, entry: zipfile.ZipInfo) -> int:
        """Return where a member's content begins, after checking the header before it."""
        damaged = ValueError(f"the header of its member {entry.filename!r} is damaged")
        header_end = entry.header_offset + LOCAL_HEADER.size
        if entry.header_offset < 0 or header_end > len(self.data):
            raise damaged
        header = LOCAL_HEADER.unpack(self.data[entry.header_offset : header_end])
        signature, _, flags, method, name_length, extra_length = header
        name = self.data[header_end : header_end + name_length]
        coding = "utf-8" if entry.flag_bits & UTF8_NAME else "cp437"
        if (
            signature != ZIP_MAGIC
            or (flags | entry.flag_bits) & ENCRYPTED
            or method != entry.compress_type
            or name != entry.filename.encode(coding, "replace")
        ):
            raise damaged
        return header_end + name_length + extra_length

    def check(self, name: str) -> None:
        """Raise ValueError unless the content of an uncompressed member has its checksum."""
        begin, length = self.locate(name)
        with memoryview(self.data) as view:
            actual = zlib.crc32(view[begin : begin + length])
        if actual != self.entries[name].CRC:
            raise ValueError(
                f"its member {name!r} has the checksum {actual:#010x} instead of "
                f"{self.entries[name].CRC:#010x}; it is damaged, fetch or save it again"
            )

    def read(self, name: str, *, max_bytes: int) -> bytes:
        """Return the content of an uncompressed member, checked.

        Raises:
            ValueError: as `locate` and `check`, or it is longer than `max_bytes`.
        """
        begin, length = self.locate(name)
        if length > max_bytes:
            raise ValueError(f"its member {name!r} has {length} bytes; at most {max_bytes} are due")
        self.check(name)
        return self.data[begin : begin + length]


def _check_directory_size(file: BinaryIO) -> None:
    """Raise ValueError if an archive states a directory that would fill the memory.

    Archives without a statement are left to `zipfile` to refuse.
    """
    begin = max(file.seek(0, os.SEEK_END) - MAX_END_BYTES, 0)
    file.seek(begin)
    tail = file.read()
    stated = _number_behind(tail, b"PK\x05\x06", 12, "<I")
    if stated == 0xFFFFFFFF:  # large archives state it elsewhere
        stated = _number_behind(tail, b"PK\x06\x06", 40, "<Q")
    if stated > MAX_DIRECTORY_BYTES:
        raise ValueError(
            f"its zip directory states {stated} bytes; expected at most {MAX_DIRECTORY_BYTES}"
        )


def _number_behind(tail: bytes, signature: bytes, place: int, kind: str) -> int:
    """Return the number of a `struct` format at `place` of a last record; 0 without one."""
    begin = tail.rfind(signature)
    if begin < 0 or begin + place + struct.calcsize(kind) > len(tail):
        return 0
    return struct.unpack_from(kind, tail, begin + place)[0]
