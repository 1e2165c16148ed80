"""Media made to fill the memory, to wait for ever or to open other files: what probing them costs.

Each is of a few bytes to 150 kB, or takes no space on the disk.
"""

import io
import os
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from PIL import Image

from fault_experiments.apart import Outcome, fault_of, run_apart
from fault_experiments.experiment import Experiment, Trials

__all__ = ["BOMBS", "EXPERIMENTS", "probe_apart"]

IMPORTS = """
from mg.data.captions import read_captions
from mg.data.video import probe_video
"""
TABLES = (".csv", ".jsonl", ".json")
SIDE = 20_000  # pixels: as RGB an image of that size takes 1.2 GB
RAW_SIDE = 16_000  # of raw video; more than about that FFmpeg does not take for a picture


def probe_apart(path: Path) -> Outcome:
    """Return what it takes another process to probe a media file, or to read a table."""
    name = "read_captions" if path.suffix in TABLES else "probe_video"
    return run_apart(IMPORTS, f"{name}(path)", path)


class Bomb(NamedTuple):
    """A file made to do harm: its name, how it is written, and a part of the refusal."""

    name: str
    write: Callable[[Path], object]
    refusal: str


def _content(make: Callable[[], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(make())


def gif() -> bytes:
    """30 frames of one pixel on a canvas of 20,000 x 20,000."""
    frame = struct.pack("<BHHHHB", 0x2C, 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    header = b"GIF89a" + struct.pack("<HHBBB", SIDE, SIDE, 0x80, 0, 0)
    return header + bytes([0, 0, 0, 255, 255, 255]) + frame * 30 + b";"


def png(num_frames: int = 1) -> bytes:
    """One bit per pixel, all alike."""
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((SIDE // 8 + 1) * SIDE), 9)
    chunks = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    if num_frames > 1:
        chunks.insert(1, (b"acTL", struct.pack(">II", num_frames, 0)))
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        content += struct.pack(">I", len(data)) + kind + data
        content += struct.pack(">I", zlib.crc32(kind + data))
    return content


def webp() -> bytes:
    """The header of a lossless image, and nothing that it promises."""
    side = 1 << 14
    bits = struct.pack("<BI", 0x2F, side - 1 | (side - 1) << 14)
    return (
        b"RIFF" + struct.pack("<I", 4 + 8 + 6) + b"WEBPVP8L" + struct.pack("<I", 5) + bits + b"\0"
    )


def bmp() -> bytes:
    """A picture of 24 bits, the size of its data stated as it would be."""
    size = 3 * SIDE * SIDE
    fields = struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 24, 0, size, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + size, 0, 0, 54) + fields


def jpeg() -> bytes:
    """A picture of 16 x 16 whose header says 20,000 x 20,000."""
    file = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(file, "JPEG")
    small, large = struct.pack(">HH", 16, 16), struct.pack(">HH", SIDE, SIDE)
    return file.getvalue().replace(small, large)


def video(path: Path) -> None:
    """Write ten such pictures as an AVI, whose own header says 16 x 16."""
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuvj420p"
        for number in range(10):
            packet = av.Packet(jpeg())
            packet.pts = packet.dts = number
            packet.time_base, packet.stream = Fraction(1, 25), stream
            container.mux(packet)


def raw_y4m(path: Path) -> None:
    """Write an uncompressed frame that takes no space on the disk."""
    start = f"YUV4MPEG2 W{RAW_SIDE} H{RAW_SIDE} F25:1 C420jpeg\nFRAME\n".encode()
    path.write_bytes(start)
    os.truncate(path, len(start) + 3 * RAW_SIDE * RAW_SIDE // 2)


def raw_avi(path: Path) -> None:
    """Write an uncompressed frame of grey as an AVI; it takes no space on the disk either."""
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = RAW_SIDE, RAW_SIDE, "gray"
        packet = av.Packet(bytes(16))
        packet.pts = packet.dts = 0
        packet.time_base, packet.stream = Fraction(1, 25), stream
        container.mux(packet)
    content = path.read_bytes()
    start = content[: content.index(b"00d", content.index(b"movi")) + 4]
    path.write_bytes(start + struct.pack("<I", RAW_SIDE * RAW_SIDE))
    os.truncate(path, len(start) + 4 + RAW_SIDE * RAW_SIDE)


def prepared(path: Path) -> None:
    """Write one frame of 20,000 x 20,000 that takes no space on the disk."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': (1, {SIDE}, {SIDE}, 3), }}\n"
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    path.write_bytes(start)
    os.truncate(path, len(start) + 3 * SIDE * SIDE)


def endless(start: bytes) -> Callable[[Path], object]:
    """Return what writes a file of a tebibyte that takes no space on the disk."""

    def write(path: Path) -> None:
        path.write_bytes(start)
        os.truncate(path, 1 << 40)

    return write


def _beside_pipe(content: bytes) -> Callable[[Path], object]:
    """Return what writes a file that names a pipe, and the pipe, at which a reader would wait."""

    def write(path: Path) -> None:
        os.mkfifo(path.with_name("pipe.mp4"))
        path.write_bytes(content)

    return write


TOO_LARGE = "pixels that max_pixels allows"
NO_FILE = "regular file"
BOMBS = {
    "gif": Bomb("a.gif", _content(gif), TOO_LARGE),
    "png": Bomb("a.png", _content(png), TOO_LARGE),
    "animated_png": Bomb("a.png", _content(lambda: png(1000)), TOO_LARGE),
    "webp": Bomb("a.webp", _content(webp), TOO_LARGE),
    "bmp": Bomb("a.bmp", _content(bmp), TOO_LARGE),
    "jpeg": Bomb("a.jpg", _content(jpeg), TOO_LARGE),
    "video": Bomb("a.avi", video, "decoding fails after 0 frames"),
    "raw_y4m": Bomb("a.y4m", raw_y4m, TOO_LARGE),
    "raw_avi": Bomb("a.avi", raw_avi, TOO_LARGE),
    "prepared": Bomb("a.npy", prepared, TOO_LARGE),
    "endless_webp": Bomb("a.webp", endless(webp()), "are more than an image"),
    "endless_zeros": Bomb("a.mp4", endless(b""), "not a video or image"),
    "endless_table": Bomb("a.csv", endless(b"video,caption\n"), "characters or more in it"),
    "endless_json_table": Bomb("a.json", endless(b""), "the most that is read"),
    "pipe": Bomb("a.mp4", os.mkfifo, NO_FILE),
    "pipe_of_images": Bomb("a.png", os.mkfifo, NO_FILE),
    "pipe_of_a_table": Bomb("a.csv", os.mkfifo, NO_FILE),
    "device": Bomb("a.mp4", lambda path: path.symlink_to("/dev/zero"), NO_FILE),
    "list": Bomb(
        "a.mp4", _beside_pipe(b"ffconcat version 1.0\nfile pipe.mp4\n"), "a list of other"
    ),
    "playlist": Bomb(
        "a.m3u8",
        _beside_pipe(b"#EXTM3U\n#EXTINF:9,\npipe.mp4\n#EXT-X-ENDLIST\n"),
        "a list of other",
    ),
    "postscript": Bomb(
        "a.png", _content(lambda: b"%!PS-Adobe-3.0 EPSF-3.0\nshowpage\n"), "not a vid"
    ),
}


def media_bombs(folder: Path, num_trials: int | None) -> Trials:
    """Probe each file that is made to do harm."""
    for name in list(BOMBS)[:num_trials]:
        bomb = BOMBS[name]
        path = folder / name / bomb.name
        path.parent.mkdir()
        bomb.write(path)
        yield fault_of(bomb.name, bomb.refusal, probe_apart(path))


EXPERIMENTS = {
    "media_bombs": Experiment(
        "A media file or table made to fill the memory, to wait for ever or to open other files "
        "(images and videos of 256 to 400 megapixels, files without end, pipes, devices, "
        "playlists, PostScript): refused within 1 s of processor time and a peak of 200 MB for the "
        "process",
        None,
        media_bombs,
    ),
}
