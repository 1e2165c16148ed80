"""Clips of several sizes, each batch of one: sorted into buckets, all fixed by (seed, step)."""

import bisect
import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mg.data.bucket_config import ClipBucket, offers
from mg.data.bucket_order import BUCKET_STREAM, clip_order
from mg.data.buckets import Bucket
from mg.data.clips import (
    SAMPLE_STREAM,
    ClipBatch,
    ClipConfig,
    batch_of,
    cut_clip,
    image_steps,
)
from mg.data.dataset import Dataset
from mg.data.manifest import Clip, Manifest, Rejected

__all__ = ["BucketedClipDataset", "SizedDraw"]

OFFER_STREAM = 9  # of random numbers; see `mg/data/bucket_order.py`
NUM_REMEMBERED = 4  # epochs


@dataclasses.dataclass(frozen=True)
class SizedDraw:
    """One sample to be read: the clip, the key of its random numbers, how it is cut out."""

    clip: Clip
    random_key: tuple[int, ...]
    config: ClipConfig

    @property
    def name(self) -> str:
        return self.clip.name


class Epoch(NamedTuple):
    """The buckets that the batches of an epoch come from, and the clips of each, in order."""

    order: np.ndarray
    clips: dict[int, np.ndarray]


@dataclasses.dataclass
class BucketedClipDataset(Dataset):
    """Random access to clips by (step, index); each batch is drawn from one bucket.

    In each epoch every clip is offered anew to the buckets that it fits (`offers`), and goes into
    the first that keeps it, or sits the epoch out. Each bucket's clips are drawn once, in an order
    of their own; the last batch of a bucket is completed with its first clips. A clip that cannot
    be read is replaced by the next one of its bucket.

    Attributes:
        manifest: the clips; those that fit no bucket are left out.
        config: how clips are cut out, but for `sample_n_frames` and `size`. With
            "mixed_video_image" some steps take one frame of each clip of their batch.
        buckets: of `parse_bucket_config`; they have the batch sizes.

    Raises:
        ValueError: no clip fits a bucket, or settings that do not go together.
    """

    manifest: Manifest
    config: ClipConfig
    buckets: tuple[ClipBucket, ...]
    seed: int = 0
    rank: int = 0
    num_ranks: int = 1
    bad: dict[str, str] = dataclasses.field(default_factory=dict)
    max_bad_share: float = 0.25

    def __post_init__(self) -> None:
        if self.config.mixed_strategy == "image_only":
            raise ValueError(
                "mixed_strategy=image_only has no place beside bucket_config; give it buckets of "
                "one frame"
            )
        self._image_steps = image_steps(self.config, self.seed)
        self._configs = [self._config_of(bucket.size) for bucket in self.buckets]
        self._sort()
        self._epochs: dict[int, Epoch] = {}
        self._starts = [0]  # numbers of the epochs' first batches
        self.check_settings()

    def _config_of(self, size: Bucket) -> ClipConfig:
        sides = (size.height, size.width)
        return dataclasses.replace(self.config, sample_n_frames=size.num_frames, size=sides)

    def _sort(self) -> None:
        """Find the buckets that each clip fits, and leave out the clips that fit none."""
        found, kept, rejected = [], [], []
        for clip in self.manifest.clips:
            size = Bucket(clip.num_frames, clip.height, clip.width)
            fitting = offers(size, self.buckets, stride=self.config.sample_stride)
            if fitting:
                kept.append(clip)
                found.append(fitting)
            else:
                rejected.append(Rejected(clip.name, f"fits no bucket: {size}"))
        self.manifest = dataclasses.replace(
            self.manifest,
            clips=tuple(kept),
            rejected=(*self.manifest.rejected, *rejected),
        )
        if not kept:
            sizes = ", ".join(str(bucket.size) for bucket in self.buckets)
            raise ValueError(f"no clip fits a bucket ({sizes}):\n{self.manifest.table()}")
        width = max(map(len, found))
        self._offers = np.array([row + [-1] * (width - len(row)) for row in found])

    @property
    def names(self) -> set[str]:
        return {clip.name for clip in self.manifest.clips}

    # -- epochs ----------------------------------------------------------------------------------

    def bucket(self, step: int) -> Bucket:
        """Return the bucket that the batch of `step` is drawn from; the same on every rank."""
        return self.buckets[self._place(step)[0]].size

    def num_samples(self, step: int, batch_size: int) -> int:
        """Return how many samples this rank's batch of `step` has, whatever `batch_size`."""
        return self.buckets[self._place(step)[0]].batch_size

    def num_batches_per_epoch(self, batch_size: int) -> int:
        """Return how many batches the first epoch has; later ones may have some more or less."""
        return max(1, len(self._epoch(0).order))

    def table(self) -> str:
        """Return one line per bucket that has clips: how many, in the first epoch."""
        lines = ["frames x height x width    clips  batch size  batches in the first epoch"]
        epoch = self._epoch(0)
        for number, bucket in enumerate(self.buckets):
            num_clips = len(epoch.clips.get(number, ()))
            num_batches = np.count_nonzero(epoch.order == number)
            if (self._offers == number).any():
                lines.append(
                    f"{bucket.size!s:<26}{num_clips:>6}{bucket.batch_size:>12}{num_batches:>28}"
                )
        return "\n".join(lines)

    def _epoch(self, number: int) -> Epoch:
        if number not in self._epochs:
            if len(self._epochs) >= NUM_REMEMBERED:
                self._epochs.pop(next(iter(self._epochs)))
            self._epochs[number] = self._draw_epoch(number)
        return self._epochs[number]

    def _draw_epoch(self, number: int) -> Epoch:
        key = (self.seed, number)
        chances = np.random.default_rng((OFFER_STREAM, *key)).random(self._offers.shape)
        keep = np.array([bucket.keep for bucket in self.buckets])
        stays = (chances < keep[self._offers]) & (self._offers >= 0)
        chosen = self._offers[np.arange(len(stays)), stays.argmax(axis=1)]
        chosen[~stays.any(axis=1)] = -1
        clips, batches = {}, []
        for i, bucket in enumerate(self.buckets):
            members = np.flatnonzero(chosen == i)
            if len(members):
                order = clip_order(self.seed, bucket.size, epoch=number, num_clips=len(members))
                clips[i] = members[order]
                batches += [i] * math.ceil(len(members) / (bucket.batch_size * self.num_ranks))
        return Epoch(np.random.default_rng((BUCKET_STREAM, *key)).permutation(batches), clips)

    def _place(self, step: int) -> tuple[int, Epoch, int]:
        """Return (bucket of the batch of `step`, epoch, how many batches of it came before)."""
        if step < 0:
            raise ValueError(f"step must be >= 0, not {step}")
        while self._starts[-1] <= step:
            last = self._epoch(len(self._starts) - 1)
            self._starts.append(self._starts[-1] + len(last.order))
        number = bisect.bisect_right(self._starts, step) - 1
        epoch, place = self._epoch(number), step - self._starts[number]
        bucket = int(epoch.order[place])
        return bucket, epoch, int(np.count_nonzero(epoch.order[:place] == bucket))

    # -- samples ---------------------------------------------------------------------------------

    def draw(self, step: int, index: int, *, batch_size: int = 1) -> SizedDraw:
        bucket, epoch, num_before = self._place(step)
        size = self.buckets[bucket].batch_size
        if not 0 <= index < size:
            raise ValueError(f"index must lie in [0, {size}), not {index}")
        index += self.rank * size
        clips = epoch.clips[bucket]
        first = num_before * size * self.num_ranks + index
        # Behind those of the epoch all that fit, should none of these be readable.
        others = np.flatnonzero((self._offers == bucket).any(axis=1))
        for attempt, number in enumerate((*np.roll(clips, -first), *others)):
            clip = self.manifest.clips[number]
            if clip.name not in self.bad:
                config = self._configs[bucket]
                if self._image_steps.is_image(step):
                    config = dataclasses.replace(config, sample_n_frames=1)
                return SizedDraw(clip, (SAMPLE_STREAM, self.seed, step, index, attempt), config)
        raise ValueError(
            f"none of the clips of bucket {self.buckets[bucket].size} can be read:\n"
            f"{self.bad_table()}"
        )

    @staticmethod  # so that worker processes get the draw alone
    def read(draw: SizedDraw) -> np.ndarray:
        """Return a random piece of a clip, resized, cropped and flipped, uint8 (T, H, W, 3)."""
        return cut_clip(draw.clip, draw.config, np.random.default_rng(draw.random_key))

    def collate(self, draws: Sequence[SizedDraw], samples: Sequence[np.ndarray]) -> ClipBatch:
        return batch_of(draws, samples)
