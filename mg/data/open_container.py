"""Opening a video file: which containers, which of its streams, how large its frames may be."""

import contextlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import av
from av.codec.context import Flags
from av.stream import Disposition

from mg.data.media_rules import DEMUXERS, BrokenVideoError, NoMediaError, Reading
from mg.files import open_regular_file

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


@contextlib.contextmanager
def open_container(path: Path, reading: Reading) -> Iterator[tuple]:
    """Yield (container, video stream); FFmpeg's errors become BrokenVideoError.

    The format is found by the content, before anything else is opened, and must be one of
    `DEMUXERS`. The stream is the one that players show: marked as default, then the largest, then
    the first; covers and thumbnails are passed over.

    Raises:
        NoMediaError: no such container, or no video in it.
        BrokenVideoError: its index is missing, the codec is unknown, or the frames are too large.
    """
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": ",".join(DEMUXERS),
        "max_pixels": str(reading.max_pixels),  # for the decoders that look at the first frames
    }
    try:
        # An absolute path keeps FFmpeg from taking a name for an address.
        container = av.open(os.path.abspath(path), options=options)
    except av.FFmpegError as error:
        raise _not_opened(path, error) from error
    with container:
        streams = [s for s in container.streams.video if not s.disposition & PICTURES]
        if not streams:
            kinds = sorted({s.type for s in container.streams}) or ["none"]
            raise NoMediaError(
                f"{path.name}: no video in this file (streams found: {', '.join(kinds)})"
            )
        stream = _chosen(streams)
        if stream.codec_context is None:
            raise BrokenVideoError(f"{path.name}: its video codec is unknown")
        reading.check_pixels(path, *_declared_size(path, container, stream))
        stream.codec_context.options = {"max_pixels": str(reading.max_pixels)}
        # Else the left edge that a stream says to crop is kept where memory is better aligned so.
        stream.codec_context.flags |= Flags.unaligned
        yield container, stream


def _not_opened(path: Path, error: av.FFmpegError) -> BrokenVideoError:
    """Return the error to raise for a file that FFmpeg does not open."""
    with open_regular_file(path) as file:
        head = file.read(16).lstrip()
    if head.startswith(LIST_STARTS):
        return NoMediaError(f"{path.name}: not a video but a list of other files, never opened")
    if isinstance(error, av.ArgumentError):  # what a format that is not allowed gives
        return NoMediaError(f"{path.name}: not a video or image of a format that is read")
    return NoMediaError(
        f"{path.name}: not a video or image, or cut off before its index "
        f"({reason_of_decoder(error)})"
    )


def _chosen(streams: list) -> av.VideoStream:
    """Return the stream that players show."""

    def rank(stream) -> tuple[bool, int]:
        is_default = bool(stream.disposition & Disposition.default)
        return is_default, _num_pixels(stream)

    return max(streams, key=rank)


def _num_pixels(stream) -> int:
    context = stream.codec_context
    return context.height * context.width if context is not None else 0


def stream_note(container, stream) -> tuple[str, ...]:
    """Return what to tell of a stream that is one of several videos in its container."""
    streams = [s for s in container.streams.video if not s.disposition & PICTURES]
    if len(streams) == 1:
        return ()
    return (f"video stream {streams.index(stream) + 1} of {len(streams)}",)


def _declared_size(path: Path, container, stream) -> tuple[int, int]:
    """Return the (height, width) that the headers state; zeros where they state none."""
    context = stream.codec_context
    if container.format.name == "gif" and not context.width:  # FFmpeg asks the decoder only
        with open_regular_file(path) as file:
            width, height = struct.unpack("<6xHH", file.read(10))
        return height, width
    return context.height, context.width


def reason_of_decoder(error: av.FFmpegError) -> str:
    """Return FFmpeg's own words for a fault."""
    return error.strerror or type(error).__name__
