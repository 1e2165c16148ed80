"""Where the bytes of a video or an image stand: a file of its own, or a stretch of a tar."""

import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from mg.files import open_regular_file

__all__ = ["MediaSource", "MediaState", "TarMember", "media_state", "open_media"]


class MediaState(NamedTuple):
    """What tells, without reading it, whether a source is still the same."""

    num_bytes: int
    mtime_ns: int


@dataclass(frozen=True, order=True)
class TarMember:
    """One file of a tar, read where it stands; nothing is ever unpacked.

    Attributes:
        shard: the tar.
        member: path inside of it; a name only, never that of a file on the disk.
        offset, num_bytes: where its content stands in the tar.
        shard_state: the tar's, as it was when its members were listed.
    """

    shard: Path
    member: str
    offset: int
    num_bytes: int
    shard_state: MediaState

    def __str__(self) -> str:
        return f"{self.shard}/{self.member}"

    @property
    def name(self) -> str:
        """Last part of the path inside the tar."""
        return PurePosixPath(self.member).name

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePosixPath(self.member).stem

    @property
    def suffix(self) -> str:
        """Suffix of the name, with its dot."""
        return PurePosixPath(self.member).suffix

    def resolve(self) -> "TarMember":
        """Return the same member, the tar by its real path."""
        return TarMember(
            self.shard.resolve(), self.member, self.offset, self.num_bytes, self.shard_state
        )

    def open(self) -> BinaryIO:
        """Return the content as an open file.

        Raises:
            FileNotFoundError: the tar is gone.
            ValueError: it has changed since its members were listed.
        """
        if media_state(self.shard) != self.shard_state:
            raise ValueError(
                f"{self.shard.name} has changed since its members were listed; start again"
            )
        return io.BufferedReader(_Stretch(self))


MediaSource = Path | TarMember


def open_media(source: MediaSource) -> BinaryIO:
    """Return the content of a source as an open file.

    Raises:
        FileNotFoundError, ValueError, OSError: as `open_regular_file` and `TarMember.open`.
    """
    return source.open() if isinstance(source, TarMember) else open_regular_file(source)


def media_state(source: MediaSource) -> MediaState:
    """Return size and time of a source; a member has the time of its tar.

    Raises:
        FileNotFoundError: it is gone.
    """
    if isinstance(source, TarMember):
        return MediaState(source.num_bytes, media_state(source.shard).mtime_ns)
    status = source.stat()
    return MediaState(status.st_size, status.st_mtime_ns)


class _Stretch(io.RawIOBase):
    """The bytes of one member, as a file of its own."""

    def __init__(self, member: TarMember) -> None:
        self.name = f"/{member.name}"  # not to be taken for an address by FFmpeg
        self._file = open_regular_file(member.shard)
        self._begin, self._size, self._place = member.offset, member.num_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, begin + offset)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer) -> int:
        view = memoryview(buffer)[: max(0, self._size - self._place)]
        self._file.seek(self._begin + self._place)
        num_read = self._file.readinto(view)
        self._place += num_read
        return num_read

    def close(self) -> None:
        self._file.close()
        super().close()
