"""The list of clips a run may use: every file is probed once, before any work begins."""

import collections
import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from mg.console import one_line
from mg.data.clip_entries import (
    Entry,
    Rejected,
    entries_of_csv,
    entries_of_folder,
    left_out_when_prepared,
)
from mg.data.media_rules import NoMediaError, kind_of_file
from mg.data.media_source import MediaSource
from mg.data.shards import VideoFolder, shard_paths
from mg.data.table_names import hint_of_name
from mg.data.video import (
    BrokenVideoError,
    Reading,
    VideoReader,
    iterate_frames,
    probe_video,
)
from mg.data.workers import CallFailedError, SupervisedProcess, reason_of
from mg.progress import with_progress

__all__ = ["Clip", "Manifest", "Rejected", "build_manifest", "check_sources"]

logger = logging.getLogger("mg")

AS_USUAL = Reading()
MAX_SUFFIXES_SHOWN = 8


@dataclass(frozen=True)
class Clip:
    """One usable file, and how it is read.

    Attributes:
        path: of the file, or its place in a shard.
        name: its path relative to the folder of the data; of a clip in a shard, behind the
            shard's.
        num_frames, height, width, fps, notes: as of `VideoInfo`.
        caption: what it shows, if a table or a shard tells.
        reading: how its frames are read.
    """

    path: MediaSource
    name: str
    num_frames: int
    height: int
    width: int
    fps: float
    caption: str = ""
    notes: tuple[str, ...] = ()
    reading: Reading = AS_USUAL

    def open(self) -> VideoReader:
        """Return a reader of its frames."""
        return VideoReader(self.path, self.reading)

    def frames(self) -> Iterator[np.ndarray]:
        """Yield its frames in order, uint8 (H, W, 3) RGB, holding one at a time."""
        return iterate_frames(self.path, reading=self.reading)


@dataclass(frozen=True)
class Manifest:
    """The usable clips in a fixed order, and what was left out.

    Attributes:
        clips: the usable files.
        rejected: files that a table names, or that look like media, but cannot be used.
        passed_over: what else there is in a folder: how many entries for each reason, and how
            many files of each suffix that are neither video nor image.
    """

    clips: tuple[Clip, ...]
    rejected: tuple[Rejected, ...] = ()
    passed_over: tuple[tuple[str, int], ...] = ()

    def table(self) -> str:
        """Return one line per file (frames, size, fps, or the reason it is left out) and counts."""
        names = [entry.name for entry in (*self.clips, *self.rejected)]
        width = max((len(name) for name in names), default=0)
        lines = [
            f"{clip.name:<{width}}  usable   {clip.num_frames:>5} frames  "
            f"{clip.width}x{clip.height}  {clip.fps:.5g} fps"
            + (f"  ({', '.join(clip.notes)})" if clip.notes else "")
            for clip in self.clips
        ]
        lines += [f"{entry.name:<{width}}  left out  {entry.reason}" for entry in self.rejected]
        num_frames = sum(clip.num_frames for clip in self.clips)
        lines.append(
            f"{len(self.clips)} usable ({num_frames} frames), {len(self.rejected)} left out"
        )
        lines[-1] += "".join(f"; {remark}" for remark in self.remarks())
        return "\n".join(lines)

    def remarks(self) -> list[str]:
        """Return what the numbers of clips do not tell: notes on them, and what is passed over."""
        notes = collections.Counter(note for clip in self.clips for note in clip.notes)
        remarks = [f"{number} with {note}" for note, number in sorted(notes.items())]
        others = {what: number for what, number in self.passed_over if what.startswith(".")}
        entries = [f"{n} {what}" for what, n in self.passed_over if not what.startswith(".")]
        if others:
            shown = sorted(others.items(), key=lambda item: (-item[1], item[0]))
            suffixes = [f"{number} {suffix}" for suffix, number in shown[:MAX_SUFFIXES_SHOWN]]
            suffixes += ["..."] if len(shown) > MAX_SUFFIXES_SHOWN else []
            total = sum(others.values())
            entries.insert(0, f"{total} without video or image ({', '.join(suffixes)})")
        return remarks + ([f"passed over: {', '.join(entries)}"] if entries else [])


def check_sources(csv_path: str | os.PathLike | None, video_folder: VideoFolder | None) -> None:
    """Raise what `build_manifest` raises for sources that do not exist; nothing is read.

    Raises:
        FileNotFoundError: the CSV, the folder or a shard does not exist.
        ValueError: neither is given, or a table of what is in shards.
    """
    if csv_path is None and video_folder is None:
        raise ValueError("give video_folder (a folder or a file), csv_path, or both")
    shards = None if video_folder is None else shard_paths(video_folder)
    if shards is not None and csv_path is not None:
        raise ValueError(
            f"csv_path={csv_path} has no place beside shards, which hold their captions themselves "
            "(KEY.txt or KEY.json); leave it out"
        )
    if video_folder is not None and shards is None and not Path(video_folder).exists():
        raise FileNotFoundError(f"no such video folder or file: {video_folder}")
    if csv_path is not None and not Path(csv_path).exists():
        raise FileNotFoundError(f"no such CSV file: {csv_path}")


def build_manifest(
    *,
    csv_path: str | os.PathLike | None = None,
    video_folder: VideoFolder | None = None,
    min_frames: int = 1,
    keep_images: bool = False,
    probe_seconds_limit: float | None = 300.0,
    reading: Reading = AS_USUAL,
    with_sources: bool = False,
) -> Manifest:
    """Return the clips that a CSV, a folder or a single file names, each of them probed.

    Probing decodes the first and the last frame, in a child process: a file at which the decoder
    hangs or crashes is left out like any other that is broken.

    What a file is, its content decides (`mg.data.media_rules`). In a folder, files of other kinds
    are counted in `passed_over` unless their names are those of media.

    Args:
        csv_path: table (CSV, JSONL or JSON) with a column `video` (path relative to
            `video_folder`, or to the table's own folder if that is not given) and optionally
            `caption`; other usual names of columns will do (`mg.data.video_table`), and names of
            videos may lack their suffix or compose accents in another way.
        video_folder: folder of videos, images or prepared clips (searched recursively, links
            followed, in sorted order, when no CSV is given), or a single file. With a CSV and a
            folder of prepared clips, the table names the original videos. A tar is a shard, whose
            files are clips (`mg.data.shards`); several are a pattern (`clips-{000..099}.tar`) or a
            list.
        min_frames: clips with fewer frames are left out as too short.
        keep_images: whether single images stay all the same (for batches of images).
        probe_seconds_limit: seconds after which the probing of one file counts as hung; None:
            probe in this process, where a hostile file can do harm.
        reading: which frames are too large, and what is done to them.
        with_sources: whether the videos of a table's column `source` are clips too.

    Raises:
        FileNotFoundError: the CSV, the folder or a shard does not exist.
        ValueError: neither is given, the CSV lacks its column, a CSV path leaves the folder, or no
            clip is usable (the message then holds the table).
    """
    check_sources(csv_path, video_folder)
    passed_over: collections.Counter[str] = collections.Counter()
    if csv_path is not None:
        entries = entries_of_csv(Path(csv_path), video_folder, with_sources=with_sources)
    else:
        entries = entries_of_folder(video_folder, passed_over)
    clips, rejected = [], left_out_when_prepared(csv_path, video_folder)
    with _prober(probe_seconds_limit) as probe:
        for entry in with_progress(entries, "probing videos", unit="file", leave=False):
            if isinstance(entry, Rejected):
                rejected.append(entry)
                continue
            outcome = probe(_Task(entry, min_frames, keep_images, reading))
            if isinstance(outcome, Clip):
                clips.append(outcome)
            elif isinstance(outcome, Rejected):
                rejected.append(outcome)
            else:
                passed_over[outcome] += 1
    manifest = Manifest(tuple(clips), tuple(rejected), tuple(sorted(passed_over.items())))
    source = csv_path if csv_path is not None else one_line(video_folder)
    if not clips:
        raise ValueError(f"no usable clip in {source}:\n{manifest.table()}")
    if remarks := manifest.remarks():
        logger.info("%s: %s", source, "; ".join(remarks))
    return manifest


@dataclass(frozen=True)
class _Task:
    """One file to be probed; `keep_images` counts as one frame needed for a still image."""

    entry: Entry
    min_frames: int
    keep_images: bool
    reading: Reading


@contextlib.contextmanager
def _prober(seconds_limit: float | None) -> Iterator[Callable[[_Task], Clip | Rejected | str]]:
    """Yield a function like `_probe` that survives what the decoder does."""
    if seconds_limit is None:
        yield _probe
        return

    def probe_supervised(task: _Task) -> Clip | Rejected | str:
        if _is_prepared(task.entry.path):  # no decoder, and there may be very many
            return _probe(task)
        try:
            return process.call(task)
        except CallFailedError as error:
            return Rejected(task.entry.name, f"broken: {error}")

    with SupervisedProcess(_probe, seconds_limit=seconds_limit) as process:
        yield probe_supervised


def _is_prepared(path: MediaSource) -> bool:
    try:
        return kind_of_file(path) == "prepared"
    except (OSError, ValueError):
        return False


def _probe(task: _Task) -> Clip | Rejected | str:
    """Return a clip, why the file cannot be one, or as what it is passed over."""
    entry = task.entry
    readable_name = os.fsencode(entry.name).decode("utf-8", "backslashreplace")
    if readable_name != entry.name:  # logs and tables could not be written
        return Rejected(readable_name, "file name is not UTF-8; rename it")
    try:
        info = probe_video(entry.path, reading=task.reading)
    except FileNotFoundError:
        return Rejected(entry.name, f"file not found{hint_of_name(entry.name)}")
    except BrokenVideoError as error:
        reason = str(error).removeprefix(f"{entry.path.name}: ")
        if isinstance(error, NoMediaError) and not entry.is_named:
            return PurePosixPath(entry.name).suffix or ". (no suffix)"
        return Rejected(entry.name, f"broken: {reason}")
    except OSError as error:
        return Rejected(entry.name, f"cannot be opened: {error.strerror or error}")
    except Exception as error:  # decoders raise all kinds of errors
        return Rejected(entry.name, f"broken: {reason_of(error)}")
    needed = 1 if task.keep_images and info.is_still else task.min_frames
    if info.num_frames < needed:
        return Rejected(entry.name, f"too short: {info.num_frames} frames, {needed} needed")
    return Clip(
        path=entry.path,
        name=entry.name,
        num_frames=info.num_frames,
        height=info.height,
        width=info.width,
        fps=info.fps or entry.fps,
        caption=entry.caption,
        notes=info.notes,
        reading=task.reading,
    )
