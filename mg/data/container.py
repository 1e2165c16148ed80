"""Frame-exact random access into a video file (mp4, mkv, webm, ...) with PyAV.

Seeking in video is full of traps: a seek lands on the key frame the container believes in, which
may come after the wanted frame (open GOP, B-frames), may not be decodable on its own, and frame
numbers cannot be had from times when the frame rate varies. So nothing is computed from the frame
rate or the header here. One pass over the packets collects the presentation times (pts) of all
frames; a read seeks to the pts it wants and is accepted only if decoding began at or before it and
met no damaged frame on the way. Otherwise it starts from an earlier key frame, at last from the
beginning of the file.
"""

import contextlib
import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import av
import numpy as np

from mg.data.frame_geometry import Geometry
from mg.data.frame_times import VARIABLE_RATE, is_variable
from mg.data.media_rules import BrokenVideoError, Reading
from mg.data.media_source import MediaSource, MediaState, media_state
from mg.data.open_container import open_container, reason_of_decoder, stream_note
from mg.data.pixel_conversion import to_rgb
from mg.data.truncation import num_missing_bytes

__all__ = [
    "ContainerReader",
    "VideoScan",
    "iterate_container",
    "scan_container",
]

# Codecs whose packets may hold frames that are never shown: only decoding tells them apart.
CODECS_WITH_HIDDEN_FRAMES = frozenset({"vp8"})
# Containers without presentation times: those of reordered frames (B-frames) are guesses.
CONTAINERS_WITHOUT_PTS = frozenset({"avi"})
# Transfer functions of high dynamic range (ITU-T H.273, table 3).
HDR_CURVES = {16: "HDR (PQ)", 18: "HDR (HLG)"}
# Between two wanted frames further apart than this, seeking is tried instead of decoding through.
MAX_FRAMES_DECODED_THROUGH = 8
# Earlier key frames tried after a failed seek, before decoding from the beginning.
MAX_EARLIER_SEEKS = 3


@dataclass(frozen=True)
class VideoScan:
    """What one pass over a file found.

    Attributes:
        pts: presentation time of every readable frame, ascending, in units of the stream's time
            base; None if the file has no usable times, so that frames can only be counted.
        keyframe_pts: those of `pts` at which decoding may begin.
        num_frames: frames that can be read.
        geometry: size of the frames as stored, and how they are shown.
        fps: average frames per second.
        notes: what to tell about the file although it is read.
    """

    pts: np.ndarray | None
    keyframe_pts: np.ndarray
    num_frames: int
    geometry: Geometry
    fps: float
    notes: tuple[str, ...]


def scan_container(path: MediaSource, reading: Reading) -> VideoScan:
    """Return the frame index of a video file; repeated calls for an unchanged file are free.

    Raises:
        BrokenVideoError: not a video, no video stream, truncated, too large, or not decodable.
    """
    return _scan_cached(path, reading, media_state(path))


@functools.lru_cache(maxsize=512)
def _scan_cached(path: MediaSource, reading: Reading, state: MediaState) -> VideoScan:
    with open_container(path, reading) as (container, stream):
        _refuse_missing_bytes(path, container, stream)
        pts, keyframe_pts, trusted = _demux(path, container, stream)
        trusted = trusted and not (
            stream.codec_context.name in CODECS_WITH_HIDDEN_FRAMES
            or (
                container.format.name in CONTAINERS_WITHOUT_PTS
                and stream.codec_context.has_b_frames
            )
        )
        fps = float(stream.average_rate or stream.guessed_rate or 0)
        time_base = float(stream.time_base)
        aspect = stream.sample_aspect_ratio
        notes = stream_note(container, stream)
    first = _first_frame(path, reading)
    geometry = Geometry.of_frame(first, aspect, is_square=reading.square_pixels)
    reading.check_pixels(path, geometry.height, geometry.shown_width)
    notes += geometry.notes()
    if first.color_trc in HDR_CURVES:
        notes += (HDR_CURVES[first.color_trc],)
    if trusted and pts is not None:
        # Headers and packet lists can promise what the decoder does not deliver; the two ends are
        # where this shows: leading pictures without their reference, and cut-off files.
        scan = VideoScan(pts, keyframe_pts, len(pts), geometry, fps, notes)
        with ContainerReader(path, reading, scan=scan) as reader:
            trusted = reader.can_read(0) and reader.can_read(len(pts) - 1)
    if not trusted or pts is None:
        pts, num_frames = _decode_all(path, reading, has_pts=pts is not None)
    else:
        num_frames = len(pts)
    if pts is not None and len(pts) > 1:
        fps = (len(pts) - 1) / (float(pts[-1] - pts[0]) * time_base)
        notes += (VARIABLE_RATE,) if is_variable(np.diff(pts)) else ()
    return VideoScan(pts, keyframe_pts, num_frames, geometry, fps, notes)


def _refuse_missing_bytes(path: MediaSource, container, stream) -> None:
    """Raise if the end of the file is cut off."""
    missing = num_missing_bytes(path)
    if missing:
        raise BrokenVideoError(
            f"{path.name}: truncated, the last {missing} bytes are missing; "
            "copy or download it again"
        )
    if "mp4" not in container.format.name:
        return
    size = media_state(path).num_bytes
    entries = stream.index_entries
    num_lost = sum(1 for entry in entries if entry.pos + entry.size > size)
    if num_lost:
        raise BrokenVideoError(
            f"{path.name}: truncated, {num_lost} of {len(entries)} frames lie behind the end of "
            "the file; copy or download it again"
        )


def _demux(path: MediaSource, container, stream) -> tuple[np.ndarray | None, np.ndarray, bool]:
    """Return (sorted pts or None, key frame pts, whether no packet looked damaged)."""
    pts, keyframe_pts, intact, last_intact = [], [], True, True
    try:
        for packet in container.demux(stream):
            if packet.size == 0 or packet.is_discard:
                continue
            last_intact = not packet.is_corrupt
            intact = intact and last_intact
            pts.append(packet.pts)
            if packet.is_keyframe and packet.pts is not None:
                keyframe_pts.append(packet.pts)
    except av.FFmpegError as error:
        raise BrokenVideoError(
            f"{path.name}: reading stops after {len(pts)} frames ({reason_of_decoder(error)})"
        ) from error
    if not pts or not last_intact:
        raise BrokenVideoError(
            f"{path.name}: truncated, the video stream "
            + (f"breaks off in frame {len(pts)}" if pts else "holds no frames")
        )
    keyframes = np.unique(np.array(keyframe_pts, dtype=np.int64))
    if None in pts or len(set(pts)) < len(pts):
        return None, keyframes, intact
    return np.sort(np.array(pts, dtype=np.int64)), keyframes, intact


def _first_frame(path: MediaSource, reading: Reading) -> av.VideoFrame:
    for frame in _decode(path, reading):
        return frame
    raise BrokenVideoError(f"{path.name}: no frame can be decoded")


def _decode_all(
    path: MediaSource, reading: Reading, *, has_pts: bool
) -> tuple[np.ndarray | None, int]:
    """Return (pts of the frames that the decoder delivers, or None; their number)."""
    pts = [frame.pts for frame in _decode(path, reading)]
    if not pts:
        raise BrokenVideoError(f"{path.name}: no frame can be decoded")
    if not has_pts or None in pts or np.diff(pts).min(initial=1) <= 0:
        return None, len(pts)
    return np.array(pts, dtype=np.int64), len(pts)


def _decode(path: MediaSource, reading: Reading) -> Iterator[av.VideoFrame]:
    """Yield the frames of the whole file in order.

    Damaged frames at the very start (a file cut between key frames) are passed over; later ones
    mean that the file is broken, and so does a change of size.
    """
    num_decoded, first_size = 0, None
    with open_container(path, reading) as (container, stream):
        stream.thread_type = "AUTO"
        try:
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    if num_decoded == 0 and not frame.key_frame:
                        continue
                    raise BrokenVideoError(f"{path.name}: frame {num_decoded} is damaged")
                first_size = first_size or (frame.height, frame.width)
                _refuse_other_size(path, frame, *first_size)
                yield frame
                num_decoded += 1
        except av.FFmpegError as error:
            reason = reason_of_decoder(error)
            if num_decoded == 0 and isinstance(error, av.ArgumentError):
                reason += f"; are its frames of more than max_pixels={reading.max_pixels} pixels?"
            raise BrokenVideoError(
                f"{path.name}: decoding fails after {num_decoded} frames ({reason})"
            ) from error


def _refuse_other_size(path: MediaSource, frame: av.VideoFrame, height: int, width: int) -> None:
    if (frame.height, frame.width) != (height, width):
        raise BrokenVideoError(
            f"{path.name}: the frame size changes on the way, from {width}x{height} to "
            f"{frame.width}x{frame.height}; split the video where it does"
        )


class ContainerReader:
    """Reads frames of one video file by number; a context manager."""

    def __init__(self, path: MediaSource, reading: Reading, *, scan: VideoScan | None = None):
        self.path = path
        self.reading = reading
        self.scan = scan if scan is not None else scan_container(path, reading)
        self._stack = contextlib.ExitStack()
        self._opened = None

    def __enter__(self) -> "ContainerReader":
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; reading again opens it again."""
        self._stack.close()
        self._opened = None

    def read(self, indices: Sequence[int]) -> list[np.ndarray]:
        """Return the frames at `indices` (each in [0, num_frames), any order), uint8 (H, W, 3)."""
        unique = sorted(set(indices))
        if self.scan.pts is None:
            found = self._read_by_counting(unique)
        else:
            found = {}
            for run in self._split_into_runs(unique):
                found.update(self._read_run(run))
        return [found[index] for index in indices]

    def can_read(self, index: int) -> bool:
        """Return whether the frame at `index` can be decoded, in the size of the first."""
        try:
            self._read_run([index])
        except BrokenVideoError:
            return False
        return True

    def _split_into_runs(self, indices: list[int]) -> list[list[int]]:
        """Cut sorted indices where a seek spares decoding a long stretch."""
        runs = [indices[:1]]
        for previous, index in itertools.pairwise(indices):
            if index - previous > MAX_FRAMES_DECODED_THROUGH:
                runs.append([index])
            else:
                runs[-1].append(index)
        return [run for run in runs if run]

    def _read_run(self, run: list[int]) -> dict[int, np.ndarray]:
        wanted = {int(self.scan.pts[index]): index for index in run}
        first_pts = int(self.scan.pts[run[0]])
        earlier = self.scan.keyframe_pts[self.scan.keyframe_pts < first_pts]
        # The nearest of the earlier key frames is where the first seek should have landed.
        seek_points = [first_pts, *earlier[::-1][: MAX_EARLIER_SEEKS + 1].tolist(), None]
        for seek_pts in seek_points:
            found = self._try_from(seek_pts, wanted)
            if found is not None:
                return found
        raise BrokenVideoError(
            f"{self.path.name}: frames {run[0]} to {run[-1]} cannot be decoded (damaged data)"
        )

    def _try_from(self, seek_pts: int | None, wanted: dict[int, int]) -> dict | None:
        """Return {index: frame} decoded after a seek (None: from the start), None if untrusted."""
        first_pts, last_pts = min(wanted), max(wanted)
        found = {}
        previous_pts = None
        try:
            container, stream = self._rewind(seek_pts)
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    if seek_pts is None and previous_pts is None and not frame.key_frame:
                        continue
                    return None
                # The first frame must not come after the first wanted one, and times must rise.
                if frame.pts is None or (frame.pts > first_pts and previous_pts is None):
                    return None
                if previous_pts is not None and frame.pts <= previous_pts:
                    return None
                previous_pts = frame.pts
                if frame.pts in wanted:
                    found[wanted[frame.pts]] = self._shown(frame)
                if frame.pts >= last_pts:
                    break
        except av.FFmpegError:
            return None
        return found if len(found) == len(wanted) else None

    def _rewind(self, seek_pts: int | None) -> tuple:
        """Return (container, stream), placed at or before `seek_pts` or freshly opened."""
        if seek_pts is None or self._opened is None:
            self.close()
            self._opened = self._stack.enter_context(open_container(self.path, self.reading))
        container, stream = self._opened
        if seek_pts is not None:
            container.seek(seek_pts, stream=stream, backward=True, any_frame=False)
        return container, stream

    def _read_by_counting(self, indices: list[int]) -> dict[int, np.ndarray]:
        found = {}
        for number, frame in enumerate(_decode(self.path, self.reading)):
            if number in indices:
                found[number] = self._shown(frame)
            if number >= indices[-1]:
                return found
        raise BrokenVideoError(
            f"{self.path.name}: ends before frame {indices[-1]}, which it had when it was scanned"
        )

    def _shown(self, frame: av.VideoFrame) -> np.ndarray:
        geometry = self.scan.geometry
        _refuse_other_size(self.path, frame, geometry.height, geometry.width)
        return geometry.show(to_rgb(frame))


def iterate_container(path: MediaSource, reading: Reading) -> Iterator[np.ndarray]:
    """Yield every frame that the index of `path` lists, in order, uint8 (H, W, 3)."""
    scan = scan_container(path, reading)
    num_frames = 0
    for frame in _decode(path, reading):
        if scan.pts is None or _contains(scan.pts, frame.pts):
            num_frames += 1
            yield scan.geometry.show(to_rgb(frame))
    if num_frames != scan.num_frames:
        raise BrokenVideoError(
            f"{path.name}: {num_frames} of {scan.num_frames} frames can be decoded"
        )


def _contains(sorted_pts: np.ndarray, pts: int | None) -> bool:
    if pts is None:
        return False
    place = int(np.searchsorted(sorted_pts, pts))
    return place < len(sorted_pts) and int(sorted_pts[place]) == pts
