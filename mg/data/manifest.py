"""The list of clips a run may use: every file is probed once, before any work begins."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from mg.data.prepared_index import INDEX_NAME, read_index
from mg.data.video import (
    IMAGE_SUFFIXES,
    PREPARED_SUFFIX,
    VIDEO_SUFFIXES,
    BrokenVideoError,
    probe_video,
)
from mg.data.video_table import full_name, read_video_table
from mg.data.workers import CallFailedError, SupervisedProcess, reason_of
from mg.files import resolve_under

__all__ = ["Clip", "Manifest", "Rejected", "build_manifest", "list_videos"]


@dataclass(frozen=True)
class Clip:
    """One usable file. `name` is its path relative to the folder of the data."""

    path: Path
    name: str
    num_frames: int
    height: int
    width: int
    fps: float
    caption: str = ""


@dataclass(frozen=True)
class Rejected:
    """One file that cannot be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """The usable clips in a fixed order, and the files that were left out."""

    clips: tuple[Clip, ...]
    rejected: tuple[Rejected, ...] = ()

    def table(self) -> str:
        """Return one line per file (frames, size, fps, or the reason it is left out) and counts."""
        names = [entry.name for entry in (*self.clips, *self.rejected)]
        width = max((len(name) for name in names), default=0)
        lines = [
            f"{clip.name:<{width}}  usable   {clip.num_frames:>5} frames  "
            f"{clip.width}x{clip.height}  {clip.fps:.5g} fps"
            for clip in self.clips
        ]
        lines += [f"{entry.name:<{width}}  left out  {entry.reason}" for entry in self.rejected]
        num_frames = sum(clip.num_frames for clip in self.clips)
        lines.append(
            f"{len(self.clips)} usable ({num_frames} frames), {len(self.rejected)} left out"
        )
        return "\n".join(lines)


def build_manifest(
    *,
    csv_path: str | os.PathLike | None = None,
    video_folder: str | os.PathLike | None = None,
    min_frames: int = 1,
    keep_images: bool = False,
    probe_seconds_limit: float | None = 300.0,
) -> Manifest:
    """Return the clips that a CSV, a folder or a single file names, each of them probed.

    Probing decodes the first and the last frame, in a child process: a file at which the decoder
    hangs or crashes is left out like any other that is broken.

    Args:
        csv_path: table (CSV, JSONL or JSON) with a column `video` (path relative to
            `video_folder`, or to the table's own folder if that is not given) and optionally
            `caption`; other usual names of columns will do (`mg.data.video_table`), and names of
            videos may lack their suffix.
        video_folder: folder of videos, images or prepared clips (searched recursively, in sorted
            order, when no CSV is given), or a single file. With a CSV and a folder of prepared
            clips, the table names the original videos.
        min_frames: clips with fewer frames are left out as too short.
        keep_images: whether single images stay all the same (for batches of images).
        probe_seconds_limit: seconds after which the probing of one file counts as hung; None:
            probe in this process, where a hostile file can do harm.

    Raises:
        FileNotFoundError: the CSV or the folder does not exist.
        ValueError: neither is given, the CSV lacks its column, a CSV path leaves the folder, or no
            clip is usable (the message then holds the table).
    """
    if csv_path is None and video_folder is None:
        raise ValueError("give video_folder (a folder or a file), csv_path, or both")
    if video_folder is not None and not Path(video_folder).exists():
        raise FileNotFoundError(f"no such video folder or file: {video_folder}")
    if csv_path is not None:
        entries = _entries_of_csv(Path(csv_path), video_folder)
    else:
        entries = _entries_of_folder(Path(video_folder))
    clips, rejected = [], _left_out_when_prepared(csv_path, video_folder)
    with _prober(probe_seconds_limit) as probe:
        for entry in tqdm(entries, desc="probing videos", disable=None, leave=False):
            outcome = probe(entry, 1 if keep_images and _is_image(entry) else min_frames)
            (clips if isinstance(outcome, Clip) else rejected).append(outcome)
    manifest = Manifest(tuple(clips), tuple(rejected))
    if not clips:
        source = csv_path if csv_path is not None else video_folder
        raise ValueError(f"no usable clip in {source}:\n{manifest.table()}")
    return manifest


def list_videos(folder: str | os.PathLike) -> list[Path]:
    """Return all paths below `folder` with a video, image or prepared suffix, sorted.

    They need not be files: what looks like a video and is none should be told. Hidden files and
    files in hidden folders are passed over.
    """
    folder = Path(folder)
    suffixes = VIDEO_SUFFIXES | IMAGE_SUFFIXES | {PREPARED_SUFFIX}
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


@dataclass(frozen=True)
class _Entry:
    path: Path
    name: str
    caption: str = ""
    fps: float = 0.0  # where the file itself does not tell


def _entries_of_folder(folder: Path) -> list[_Entry]:
    """Return every candidate in a folder, or the one file."""
    if folder.is_file():
        return [_Entry(folder, folder.name)]
    if (folder / INDEX_NAME).exists():
        return [
            _Entry(resolve_under(folder, piece.file), piece.file, piece.caption, piece.fps)
            for piece in read_index(folder).pieces()
        ]
    return [_Entry(path, path.relative_to(folder).as_posix()) for path in list_videos(folder)]


def _entries_of_csv(csv_path: Path, video_folder: str | os.PathLike | None) -> list[_Entry]:
    """Return every row of the table."""
    if not csv_path.exists():
        raise FileNotFoundError(f"no such CSV file: {csv_path}")
    root = Path(video_folder) if video_folder is not None else csv_path.parent
    if not root.is_dir():
        raise ValueError(f"with a CSV file, video_folder must be a folder; {root} is a file")
    rows = [(video, caption.strip()) for _, video, caption in read_video_table(csv_path)]
    if (root / INDEX_NAME).exists():
        return _prepared_entries(root, rows)
    rows = [(full_name(root, name), caption) for name, caption in rows]
    return [_Entry(resolve_under(root, name), name, caption) for name, caption in rows]


def _prepared_entries(folder: Path, rows: list[tuple[str, str]]) -> list[_Entry]:
    """Return the prepared clips of the sources that the rows of a table name."""
    sources = read_index(folder).sources
    entries = []
    for name, caption in rows:
        pieces = sources[name].pieces if name in sources else ()
        entries += [
            _Entry(resolve_under(folder, p.file), p.file, caption or p.caption, p.fps)
            for p in pieces
        ] or [_Entry(resolve_under(folder, name), name, caption)]
    return entries


def _left_out_when_prepared(
    csv_path: str | os.PathLike | None, video_folder: str | os.PathLike | None
) -> list[Rejected]:
    """Return the sources that the making of a prepared folder had to leave out."""
    if csv_path is not None or not (Path(video_folder) / INDEX_NAME).exists():
        return []
    sources = read_index(video_folder).sources.values()
    return [Rejected(source.name, source.reason) for source in sources if not source.pieces]


def _is_image(entry: _Entry) -> bool:
    return entry.path.suffix.lower() in IMAGE_SUFFIXES


@contextlib.contextmanager
def _prober(seconds_limit: float | None) -> Iterator[Callable[[_Entry, int], Clip | Rejected]]:
    """Yield a function like `_probe` that survives what the decoder does."""
    if seconds_limit is None:
        yield _probe
        return

    def probe_supervised(entry: _Entry, min_frames: int) -> Clip | Rejected:
        if entry.path.suffix.lower() == PREPARED_SUFFIX:  # no decoder, and there may be very many
            return _probe(entry, min_frames)
        try:
            return process.call((entry, min_frames))
        except CallFailedError as error:
            return Rejected(entry.name, f"broken: {error}")

    with SupervisedProcess(_probe_task, seconds_limit=seconds_limit) as process:
        yield probe_supervised


def _probe_task(task: tuple[_Entry, int]) -> Clip | Rejected:
    return _probe(*task)


def _probe(entry: _Entry, min_frames: int) -> Clip | Rejected:
    """Return the entry as a clip, or why it cannot be one."""
    readable_name = os.fsencode(entry.name).decode("utf-8", "backslashreplace")
    if readable_name != entry.name:  # logs and tables could not be written
        return Rejected(readable_name, "file name is not UTF-8; rename it")
    try:
        info = probe_video(entry.path)
    except FileNotFoundError:
        return Rejected(entry.name, "file not found")
    except BrokenVideoError as error:
        reason = str(error).removeprefix(f"{entry.path.name}: ")
        return Rejected(entry.name, f"broken: {reason}")
    except OSError as error:
        return Rejected(entry.name, f"cannot be opened: {error.strerror or error}")
    except Exception as error:  # decoders raise all kinds of errors
        return Rejected(entry.name, f"broken: {reason_of(error)}")
    if info.num_frames < min_frames:
        return Rejected(entry.name, f"too short: {info.num_frames} frames, {min_frames} needed")
    return Clip(
        path=entry.path,
        name=entry.name,
        num_frames=info.num_frames,
        height=info.height,
        width=info.width,
        fps=info.fps or entry.fps,
        caption=entry.caption,
    )
