"""Videos and the edits made of them, drawn together: the same frames and the same crop of both."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mg.data.captions import CaptionTable, read_captions
from mg.data.clips import ClipConfig, ClipDataset, ClipDraw
from mg.data.manifest import Clip, Manifest, build_manifest
from mg.data.table_names import NamedFiles
from mg.data.transforms import resize_and_crop, to_model_range

__all__ = ["EditBatch", "EditPairDataset", "EditPairs", "find_edit_pairs"]

CAPTION_STREAM, SOURCE_STREAM = 0, 1


@dataclasses.dataclass(frozen=True)
class EditPairs:
    """Edited videos, and what each is an edit of.

    Attributes:
        manifest: the edited videos.
        sources: {name of the edited video: its source}.
        captions: {name of the edited video: what was asked for}.
    """

    manifest: Manifest
    sources: dict[str, Clip]
    captions: dict[str, str]


@dataclasses.dataclass(frozen=True)
class EditBatch:
    """One batch.

    Attributes:
        frames: of the edited videos, float32 (B, 3, T, H, W) in [-1, 1].
        sources: of the videos that they were made of, the same shape.
        has_source: bool (B,), false where the network is to do without.
        captions: one per clip, "" where it is to do without.
        names: of the edited videos.
    """

    frames: np.ndarray
    sources: np.ndarray
    has_source: np.ndarray
    captions: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def num_frames(self) -> int:
        return self.frames.shape[2]


def find_edit_pairs(
    csv_path: str | os.PathLike, *, video_folder: str | os.PathLike | None = None
) -> EditPairs:
    """Return the pairs of a table with the columns video, source and caption; each is probed.

    Args:
        csv_path: as `mg.data.captions.read_captions` reads it.
        video_folder: folder of the videos; None: the table's own.

    Raises:
        FileNotFoundError: no such table or folder.
        ValueError: no row has a source, or one that cannot be used or is of another length or
            size than its edit.
    """
    table = read_captions(csv_path, video_folder=video_folder)
    if not any(row.source for row in table.videos):
        raise ValueError(
            f"{csv_path} has no column `source` that names the videos that were edited"
        )
    probed = build_manifest(csv_path=csv_path, video_folder=video_folder, with_sources=True)
    clips = {clip.path.resolve(): clip for clip in probed.clips}
    root = Path(video_folder) if video_folder is not None else Path(csv_path).parent
    pairs = {}
    for row, source_path in _rows(table, root):
        edited, source = clips.get(row.path.resolve()), clips.get(source_path.resolve())
        if edited is None or source is None:
            gone = row.name if edited is None else row.source
            raise ValueError(f"{csv_path}: {gone} cannot be used:\n{probed.table()}")
        _check_alike(edited, source)
        pairs[edited.name] = edited, source, row.caption
    return EditPairs(
        Manifest(tuple(edited for edited, _, _ in pairs.values())),
        {name: source for name, (_, source, _) in pairs.items()},
        {name: caption for name, (_, _, caption) in pairs.items()},
    )


def _rows(table: CaptionTable, root: Path) -> list[tuple]:
    files = NamedFiles(root)
    return [(row, files.find(row.source).path) for row in table.videos if row.source]


def _check_alike(edited: Clip, source: Clip) -> None:
    for what in ("num_frames", "height", "width"):
        here, there = getattr(edited, what), getattr(source, what)
        if here != there:
            raise ValueError(
                f"{edited.name} has {what} {here} and its source {source.name} {there}; an edit "
                "has the length and the size of its source"
            )


class EditPairDataset(ClipDataset):
    """Random access to pairs by (step, index), as `ClipDataset` has it for clips.

    Args:
        pairs: the videos.
        config: how clips are cut out of them.
        text_dropout: share of the samples whose caption is replaced by "".
        source_dropout: share of the samples that are to do without their source.
        options: of `ClipDataset`.
    """

    def __init__(
        self,
        pairs: EditPairs,
        config: ClipConfig,
        *,
        text_dropout: float = 0.1,
        source_dropout: float = 0.1,
        **options: int | float,
    ) -> None:
        super().__init__(pairs.manifest, config, **options)
        self.pairs = pairs
        self.text_dropout, self.source_dropout = text_dropout, source_dropout

    def read(self, draw: ClipDraw) -> tuple[np.ndarray, np.ndarray]:
        """Return the same piece of an edited video and of its source, uint8 (T, H, W, 3) each."""
        config = self.config
        start_rng = np.random.default_rng(draw.random_key)
        span = config.num_source_frames
        start = int(start_rng.integers(draw.clip.num_frames - span + 1))
        pieces = []
        for clip in (draw.clip, self.pairs.sources[draw.name]):
            with clip.open() as reader:
                frames = reader.read(range(start, start + span, config.sample_stride))
            rng = np.random.default_rng(draw.random_key)  # the same crop of both
            pieces.append(
                resize_and_crop(frames, size=config.height_width, crop=config.crop, rng=rng)
            )
        return pieces[0], pieces[1]

    def collate(
        self, draws: Sequence[ClipDraw], samples: Sequence[tuple[np.ndarray, np.ndarray]]
    ) -> EditBatch:
        captions = [
            ""
            if self._is_dropped(draw, CAPTION_STREAM, self.text_dropout)
            else self.pairs.captions[draw.name]
            for draw in draws
        ]
        kept = [not self._is_dropped(draw, SOURCE_STREAM, self.source_dropout) for draw in draws]
        return EditBatch(
            frames=np.stack([to_model_range(edited) for edited, _ in samples]),
            sources=np.stack([to_model_range(source) for _, source in samples]),
            has_source=np.array(kept),
            captions=tuple(captions),
            names=tuple(draw.name for draw in draws),
        )

    def _is_dropped(self, draw: ClipDraw, stream: int, share: float) -> bool:
        return np.random.default_rng((*draw.random_key, stream)).random() < share
