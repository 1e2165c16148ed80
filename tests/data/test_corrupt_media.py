"""Forty corrupt files beside two good ones: all are listed, none stops or hangs the loader."""

import shutil

import numpy as np
import pytest

from fault_experiments.corrupt_media import write_corrupt_media
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


def test_forty_corrupt_files_are_handled_and_listed(tmp_path, clips_folder):
    folder = tmp_path / "media"
    folder.mkdir()
    corrupt = write_corrupt_media(folder, clips_folder / "test" / "dog_ccbysa4.mp4")
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
        return (data[:place] + bytes(length) + data[place + length :])[: len(data)]
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
