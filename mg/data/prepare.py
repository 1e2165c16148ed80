"""Decoding videos once and for all: small uint8 clips that training reads through a memory map.

Decoding and scaling a 16-frame clip of a 1080p video takes a few hundred milliseconds, reading it
from a prepared file about one. Each clip is a plain `.npy` file, so other programs can read it too.
"""

import itertools
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import cv2
import numpy as np

from mg.data.manifest import Clip, Manifest, build_manifest
from mg.data.media_source import media_state
from mg.data.prepared_index import (
    INDEX_NAME,
    Piece,
    PreparedIndex,
    PreparedSource,
    PrepareSettings,
    read_index,
)
from mg.data.transforms import resize_frame
from mg.data.video import PREPARED_SUFFIX, BrokenVideoError
from mg.files import atomic_path, check_writable_folder, remove_abandoned, resolve_under
from mg.progress import with_progress

__all__ = ["open_prepared", "prepare_clips"]

logger = logging.getLogger("mg")

# Frames are compared at this size (height, width) to find cuts: blind to noise and small motion.
CUT_FRAME_SIZE = (36, 64)


def open_prepared(folder: str | os.PathLike, *, min_frames: int = 1) -> Manifest:
    """Return the manifest of a folder written by `prepare_clips`.

    Raises:
        FileNotFoundError: the folder holds no index of prepared clips.
        ValueError: no clip has `min_frames` frames, or the index is damaged.
    """
    read_index(folder)
    return build_manifest(video_folder=folder, min_frames=min_frames)


def prepare_clips(
    manifest: Manifest,
    output_path: str | os.PathLike,
    *,
    settings: PrepareSettings,
    overwrite: bool = False,
) -> PreparedIndex:
    """Decode the clips of `manifest` into `output_path` and return the index of what is there.

    A source that is already there, unchanged in size and time, is passed over, so an interrupted
    run goes on where it stopped. A source that turns out broken is listed with the reason.

    Args:
        manifest: the sources.
        output_path: folder of the result: `.npy` files and an index.
        settings: short side and how to cut.
        overwrite: whether clips made with other settings or from older sources may be replaced.

    Raises:
        FileExistsError: such clips are there and `overwrite` is false.
    """
    folder = Path(output_path)
    index = PreparedIndex(settings, {})
    check_writable_folder(folder)
    remove_abandoned(folder, below=True)
    if (folder / INDEX_NAME).exists():
        index = _reusable_index(folder, settings, overwrite)
    for clip in with_progress(manifest.clips, "preparing clips", unit="clip"):
        known = index.sources.get(clip.name)
        status = media_state(clip.path)
        if known is not None:
            source = status.num_bytes, status.mtime_ns, clip.reading.square_pixels
            if (known.num_bytes, known.mtime_ns, known.square_pixels) == source:
                continue
            if not overwrite:
                raise FileExistsError(
                    f"{clip.name} has changed since it was prepared in {folder}, or is read in "
                    "another way (square_pixels); "
                    "choose another folder or allow overwriting (--overwrite)"
                )
            _remove_pieces(folder, known)
        index.sources[clip.name] = _prepare_source(clip, folder, settings)
        index.write(folder)
    return index


def _reusable_index(folder: Path, settings: PrepareSettings, overwrite: bool) -> PreparedIndex:
    index = read_index(folder)
    if index.settings == settings:
        return index
    if not overwrite:
        raise FileExistsError(
            f"{folder} holds clips made with other settings ({index.settings}); "
            "choose another folder or allow overwriting (--overwrite)"
        )
    for source in index.sources.values():
        _remove_pieces(folder, source)
    (folder / INDEX_NAME).unlink()
    return PreparedIndex(settings, {})


def _remove_pieces(folder: Path, source: PreparedSource) -> None:
    for piece in source.pieces:
        resolve_under(folder, piece.file).unlink(missing_ok=True)


def _prepare_source(clip: Clip, folder: Path, settings: PrepareSettings) -> PreparedSource:
    """Write the pieces of one source; a broken source leaves no piece, only the reason."""
    status = media_state(clip.path)
    pieces, reason, num_dropped = [], "", 0
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            frames, cuts = _decode_to_file(clip, file, settings)
            for start, end in _piece_bounds(len(frames), cuts, settings.max_frames_per_clip):
                if end - start < settings.min_frames_per_clip:
                    num_dropped += end - start
                    continue
                name = f"{clip.name}.{len(pieces):04d}{PREPARED_SUFFIX}"
                # What an interrupted run left may be replaced: the index does not list it.
                with atomic_path(folder / name, overwrite=True) as temporary:
                    np.save(temporary, frames[start:end], allow_pickle=False)
                shape = (end - start, *frames.shape[1:3])
                pieces.append(Piece(name, start, *shape, fps=clip.fps, caption=clip.caption))
    except BrokenVideoError as error:
        reason = str(error)
    if not pieces and not reason:
        reason = f"no piece has {settings.min_frames_per_clip} frames"
    if reason:
        logger.warning("left out %s: %s", clip.name, reason)
    return PreparedSource(
        clip.name,
        status.num_bytes,
        status.mtime_ns,
        tuple(pieces),
        num_dropped,
        reason,
        clip.reading.square_pixels,
    )


def _decode_to_file(
    clip: Clip, file: IO[bytes], settings: PrepareSettings
) -> tuple[np.ndarray, list[int]]:
    """Return (memory map of the scaled frames, uint8 (T, H, W, 3); first frames after hard cuts).

    The frames pass through a nameless temporary file, so a film of any length fits into memory.
    """
    cuts, shape, num_frames, previous = [], None, 0, None
    for frame in clip.frames():
        if settings.split_scenes:
            small = _cut_frame(frame)
            if previous is not None and np.abs(small - previous).mean() > settings.scene_threshold:
                cuts.append(num_frames)
            previous = small
        scaled = _scale_short_side(frame, settings.short_side)
        shape = scaled.shape  # of all frames: a file whose frames change their size is not read
        file.write(scaled.tobytes())
        num_frames += 1
    file.flush()
    return np.memmap(file, np.uint8, mode="r", shape=(num_frames, *shape)), cuts


def _scale_short_side(frame: np.ndarray, short_side: int) -> np.ndarray:
    height, width = frame.shape[:2]
    scale = min(1.0, short_side / min(height, width))
    return resize_frame(frame, round(height * scale), round(width * scale))


def _cut_frame(frame: np.ndarray) -> np.ndarray:
    small = cv2.resize(frame, CUT_FRAME_SIZE[::-1], interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)


def _piece_bounds(
    num_frames: int, cuts: list[int], max_frames: int | None
) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the stretches between cuts, none longer than `max_frames`."""
    for start, end in itertools.pairwise([0, *cuts, num_frames]):
        step = max_frames or end - start
        for piece_start in range(start, end, step):
            yield piece_start, min(piece_start + step, end)
