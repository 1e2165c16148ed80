"""Videos that visitors of the page upload: bounded, kept to themselves, and soon deleted.

A file that arrives is moved at once into a folder that nobody is served from. Decoders run in a
process of their own, which a hostile file may take down without harm to the page.
"""

import contextlib
import itertools
import os
import secrets
import shutil
import tempfile
import threading
import time
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mg.data.media_rules import Reading
from mg.data.transforms import resize_and_crop
from mg.data.video import VideoInfo, iterate_frames, probe_video
from mg.data.workers import CallFailedError, SupervisedProcess

__all__ = ["KEEP_SECONDS", "MAX_UPLOAD_BYTES", "Upload", "Uploads", "limits_text"]

MEGABYTE = 1 << 20
MAX_UPLOAD_BYTES = 50 * MEGABYTE
MAX_SECONDS = 60.0
MAX_FRAMES = 7200  # a minute at 120 frames per second
READING = Reading(max_pixels=1920 * 1088)  # a coded frame of 1920x1080 may be a little higher
DECODE_SECONDS_LIMIT = 60.0
KEEP_SECONDS = 3600.0  # of an upload that nothing is made of


@dataclass(frozen=True)
class Upload:
    """A video that a visitor has uploaded; `name` is what the visitor calls it."""

    path: Path
    name: str
    num_frames: int
    height: int
    width: int
    fps: float

    def summary(self) -> str:
        """Return in one line what it is."""
        rate = f", {self.fps:.4g} per second" if self.fps else ""
        return f"{self.name}: {self.num_frames} frames of {self.width}x{self.height} pixels{rate}"


def limits_text() -> str:
    """Return in a sentence what may be uploaded, and what becomes of it."""
    return (
        f"A video of at most {MAX_UPLOAD_BYTES // MEGABYTE} MB, {MAX_SECONDS:g} seconds and "
        "1920x1080 pixels. It is seen by nobody else, and deleted as soon as its frames are read; "
        "upload it again for another try."
    )


class Uploads:
    """The uploads of all visitors, in a private folder that goes with this object."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="mg_uploads_"))  # for this user alone
        self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._reader = SupervisedProcess(_read, seconds_limit=DECODE_SECONDS_LIMIT)
        self._one_at_a_time = threading.Lock()

    def close(self) -> None:
        """Delete all uploads."""
        self._reader.close()
        self._remove()

    def take(self, path: str | os.PathLike) -> Upload:
        """Return an upload that has arrived under a path, from where it is moved away.

        Raises:
            ValueError: it is larger, longer or of more pixels than it may be, or no video; it is
                deleted then.
        """
        self.forget_old()
        name = os.path.basename(os.fspath(path))[:100]
        own = self._folder / secrets.token_hex(16)
        try:
            shutil.move(path, own)
        except FileNotFoundError:
            raise ValueError(f"{name} did not arrive; upload it again") from None
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(path))
        try:
            num_bytes = own.stat().st_size
            if num_bytes > MAX_UPLOAD_BYTES:
                raise ValueError(
                    f"{name} has {num_bytes / MEGABYTE:.1f} MB; at most "
                    f"{MAX_UPLOAD_BYTES // MEGABYTE} MB are taken"
                )
            info = self._call(own, name)
            upload = Upload(own, name, info.num_frames, info.height, info.width, info.fps)
            _check_length(upload)
        except BaseException:
            own.unlink(missing_ok=True)
            raise
        return upload

    def frames(self, upload: Upload, num_frames: int, size: tuple[int, int]) -> np.ndarray:
        """Return the first frames of an upload, uint8 (T, H, W, 3), and delete it.

        Args:
            upload: from `take`.
            num_frames: T, or fewer if it has no more.
            size: (H, W), which frames are scaled to cover and cropped to.

        Raises:
            ValueError: it is gone, or cannot be decoded.
        """
        try:
            if not upload.path.exists():
                raise ValueError(f"{upload.name} is deleted by now; upload it again")
            return self._call(upload.path, upload.name, num_frames, size)
        finally:
            self.discard(upload)

    def discard(self, upload: Upload | None) -> None:
        """Delete an upload, if it is still there."""
        if upload is not None:
            upload.path.unlink(missing_ok=True)

    def _call(self, path: Path, name: str, *task) -> VideoInfo | np.ndarray:
        try:
            with self._one_at_a_time:
                return self._reader.call((path, *task))
        except CallFailedError as error:
            raise ValueError(str(error).replace(str(path), name).replace(path.name, name)) from None

    def forget_old(self) -> None:
        """Delete uploads that nothing was made of for an hour."""
        for path in self._folder.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_ctime > KEEP_SECONDS:
                    path.unlink()


def _check_length(upload: Upload) -> None:
    seconds = upload.num_frames / upload.fps if upload.fps else 0.0
    if seconds > MAX_SECONDS or upload.num_frames > MAX_FRAMES:
        raise ValueError(
            f"{upload.name} has {upload.num_frames} frames and takes {seconds:.0f} seconds; at "
            f"most {MAX_FRAMES} frames and {MAX_SECONDS:g} seconds are taken: cut it shorter"
        )


def _read(task: tuple) -> VideoInfo | np.ndarray:
    """Return what a file is; or its first frames, where their number and size are given."""
    path, *wanted = task
    if not wanted:
        return probe_video(path, reading=READING)
    num_frames, size = wanted
    frames = itertools.islice(iterate_frames(path, reading=READING), num_frames)
    return np.stack([resize_and_crop(frame[np.newaxis], size=size)[0] for frame in frames])
