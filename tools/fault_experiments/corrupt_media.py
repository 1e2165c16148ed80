"""Forty damaged, mislabelled and hostile files in the place of videos."""

import gzip
import io
import os
import struct
import zlib
from pathlib import Path

import av
import numpy as np
from PIL import Image

__all__ = ["write_corrupt_media", "write_sound"]


def write_corrupt_media(folder: Path, clip: Path) -> list[str]:
    """Write damaged, mislabelled and hostile files; return the names they are listed by.

    Args:
        folder: an existing folder.
        clip: path of an intact mp4 whose index (moov) stands at its end.
    """
    data = clip.read_bytes()
    contents = {
        **_truncations(data),
        **_damaged_payload(data),
        **_damaged_headers(data),
        **_wrong_kinds(data),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    write_sound(folder / "sound_only.mp4")
    return [*contents, "sound_only.mp4", *_write_odd_entries(folder, clip)]


def write_sound(path: Path) -> None:
    """Write an mp4 that holds sound only."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        for start in range(0, 8192, 1024):
            samples = np.zeros((1, 1024), dtype=np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _truncations(data: bytes) -> dict[str, bytes]:
    lengths = {"0": 0, "1": 1, "8": 8, "32": 32, "tenth": len(data) // 10, "half": len(data) // 2}
    lengths |= {"index": data.index(b"moov") + 200, "last": len(data) - 400}
    return {f"cut_{name}.mp4": data[:length] for name, length in lengths.items()}


def _damaged_payload(data: bytes) -> dict[str, bytes]:
    begin = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    middle = (begin + end) // 2
    noise = np.random.default_rng(0).integers(0, 256, 4096, np.uint8).tobytes()
    return {
        "zero_payload.mp4": _replaced(data, begin, bytes(end - begin)),
        "zero_first_frame.mp4": _replaced(data, begin, bytes(4096)),
        "zero_middle.mp4": _replaced(data, middle, bytes(4096)),
        "zero_last_frame.mp4": _replaced(data, end - 2048, bytes(2048)),
        "noise_middle.mp4": _replaced(data, middle, noise),
        "frame_length_flipped.mp4": _replaced(data, begin, b"\xff\xff\xff\xff"),
    }


def _damaged_headers(data: bytes) -> dict[str, bytes]:
    moov = data.index(b"moov")
    positions = np.random.default_rng(1).integers(moov + 8, len(data), 40)
    flipped = bytearray(data)
    for position in positions:
        flipped[position] ^= 0xFF
    huge = struct.pack(">I", 0x7FFFFFFF)
    return {
        "no_moov.mp4": _replaced(data, moov, b"xxxx"),
        "moov_bytes_flipped.mp4": bytes(flipped),
        "moov_length_huge.mp4": _replaced(data, moov - 4, huge),
        "trak_length_zero.mp4": _replaced(data, data.index(b"trak") - 4, bytes(4)),
        # Behind the name of a box: version and flags (4 bytes), then its fields (ISO 14496-12).
        "sample_size_huge.mp4": _replaced(data, data.index(b"stsz") + 12, huge),
        "num_samples_huge.mp4": _replaced(data, data.index(b"stsz") + 8, b"\xff" * 8),
        "offset_outside.mp4": _replaced(data, data.index(b"stco") + 12, huge),
        "durations_huge.mp4": _replaced(data, data.index(b"stts") + 8, b"\xff" * 8),
        "time_scale_zero.mp4": _replaced(data, data.index(b"mdhd") + 16, bytes(4)),
        "codec_unknown.mp4": _replaced(data, data.index(b"avc1", moov), b"xxxx"),
        "parameter_sets_zero.mp4": _replaced(data, data.index(b"avcC") + 8, bytes(24)),
    }


def _wrong_kinds(data: bytes) -> dict[str, bytes]:
    image = io.BytesIO()
    Image.new("RGB", (64, 48)).save(image, "PNG")
    png = image.getvalue()
    npy_header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (9999999, 4096, 4096, 3), }"
    return {
        "text.mp4": b"<html><body>404 Not Found</body></html>\n" * 20,
        "playlist.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n",
        "image_inside.mp4": png,
        "gzip_inside.mp4": gzip.compress(data, mtime=0),
        "video_inside.png": data,
        "huge_image.png": _with_size(png, 100_000, 100_000),
        "huge_array.npy": b"\x93NUMPY\x01\x00" + struct.pack("<H", len(npy_header)) + npy_header,
        "noise.mkv": np.random.default_rng(2).integers(0, 256, 50_000, np.uint8).tobytes(),
        "wrong_suffix.avi": data,
    }


def _with_size(png: bytes, width: int, height: int) -> bytes:
    """Return a PNG whose header (bytes 12 to 29, then their checksum) declares another size."""
    header = png[12:16] + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def _write_odd_entries(folder: Path, clip: Path) -> tuple[str, ...]:
    (folder / "folder.mp4").mkdir()
    (folder / "dangling_link.mp4").symlink_to(folder / "absent.mp4")
    (folder / "link_to_itself.mp4").symlink_to(folder / "link_to_itself.mp4")
    os.mkfifo(folder / "named_pipe.mp4")
    # A name that is not UTF-8, as old archives hold them.
    not_utf8 = os.fsdecode(b"caf\xe9.mp4")
    (folder / not_utf8).write_bytes(clip.read_bytes())
    return "folder.mp4", "dangling_link.mp4", "link_to_itself.mp4", "named_pipe.mp4", r"caf\xe9.mp4"


def _replaced(data: bytes, start: int, replacement: bytes) -> bytes:
    return data[:start] + replacement + data[start + len(replacement) :]
