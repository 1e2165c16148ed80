"""Writing frames to an mp4 that every player shows (H.264)."""

import contextlib
import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange

from mg.data.pixel_conversion import from_rgb
from mg.files import atomic_path

__all__ = ["VideoWriter", "write_video"]

# Values of H.264's colour description: ITU-R BT.709, limited range, as players assume for HD.
BT709 = 1

# Without "macroblock tree", whose AVX-512 code in x264 reads memory that nobody has set: equal
# frames then give files whose pixels differ by up to 14 levels.
X264_OPTIONS = {"mbtree": "0"}
# Where the chroma of 2x2 pixels lies: in their middle, as `from_rgb` makes it. A file that does not
# say so is taken for one with chroma at the left, and colours move by half a pixel in each round.
CHROMA_OPTIONS = {"chroma_sample_location": "center"}


class VideoWriter:
    """Writes frames one by one to a video file; a context manager.

    The file appears under its name only when the block ends well. Odd heights and widths are made
    even by repeating the last row or column, since 4:2:0 chroma needs pairs.

    Equal frames give equal files, on the same machine.

    Args:
        path: the file to write; its suffix (.mp4, .mkv, .mov) chooses the container.
        fps: frames per second.
        overwrite: whether an existing file may be replaced.
        crf: quality of H.264, from 0 (best) to 51; 18 is hard to tell from the original.
        lossless: whether to store RGB bit-exactly (large files, not every player shows them).

    Raises:
        FileExistsError: the file exists and `overwrite` is false.
        ValueError: fps or crf out of range; at the end: no frame was written.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        fps: float,
        overwrite: bool = False,
        crf: int = 18,
        lossless: bool = False,
    ):
        if not 0 < fps <= 1000:
            raise ValueError(f"fps must lie in (0, 1000], not {fps}")
        if not 0 <= crf <= 51:
            raise ValueError(f"crf must lie in [0, 51], not {crf}")
        self.path = Path(path)
        self.num_frames = 0
        self._overwrite = overwrite
        self._rate = Fraction(fps).limit_denominator(1001)
        self._crf = crf
        self._lossless = lossless
        self._stack = contextlib.ExitStack()
        self._stream = None
        self._frame_shape = None

    def __enter__(self) -> "VideoWriter":
        temporary = self._stack.enter_context(atomic_path(self.path, overwrite=self._overwrite))
        try:
            self._container = self._stack.enter_context(av.open(str(temporary), "w"))
        except BaseException as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(self, exc_type, exc, traceback) -> None:
        if exc_type is None:
            try:
                self._finish()
            except BaseException as error:
                self._stack.__exit__(type(error), error, error.__traceback__)
                raise
        self._stack.__exit__(exc_type, exc, traceback)

    def write(self, frames: np.ndarray) -> None:
        """Append one frame (H, W, 3) or several (T, H, W, 3), uint8 RGB.

        Raises:
            ValueError: wrong dtype or shape, or another size than the frames before.
        """
        frames = np.asarray(frames)
        if frames.ndim == 3:
            frames = frames[np.newaxis]
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
            raise ValueError(
                "expected uint8 frames (H, W, 3) or (T, H, W, 3), "
                f"got {frames.dtype} {frames.shape}"
            )
        if self._frame_shape is None:
            self._frame_shape = frames.shape[1:]
        if frames.shape[1:] != self._frame_shape:
            raise ValueError(
                f"all frames of {self.path.name} must be {self._frame_shape}, "
                f"got {frames.shape[1:]}"
            )
        for frame in frames:
            self._encode(_pad_to_even(frame))

    def _encode(self, image: np.ndarray) -> None:
        if self._stream is None:
            self._stream = self._add_stream(*image.shape[:2])
        if self._lossless:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        else:
            frame = from_rgb(image)
        frame.pts = self.num_frames
        frame.time_base = 1 / self._rate
        self._container.mux(self._stream.encode(frame))
        self.num_frames += 1

    def _add_stream(self, height: int, width: int):
        codec = "libx264rgb" if self._lossless else "libx264"
        crf = 0 if self._lossless else self._crf
        options = {"crf": str(crf), **X264_OPTIONS}
        if not self._lossless:
            options |= CHROMA_OPTIONS
        stream = self._container.add_stream(codec, rate=self._rate, options=options)
        stream.height, stream.width = height, width
        stream.pix_fmt = "rgb24" if self._lossless else "yuv420p"
        if not self._lossless:
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = ColorRange.MPEG
        return stream

    def _finish(self) -> None:
        if self._stream is None:
            raise ValueError(f"no frames were written to {self.path}; a video needs at least one")
        self._container.mux(self._stream.encode(None))


def write_video(
    path: str | os.PathLike,
    frames: Iterable[np.ndarray],
    *,
    fps: float,
    overwrite: bool = False,
    crf: int = 18,
    lossless: bool = False,
) -> None:
    """Write `frames` (uint8 (T, H, W, 3), or any iterable of (H, W, 3)) as a video file.

    Args and Raises: as `VideoWriter`.
    """
    with VideoWriter(path, fps=fps, overwrite=overwrite, crf=crf, lossless=lossless) as writer:
        for frame in frames:
            writer.write(frame)


def _pad_to_even(frame: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) with the last row and column repeated where H or W is odd."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
