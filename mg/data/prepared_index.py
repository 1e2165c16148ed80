"""The index of a folder of prepared clips: which source became which `.npy` files."""

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

from mg.data.media_rules import READING_VERSION
from mg.files import write_text
from mg.json_file import read_json_object
from mg.type_checks import check_types

__all__ = [
    "INDEX_NAME",
    "Piece",
    "PrepareSettings",
    "PreparedIndex",
    "PreparedSource",
    "read_index",
]

INDEX_NAME = "prepared.json"
FORMAT_VERSION = 1
MAX_BYTES = 1 << 30  # about 300 per clip


@dataclass(frozen=True)
class PrepareSettings:
    """How sources are turned into prepared clips.

    Attributes:
        short_side: length of the shorter side of the stored frames, pixels (larger sources are
            scaled down, smaller ones are left as they are).
        split_scenes: whether to cut at hard cuts.
        scene_threshold: a cut is where the mean absolute difference of two neighbouring small grey
            frames exceeds this (of 255).
        min_frames_per_clip: shorter pieces are dropped.
        max_frames_per_clip: longer pieces are cut into several; None: no limit.
    """

    short_side: int
    split_scenes: bool = False
    scene_threshold: float = 30.0
    min_frames_per_clip: int = 1
    max_frames_per_clip: int | None = None

    def __post_init__(self):
        check_types(self)
        if self.short_side < 8:
            raise ValueError(f"short_side must be at least 8 pixels, not {self.short_side}")
        if not 0 < self.scene_threshold < 255:
            raise ValueError(
                f"scene_threshold must lie between 0 and 255, not {self.scene_threshold}"
            )
        if self.min_frames_per_clip < 1:
            raise ValueError(
                f"min_frames_per_clip must be at least 1, not {self.min_frames_per_clip}"
            )
        limit = self.max_frames_per_clip
        if limit is not None and limit < self.min_frames_per_clip:
            raise ValueError(
                f"max_frames_per_clip ({limit}) must not be below min_frames_per_clip "
                f"({self.min_frames_per_clip})"
            )


@dataclass(frozen=True)
class Piece:
    """One prepared clip: its file (relative to the folder) and where in the source it begins."""

    file: str
    start_frame: int
    num_frames: int
    height: int
    width: int
    fps: float
    caption: str = ""

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("num_frames", "height", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; expected 1 or more")


@dataclass(frozen=True)
class PreparedSource:
    """One source and the pieces made of it; size and time tell whether it has changed since.

    `num_dropped_frames` counts the frames of pieces that were too short; `reason` says why the
    source was left out, if no piece remains; `square_pixels` is as of `Reading`.
    """

    name: str
    num_bytes: int
    mtime_ns: int
    pieces: tuple[Piece, ...]
    num_dropped_frames: int = 0
    reason: str = ""
    square_pixels: bool = True

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True)
class PreparedIndex:
    """All sources of a prepared folder, by name, and the settings they were made with."""

    settings: PrepareSettings
    sources: dict[str, PreparedSource]

    def pieces(self) -> list[Piece]:
        """Return the pieces of all sources, sorted by file name."""
        pieces = [piece for source in self.sources.values() for piece in source.pieces]
        return sorted(pieces, key=lambda piece: piece.file)

    def write(self, folder: str | os.PathLike) -> None:
        """Write the index into `folder`, replacing an older one."""
        content = {
            "version": FORMAT_VERSION,
            "reading": READING_VERSION,
            "settings": dataclasses.asdict(self.settings),
            "sources": [dataclasses.asdict(source) for source in self.sources.values()],
        }
        text = json.dumps(content, indent=1) + "\n"
        write_text(Path(folder) / INDEX_NAME, text, overwrite=True)


def read_index(folder: str | os.PathLike) -> PreparedIndex:
    """Return the index of a prepared folder.

    Raises:
        FileNotFoundError: the folder has no index.
        ValueError: the index cannot be understood.
    """
    path = Path(folder) / INDEX_NAME
    try:
        content = read_json_object(path, max_bytes=MAX_BYTES)
        if content["version"] != FORMAT_VERSION:
            raise ValueError(f"format version {content['version']}, expected {FORMAT_VERSION}")
        if content.get("reading", 1) != READING_VERSION:
            raise ValueError("the rules by which videos are read have changed since it was made")
        sources = [
            PreparedSource(**{**source, "pieces": tuple(Piece(**p) for p in source["pieces"])})
            for source in content["sources"]
        ]
        settings = PrepareSettings(**content["settings"])
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{folder} is not a folder of prepared clips: no {INDEX_NAME}"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} cannot be read as an index of prepared clips ({error}); "
            "remove the folder and prepare the clips again"
        ) from error
    return PreparedIndex(settings, {source.name: source for source in sources})
