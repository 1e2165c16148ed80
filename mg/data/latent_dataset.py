"""Batches of latents with their text, for training a generator: all fixed by (seed, step)."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mg.conditions.frame_draws import FrameDraws
from mg.conditions.text.sources import TextSource
from mg.conditions.visual import ChannelConditions, KnownLatent
from mg.data.bucket_order import BucketOrder, clip_order
from mg.data.buckets import Bucket
from mg.data.dataset import Dataset
from mg.data.image_steps import ImageSteps
from mg.data.latent_files import read_latent
from mg.data.latent_manifest import LatentClip, LatentManifest
from mg.latent_spec import LOGVAR_MAX, LOGVAR_MIN, LatentSpec

__all__ = ["LatentBatch", "LatentDataset", "LatentDraw", "LatentSample", "VisualDraws"]

# Streams of random numbers; 4 and 5 are those of the order.
TEXT_STREAM, SOURCE_STREAM, FRAMES_STREAM = 6, 7, 8


@dataclass(frozen=True)
class LatentBatch:
    """One batch, all of one bucket.

    Attributes:
        mean, std: float32 (B, C, T', H', W') of the posterior, scaled as a generator sees it: a
            sample is `mean + std * noise`.
        text: of each text source in turn, values float32 (B, L, D) and mask bool (B, L).
        visual: of source videos and known frames, float32 (B, C_c, T', H', W'); none without.
        captions: of each sample; "" where it was dropped.
        names: of the videos.
    """

    mean: np.ndarray
    std: np.ndarray
    text: tuple[np.ndarray, ...]
    captions: tuple[str, ...]
    names: tuple[str, ...]
    visual: tuple[np.ndarray, ...] = ()

    @property
    def conditions(self) -> tuple[np.ndarray, ...]:
        """All that a network gets besides latent and time, in its order."""
        return (*self.text, *self.visual)

    @property
    def num_frames(self) -> int:
        return self.mean.shape[2]


@dataclass(frozen=True)
class LatentDraw:
    """One sample to be read: the latent, and the scale that a generator sees it at.

    `place` is (number of the batch, place among the samples of all ranks).
    """

    clip: LatentClip
    place: tuple[int, int]
    spec: LatentSpec

    @property
    def name(self) -> str:
        return self.clip.name


@dataclass(frozen=True)
class LatentSample:
    """What is read of one draw, scaled as a generator sees it, float32.

    Attributes:
        mean, std: (C, T', H', W') of the posterior.
        source: mean of the source's, if it has one.
        first_frame: mean of the first frame's, (C, 1, H', W'), if that is read.
    """

    mean: np.ndarray
    std: np.ndarray
    source: np.ndarray | None = None
    first_frame: np.ndarray | None = None


@dataclass(frozen=True)
class VisualDraws:
    """How often samples have a condition on the channel axis.

    Attributes:
        source_dropout: share of samples that are without their source; None: sources are no
            condition.
        frames: how often which frames are known; None: frames are not a condition.
    """

    source_dropout: float | None = None
    frames: FrameDraws | None = None

    @property
    def conditions(self) -> ChannelConditions:
        """What the network is conditioned on."""
        return ChannelConditions(
            has_source=self.source_dropout is not None,
            frame_modes=() if self.frames is None else self.frames.modes,
        )


@dataclass
class LatentDataset(Dataset):
    """Random access to latents by (step, index); each batch is drawn from one bucket.

    A bucket's clips are drawn round after round, each in a new order; a batch may lie across two
    rounds. An epoch has as many batches of each bucket as one round takes, rounded up, in an order
    of its own. A latent that cannot be read is replaced by the next one of its bucket.

    Attributes:
        manifest: the latents.
        text: where the embeddings of the captions come from, one per text encoder; each is asked
            at once whether it has them all, and that of the empty caption.
        batch_sizes: samples per batch and rank of single buckets; the others have the `batch_size`
            that the methods are given.
        image_ratio: batches of images (latents of one frame) for each batch of videos, such as 0.1
            for Movie Gen's 1:10; None: each image is drawn as often as each video.
        text_dropout: share of samples whose caption is replaced by the empty one, in [0, 1), so
            that the network also learns the velocity without text, which guidance needs.
        visual: how often samples have a source video and known frames.
    """

    manifest: LatentManifest
    text: Sequence[TextSource]
    seed: int = 0
    rank: int = 0
    num_ranks: int = 1
    batch_sizes: Mapping[Bucket, int] = field(default_factory=dict)
    image_ratio: float | None = None
    text_dropout: float = 0.1
    visual: VisualDraws = VisualDraws()
    bad: dict[str, str] = field(default_factory=dict)
    max_bad_share: float = 0.25

    def __post_init__(self) -> None:
        self.check_settings()
        if not 0 <= self.text_dropout < 1:
            raise ValueError(f"text_dropout must lie in [0, 1), not {self.text_dropout}")
        self._visual = self.visual.conditions
        self._clips = self.manifest.buckets()
        self._check_batch_sizes()
        self._check_image_ratio()
        captions = {caption for clip in self.manifest.clips for caption in clip.captions}
        for source in self.text:
            source.check(["", *sorted(captions)])

    def _check_batch_sizes(self) -> None:
        for bucket, size in self.batch_sizes.items():
            if size < 1:
                raise ValueError(f"batch size of bucket {bucket} must be at least 1, not {size}")
            if bucket not in self._clips:
                there = ", ".join(map(str, self._clips))
                raise ValueError(f"batch size of bucket {bucket}: no latent in it, only in {there}")

    def _check_image_ratio(self) -> None:
        if self.image_ratio is None:
            return
        if not 0 < self.image_ratio < math.inf:
            raise ValueError(
                f"image_ratio must be above 0 (batches of images for each batch of videos), not "
                f"{self.image_ratio}"
            )
        num_images = sum(clip.bucket.is_image for clip in self.manifest.clips)
        num_videos = len(self.manifest.clips) - num_images
        if not num_images or not num_videos:
            raise ValueError(
                f"image_ratio={self.image_ratio} needs images (latents of one frame) and videos; "
                f"there are {num_images} images and {num_videos} videos"
            )

    @functools.cached_property
    def names(self) -> frozenset[str]:
        return frozenset(clip.name for clip in self.manifest.clips)

    # -- batches and buckets ---------------------------------------------------------------------

    def bucket(self, step: int, batch_size: int) -> Bucket:
        """Return the bucket that the batch of `step` is drawn from; the same on every rank."""
        return self._place(step, batch_size)[0]

    def num_samples(self, step: int, batch_size: int) -> int:
        return self._batch_size(self.bucket(step, batch_size), batch_size)

    def num_batches_per_epoch(self, batch_size: int) -> int:
        """Return in how many batches every clip is drawn once, rounded up for each bucket.

        With an image_ratio every video; the image batches in between count.
        """
        if self.image_ratio is None:
            return self._order(batch_size, None).num_batches_per_epoch
        num_videos = self._order(batch_size, False).num_batches_per_epoch
        return math.ceil(round(num_videos * (1 + self.image_ratio), 6))

    def table(self, batch_size: int) -> str:
        """Return one line per bucket (clips, batch size, batches per epoch), and their sums."""
        num_batches = self._num_batches(batch_size)
        lines = ["latent frames x height x width    clips  batch size  batches per epoch"]
        for bucket, clips in self._clips.items():
            size = self._batch_size(bucket, batch_size)
            line = f"{bucket!s:<30}{len(clips):>9}{size:>12}{num_batches[bucket]:>19.5g}"
            if len(clips) < size * self.num_ranks:
                line += "  (fewer clips than a batch has: each comes more than once)"
            lines.append(line)
        each = f" on each of {self.num_ranks} ranks" if self.num_ranks > 1 else ""
        lines.append(
            f"{len(self.manifest.clips)} clips, {self.num_batches_per_epoch(batch_size)} batches "
            f"per epoch{each}; {len(self.manifest.rejected)} left out"
        )
        return "\n".join(lines)

    def _num_batches(self, batch_size: int) -> dict[Bucket, float]:
        """Return how many batches of each bucket an epoch has."""
        if self.image_ratio is None:
            return dict(self._order(batch_size, None).num_batches)
        videos, images = self._order(batch_size, False), self._order(batch_size, True)
        # Images may be drawn more or less than once while every video is drawn once.
        share = self.image_ratio * videos.num_batches_per_epoch / images.num_batches_per_epoch
        return dict(videos.num_batches) | {b: share * n for b, n in images.num_batches}

    def _batch_size(self, bucket: Bucket, batch_size: int) -> int:
        return self.batch_sizes.get(bucket, batch_size)

    def _order(self, batch_size: int, is_image: bool | None) -> BucketOrder:
        """Return the order of the batches of images, or of videos, or (None) of all."""
        numbers = tuple(
            (bucket, math.ceil(len(clips) / self._size_of_all_ranks(bucket, batch_size)))
            for bucket, clips in self._clips.items()
            if is_image is None or bucket.is_image == is_image
        )
        return BucketOrder(numbers, self.seed)

    def _size_of_all_ranks(self, bucket: Bucket, batch_size: int) -> int:
        return self._batch_size(bucket, batch_size) * self.num_ranks

    def _place(self, step: int, batch_size: int) -> tuple[Bucket, int]:
        """Return (bucket of the batch of `step`, how many of its batches came before)."""
        if step < 0 or batch_size < 1:
            raise ValueError(f"step must be >= 0 and batch_size >= 1, not {step} and {batch_size}")
        if self.image_ratio is None:
            return self._order(batch_size, None).place(step)
        steps = ImageSteps(self.image_ratio / (1 + self.image_ratio), self.seed)
        is_image = steps.is_image(step)
        number = steps.num_before(step, is_image=is_image)
        return self._order(batch_size, is_image).place(number)

    # -- samples ---------------------------------------------------------------------------------

    def draw(self, step: int, index: int, *, batch_size: int = 1) -> LatentDraw:
        bucket, num_before = self._place(step, batch_size)
        size = self._batch_size(bucket, batch_size)
        if not 0 <= index < size:
            raise ValueError(f"index must lie in [0, {size}), not {index}")
        index += self.rank * size
        clips = self._clips[bucket]
        epoch, place = divmod(num_before * size * self.num_ranks + index, len(clips))
        order = clip_order(self.seed, bucket, epoch=epoch, num_clips=len(clips))
        for attempt in range(len(clips)):
            clip = clips[order[(place + attempt) % len(clips)]]
            if clip.name not in self.bad:
                return LatentDraw(clip, (step, index), self.manifest.spec)
        raise ValueError(
            f"none of the {len(clips)} latents of bucket {bucket} can be read:\n{self.bad_table()}"
        )

    @staticmethod  # so that worker processes get the draw alone, without the text encoders
    def read(draw: LatentDraw) -> LatentSample:
        """Return what there is of a draw.

        Raises:
            FileNotFoundError, ValueError: a file is gone, damaged, of another size than before,
                or holds what is not a number.
        """
        clip, bucket = draw.clip, draw.clip.bucket
        mean, std = _read_scaled(clip.path, bucket, draw.spec)
        source = first_frame = None
        if clip.source is not None:
            source, _ = _read_scaled(clip.source, bucket, draw.spec)
        if clip.first_frame is not None:
            of_one = Bucket(1, bucket.height, bucket.width)
            first_frame, _ = _read_scaled(clip.first_frame, of_one, draw.spec)
        return LatentSample(mean, std, source, first_frame)

    def collate(self, draws: Sequence[LatentDraw], samples: Sequence[LatentSample]) -> LatentBatch:
        captions = [self._caption(draw) for draw in draws]
        given = list(map(self._given, draws, samples))
        return LatentBatch(
            mean=np.stack([sample.mean for sample in samples]),  # (B, C, T', H', W')
            std=np.stack([sample.std for sample in samples]),  # (B, C, T', H', W')
            visual=self._visual.batch(given, samples[0].mean.shape),
            text=tuple(array for source in self.text for array in source.embed(captions)),
            captions=tuple(captions),
            names=tuple(draw.name for draw in draws),
        )

    def _caption(self, draw: LatentDraw) -> str:
        """Return a caption of a draw, or "" where it is dropped."""
        rng = np.random.default_rng((TEXT_STREAM, self.seed, *draw.place))
        if rng.random() < self.text_dropout:
            return ""
        return draw.clip.captions[rng.integers(len(draw.clip.captions))]

    def _given(self, draw: LatentDraw, sample: LatentSample) -> dict[str, Any]:
        """Return what the network is shown of a sample: its source, and known frames."""
        given = {}
        if self.visual.source_dropout is not None:
            rng = np.random.default_rng((SOURCE_STREAM, self.seed, *draw.place))
            if rng.random() >= self.visual.source_dropout:
                given["source"] = sample.source
        if self.visual.frames is not None:
            rng = np.random.default_rng((FRAMES_STREAM, self.seed, *draw.place))
            drawn = self.visual.frames.draw(sample.mean.shape[1], rng)
            if drawn.mode is not None:
                values = sample.mean
                if drawn.mode == "first_frame" and sample.first_frame is not None:
                    values = np.repeat(sample.first_frame, values.shape[1], axis=1)
                given["frames"] = KnownLatent(values, drawn.mask)
        return given


def _read_scaled(path: Path, bucket: Bucket, spec: LatentSpec) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and std of a file as a generator sees them, float32 (C, T', H', W') each."""
    latent = read_latent(path)
    mean = np.array(latent.mean[:, : bucket.num_frames])  # (C, T', H', W')
    # As the autoencoder bounds it wherever it samples from its posterior.
    logvar = np.clip(latent.logvar[:, : bucket.num_frames], LOGVAR_MIN, LOGVAR_MAX)
    if Bucket(*mean.shape[1:]) != bucket:
        raise ValueError(f"the latent is {Bucket(*mean.shape[1:])} now, it was {bucket}")
    mean, std = spec.scale(mean), spec.scale_std(np.exp(logvar / 2))
    if not (np.isfinite(mean).all() and np.isfinite(std).all()):
        raise ValueError("the latent holds NaN or infinity")
    return mean.astype(np.float32), std.astype(np.float32)
