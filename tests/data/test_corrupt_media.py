"""Forty corrupt files beside two good ones: all are listed, none stops or hangs the loader."""

import gzip
import io
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mg.data.clips import ClipConfig, ClipDataset
from mg.data.loader import ClipLoader
from mg.data.manifest import build_manifest

GOOD = ["city_b_cc0.mp4", "dog_ccbysa4.mp4"]


def load_all(manifest, *, num_epochs):
    """Load clips of 4 frames until each was due so often; return the dataset and the names."""
    config = ClipConfig(sample_n_frames=4, size=32, crop="random")
    data = ClipDataset(manifest, config, max_bad_share=1.0)
    num_steps = num_epochs * len(manifest.clips)
    names = set()
    with ClipLoader(data, 1, num_steps=num_steps, num_workers=1, decode_seconds_limit=20) as loader:
        for batch in loader:
            assert batch.frames.shape == (1, 3, 4, 32, 32)
            assert np.abs(batch.frames).max() <= 1
            names |= set(batch.names)
    return data, names


def test_forty_corrupt_files_are_handled_and_listed(tmp_path, clips_folder, audio_file):
    folder = tmp_path / "media"
    folder.mkdir()
    corrupt = write_corrupt_media(folder, clips_folder / "test" / "dog_ccbysa4.mp4", audio_file)
    for name in GOOD:
        shutil.copy(clips_folder / "test" / name, folder)
    manifest = build_manifest(video_folder=folder, min_frames=4, probe_seconds_limit=20)
    usable = {clip.name for clip in manifest.clips}
    reasons = {entry.name: entry.reason for entry in manifest.rejected}
    assert len(corrupt) == 40
    assert sorted([*usable, *reasons]) == sorted([*corrupt, *GOOD])
    # Never seen so far, and nothing that a decoder should do to a run.
    assert not [reason for reason in reasons.values() if "hung" in reason or "crashed" in reason]
    assert {name: reasons[name] for name in REASONS} == REASONS
    data, loaded = load_all(manifest, num_epochs=2)
    assert loaded | set(data.bad) == usable
    assert set(GOOD) <= loaded - set(data.bad)
    assert all("cannot be decoded (damaged data)" in reason for reason in data.bad.values())


@pytest.mark.faults
def test_random_damage_is_read_or_listed(tmp_path, clips_folder):
    folder = tmp_path / "media"
    folder.mkdir()
    intact = (clips_folder / "test" / "dog_ccbysa4.mp4").read_bytes()
    for number in range(400):
        (folder / f"{number:03d}.mp4").write_bytes(damaged(intact, seed=number))
    shutil.copy(clips_folder / "test" / GOOD[0], folder)
    manifest = build_manifest(video_folder=folder, min_frames=4, probe_seconds_limit=20)
    assert len(manifest.clips) + len(manifest.rejected) == 401
    data, loaded = load_all(manifest, num_epochs=2)
    assert loaded | set(data.bad) == {clip.name for clip in manifest.clips}


def damaged(data, *, seed):
    """Return an mp4 (its index in the last 1400 bytes) with flipped bits, zeros or an end missing.

    Half of the damage is in the index.
    """
    rng = np.random.default_rng(seed)
    start = len(data) - 1400 if seed % 2 else 0
    place = int(rng.integers(start, len(data)))
    length = int(rng.integers(1, 300))
    kind = seed // 2 % 3
    if kind == 0:
        return data[:place]
    if kind == 1:
        return _replaced(data, place, bytes(length))[: len(data)]
    flipped = bytearray(data)
    for position in rng.integers(start, len(data), 1 + length // 10):
        flipped[position] ^= 1 << int(rng.integers(8))
    return bytes(flipped)


# What a user is told, of one file of each kind.
REASONS = {
    "cut_0.mp4": "broken: the file is empty (0 bytes)",
    "offset_outside.mp4": "broken: truncated, 41 of 41 frames lie behind the end of the file; "
    "copy or download it again",
    "codec_unknown.mp4": "broken: its video codec is unknown",
    "sound_only.mp4": "broken: no video in this file (streams found: audio)",
    "image_inside.mp4": "too short: 1 frames, 4 needed",
    "huge_array.npy": "broken: not a readable .npy file (mmap length is greater than file size)",
    "folder.mp4": "broken: a folder, not a video file",
    "dangling_link.mp4": "file not found",
    "named_pipe.mp4": "broken: not a regular file",
    r"caf\xe9.mp4": "file name is not UTF-8; rename it",
}


def write_corrupt_media(folder, clip, audio):
    """Write damaged, mislabelled and hostile files; return the names they are listed by.

    Args:
        folder: an existing folder.
        clip: path of an intact mp4 whose index (moov) stands at its end.
        audio: path of an mp4 that holds sound only.
    """
    data = Path(clip).read_bytes()
    contents = {
        **_truncations(data),
        **_damaged_payload(data),
        **_damaged_headers(data),
        **_wrong_kinds(data),
        "sound_only.mp4": Path(audio).read_bytes(),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [*contents, *_write_odd_entries(folder, clip)]


def _truncations(data):
    lengths = {"0": 0, "1": 1, "8": 8, "32": 32, "tenth": len(data) // 10, "half": len(data) // 2}
    lengths |= {"index": data.index(b"moov") + 200, "last": len(data) - 400}
    return {f"cut_{name}.mp4": data[:length] for name, length in lengths.items()}


def _damaged_payload(data):
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


def _damaged_headers(data):
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


def _wrong_kinds(data):
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


def _with_size(png, width, height):
    """Return a PNG whose header (bytes 12 to 29, then their checksum) declares another size."""
    header = png[12:16] + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def _write_odd_entries(folder, clip):
    (folder / "folder.mp4").mkdir()
    (folder / "dangling_link.mp4").symlink_to(folder / "absent.mp4")
    (folder / "link_to_itself.mp4").symlink_to(folder / "link_to_itself.mp4")
    os.mkfifo(folder / "named_pipe.mp4")
    # A name that is no UTF-8, as old archives hold them.
    not_utf8 = os.fsdecode(b"caf\xe9.mp4")
    (folder / not_utf8).write_bytes(Path(clip).read_bytes())
    return "folder.mp4", "dangling_link.mp4", "link_to_itself.mp4", "named_pipe.mp4", r"caf\xe9.mp4"


def _replaced(data, start, replacement):
    return data[:start] + replacement + data[start + len(replacement) :]
