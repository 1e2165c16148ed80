"""Opening a video file: which containers, which of its streams, how large its frames may be."""

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO

import av
from av.codec.context import Flags
from av.stream import Disposition

from mg.data.media_rules import DEMUXERS, BrokenVideoError, NoMediaError, Reading
from mg.data.media_source import MediaSource, TarMember, open_media

__all__ = ["open_container", "reason_of_decoder", "stream_note"]

# Streams that hold single pictures beside the film: covers, thumbnails, parts of a large image.
PICTURES = (
    Disposition.attached_pic
    | Disposition.timed_thumbnails
    | Disposition.still_image
    | Disposition.dependent
)
# How files begin that name other files, or addresses, to be played.
LIST_STARTS = (b"ffconcat", b"#EXTM3U", b"<?xml", b"<MPD", b"[playlist]")

ALLOWED = {"protocol_whitelist": "file", "format_whitelist": ",".join(DEMUXERS)}
# With these FFmpeg says what the headers state, and neither waits for frames nor decodes any.
HEADERS_ONLY = {
    "codec_whitelist": "none",
    "probesize": "32",
    "analyzeduration": "0",
    "max_ts_probe": "0",
    "fpsprobesize": "0",
}
MAX_HEADER_BYTES = 1 << 24


@contextlib.contextmanager
def open_container(path: MediaSource, reading: Reading) -> Iterator[tuple]:
    """Yield (container, video stream); FFmpeg's errors become BrokenVideoError.

    The format is found by the content, before anything else is opened, and must be one of
    `DEMUXERS`. The stream is the one that players show: marked as default, then the largest, then
    the first; covers and thumbnails are passed over.

    Raises:
        NoMediaError: no such container, or no video in it.
        BrokenVideoError: its index is missing, the codec is unknown, or the frames are too large.
    """
    _check_stated_size(path, reading)
    # The limit is for the decoders that look at the first frames.
    options = ALLOWED | {"max_pixels": str(reading.max_pixels)}
    with contextlib.ExitStack() as stack:
        if isinstance(path, TarMember):
            opened = stack.enter_context(path.open())
        else:
            opened = os.path.abspath(path)  # which FFmpeg cannot take for an address
        try:
            container = stack.enter_context(av.open(opened, options=options))
        except av.FFmpegError as error:
            raise _not_opened(path, error) from error
        streams = _films(container)
        if not streams:
            kinds = sorted({s.type for s in container.streams}) or ["none"]
            raise NoMediaError(
                f"{path.name}: no video in this file (streams found: {', '.join(kinds)})"
            )
        stream = _chosen(streams)
        if stream.codec_context is None:
            raise BrokenVideoError(f"{path.name}: its video codec is unknown")
        reading.check_pixels(path, *_size(stream))
        stream.codec_context.options = {"max_pixels": str(reading.max_pixels)}
        # Else the left edge that a stream says to crop is kept where memory is better aligned so.
        stream.codec_context.flags |= Flags.unaligned
        yield container, stream


def _not_opened(path: MediaSource, error: av.FFmpegError) -> BrokenVideoError:
    """Return the error to raise for a file that FFmpeg does not open."""
    with open_media(path) as file:
        head = file.read(16).lstrip()
    if head.startswith(LIST_STARTS):
        return NoMediaError(f"{path.name}: not a video but a list of other files, never opened")
    if isinstance(error, av.ArgumentError):  # what a format that is not allowed gives
        return NoMediaError(f"{path.name}: not a video or image of a format that is read")
    return NoMediaError(
        f"{path.name}: not a video or image, or cut off before its index "
        f"({reason_of_decoder(error)})"
    )


class _Head:
    """The first bytes of a file that FFmpeg asks for, up to `MAX_HEADER_BYTES`; then its end."""

    def __init__(self, file: BinaryIO):
        self.seek, self.tell = file.seek, file.tell
        self._file, self._num_left = file, MAX_HEADER_BYTES

    def read(self, num_bytes: int) -> bytes:
        content = self._file.read(min(num_bytes, self._num_left))
        self._num_left -= len(content)
        return content


def _check_stated_size(path: MediaSource, reading: Reading) -> None:
    """Raise BrokenVideoError if the headers state frames that are too large.

    To be asked before FFmpeg opens a file by itself: it reads a frame then, which of raw video is
    as large as the picture. Of what has no such headers nothing is said.
    """
    with (
        open_media(path) as file,
        contextlib.suppress(av.FFmpegError),
        av.open(_Head(file), options=ALLOWED | HEADERS_ONLY) as container,
    ):
        streams = _films(container)
        if streams:
            reading.check_pixels(path, *_size(_chosen(streams)))


def _films(container) -> list:
    """Return the streams of video that are not pictures beside it."""
    return [s for s in container.streams.video if not s.disposition & PICTURES]


def _chosen(streams: list) -> av.VideoStream:
    """Return the stream that players show."""

    def rank(stream) -> tuple[bool, int]:
        height, width = _size(stream)
        return bool(stream.disposition & Disposition.default), height * width

    return max(streams, key=rank)


def _size(stream) -> tuple[int, int]:
    """Return (height, width) of a stream as far as FFmpeg knows it, else zeros."""
    context = stream.codec_context
    return (context.height, context.width) if context is not None else (0, 0)


def stream_note(container, stream) -> tuple[str, ...]:
    """Return what to tell of a stream that is one of several videos in its container."""
    streams = _films(container)
    if len(streams) == 1:
        return ()
    return (f"video stream {streams.index(stream) + 1} of {len(streams)}",)


def reason_of_decoder(error: av.FFmpegError) -> str:
    """Return FFmpeg's own words for a fault."""
    return error.strerror or type(error).__name__
