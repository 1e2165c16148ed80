"""WebDataset shards: tars of clips, where the files of one sample share a key.

    0001.mp4  0001.txt      a clip and its caption
    0002.mp4  0002.json     caption (or text, prompt, ...) and fps in an object of JSON

They are read by place, not as a stream, so that clips of shards are drawn, shared between ranks and
resumed as those of a folder are.
"""

import collections
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mg.console import one_line
from mg.data.media_rules import MEDIA_SUFFIXES, PREPARED_SUFFIX, VIDEO_SUFFIXES
from mg.data.media_source import TarMember
from mg.data.tar_index import SHARD_SUFFIX, index_tar
from mg.data.video_table import CAPTION_COLUMNS, MAX_CHARACTERS
from mg.json_file import parse_json

__all__ = [
    "Shard",
    "ShardClip",
    "VideoFolder",
    "names_shards",
    "read_shard",
    "shard_names",
    "shard_paths",
]

MAX_SHARDS = 100_000
MAX_JSON_BYTES = 1 << 20  # beside one clip
MAX_FPS = 1000.0
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})", re.ASCII)

VideoFolder = str | os.PathLike | Sequence[str | os.PathLike]


@dataclass(frozen=True)
class ShardClip:
    """One video or image of a shard, with what the shard says of it."""

    source: TarMember
    caption: str = ""
    fps: float = 0.0  # where the file itself does not tell


@dataclass(frozen=True)
class Shard:
    """What a shard holds.

    Attributes:
        clips: in the order of the tar.
        rejected: (path in the tar or "", reason) of what cannot be used.
        passed_over: how many other files there are of each suffix.
    """

    clips: tuple[ShardClip, ...]
    rejected: tuple[tuple[str, str], ...]
    passed_over: collections.Counter[str]


def names_shards(video_folder: VideoFolder) -> bool:
    """Return whether a setting names shards, which need not exist; False for any other place."""
    if not isinstance(video_folder, str | os.PathLike):
        return True
    text = os.fspath(video_folder)
    return text.endswith(SHARD_SUFFIX) and not os.path.isdir(text)


def shard_paths(video_folder: VideoFolder) -> list[Path] | None:
    """Return the shards that a setting names; None where it names a folder, or one other file.

    Args:
        video_folder: a tar; a pattern such as `clips-{0000..0099}.tar` or `{a,b}.tar`; or a list of
            tars and patterns. Existing files of such a name are not patterns.

    Raises:
        FileNotFoundError: a shard that does not exist.
        ValueError: a list with something else than tars in it, an address of the network, or too
            many shards.
    """
    if not names_shards(video_folder):
        return None
    if isinstance(video_folder, str | os.PathLike):
        return _existing([os.fspath(video_folder)])
    names = [os.fspath(name) for name in video_folder]
    others = [name for name in names if not name.endswith(SHARD_SUFFIX)]
    if others or not names:
        raise ValueError(
            f"video_folder: a list names tars, as in [a.tar, 'b-{{0..9}}.tar']; found "
            f"{one_line(others[0]) if others else 'an empty list'}"
        )
    return _existing(names)


def _existing(names: list[str]) -> list[Path]:
    paths = []
    for name in names:
        if "://" in name or name.startswith("pipe:"):
            raise ValueError(
                f"{one_line(name)}: shards are read from this machine's disks; download them first"
            )
        found = [name] if os.path.exists(name) else itertools.islice(_expanded(name), MAX_SHARDS)
        paths += [Path(path) for path in found]
    paths = list(dict.fromkeys(paths))
    if len(paths) >= MAX_SHARDS:
        raise ValueError(f"{MAX_SHARDS} shards or more; give fewer")
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise FileNotFoundError(
            f"no such shard: {missing[0]}"
            + (f" ({len(missing)} of {len(paths)} are missing)" if len(paths) > 1 else "")
        )
    return paths


def _expanded(pattern: str) -> Iterator[str]:
    """Yield the names that a pattern with braces stands for, as a shell would, in order."""
    found = BRACES.search(pattern)
    if found is None:
        yield pattern
        return
    first_last = RANGE.fullmatch(found[1])
    if first_last is not None:
        first, last = first_last.groups()
        is_padded = any(len(end) > 1 and end.startswith("0") for end in (first, last))
        width = max(len(first), len(last)) if is_padded else 0
        parts = (f"{number:0{width}d}" for number in range(int(first), int(last) + 1))
    else:
        parts = iter(found[1].split(","))
    for part in parts:
        for rest in _expanded(pattern[found.end() :]):
            yield pattern[: found.start()] + part + rest


def shard_names(paths: Sequence[Path]) -> list[str]:
    """Return what the clips of each shard are known by: its path below the folder of all."""
    absolute = [os.path.abspath(path) for path in paths]
    root = os.path.commonpath([os.path.dirname(path) for path in absolute])
    return [Path(os.path.relpath(path, root)).as_posix() for path in absolute]


def read_shard(path: Path) -> Shard:
    """Return the clips of a shard, with their captions.

    Of several files of one name, such as a film and its cover, the film counts.

    Raises:
        FileNotFoundError, OSError: as `index_tar`.
    """
    index = index_tar(path)
    rejected, passed_over = list(index.rejected), collections.Counter()
    files = {member.member: member for member in index.members}
    media, others = {}, []
    for name in files:
        stem, suffix = os.path.splitext(name)
        if any(part.startswith(".") for part in PurePosixPath(name).parts):
            passed_over["hidden files or folders"] += 1
        elif suffix.lower() not in MEDIA_SUFFIXES:
            others.append(name)
        elif stem not in media or _rank(name) < _rank(media[stem]):
            media[stem] = name
    texts = _Texts(files, rejected)
    clips = tuple(_clip(files[name], texts) for name in files if media.get(_stem(name)) == name)
    passed_over.update(
        PurePosixPath(name).suffix or ". (no suffix)" for name in others if name not in texts.used
    )
    return Shard(clips, tuple(rejected), passed_over)


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _rank(name: str) -> int:
    """Return which of the files of one name is the clip: a video before an array or an image."""
    suffix = PurePosixPath(name).suffix.lower()
    return 0 if suffix in VIDEO_SUFFIXES else 1 if suffix == PREPARED_SUFFIX else 2


def _clip(member: TarMember, texts: "_Texts") -> ShardClip:
    # The name without suffix, and WebDataset's key: the name up to its first dot.
    folder, name = os.path.split(member.member)
    key = os.path.join(folder, name.split(".")[0])
    caption, fps = "", 0.0
    for stem in dict.fromkeys([_stem(member.member), key]):
        said = texts.json_of(f"{stem}.json")
        caption = caption or texts.text_of(f"{stem}.txt") or said[0]
        fps = fps or said[1]
    return ShardClip(member, caption, fps)


class _Texts:
    """The texts beside clips. What cannot be read is listed, once."""

    def __init__(self, files: dict[str, TarMember], rejected: list[tuple[str, str]]) -> None:
        self._files, self._rejected = files, rejected
        self.used: dict[str, tuple[str, float]] = {}

    def text_of(self, name: str) -> str:
        """Return the caption in a text file; "" if there is none."""
        return self._once(name, lambda content: (_checked(content.decode("utf-8-sig")), 0.0))[0]

    def json_of(self, name: str) -> tuple[str, float]:
        """Return (caption, frames per second) of an object of JSON; "" and 0 for what is not."""
        return self._once(name, lambda content: _told(parse_json(content, name)))

    def _once(self, name: str, read) -> tuple[str, float]:
        if name not in self._files:
            return "", 0.0
        if name not in self.used:
            try:
                self.used[name] = read(_content(self._files[name]))
            except (OSError, ValueError) as error:
                self.used[name] = "", 0.0
                self._rejected.append((name, f"no caption: {one_line(error)}"))
        return self.used[name]


def _content(member: TarMember) -> bytes:
    if member.num_bytes > MAX_JSON_BYTES:
        raise ValueError(f"{member.num_bytes} bytes; at most {MAX_JSON_BYTES} are read")
    with member.open() as file:
        return file.read()


def _told(content: object) -> tuple[str, float]:
    """Return the caption and the frame rate of what stands beside a clip."""
    if not isinstance(content, dict):
        raise ValueError("expected an object with a caption")
    by_name = {str(key).lower(): value for key, value in content.items()}
    texts = [by_name[name] for name in CAPTION_COLUMNS if isinstance(by_name.get(name), str)]
    fps = by_name.get("fps")
    is_rate = isinstance(fps, int | float) and not isinstance(fps, bool) and 0 < fps <= MAX_FPS
    return _checked(texts[0]) if texts else "", float(fps) if is_rate else 0.0


def _checked(text: str) -> str:
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{len(text)} characters; at most {MAX_CHARACTERS} are read")
    return text.strip()
