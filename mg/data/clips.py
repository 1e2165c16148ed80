"""Clips drawn from a manifest: which clip, which frames, which crop, all fixed by (seed, step).

Nothing here has state that matters: batch `step` of a run is the same whether it is the first one
computed or the last, in this process or in a worker, so resuming needs no saved loader.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mg.data.dataset import Dataset, Draw
from mg.data.image_steps import ImageSteps
from mg.data.manifest import Clip, Manifest
from mg.data.transforms import (
    MAX_SIDE,
    check_image_size,
    flip_horizontal,
    resize_and_crop,
    to_model_range,
)

__all__ = [
    "ClipBatch",
    "ClipConfig",
    "ClipDataset",
    "ClipDraw",
    "batch_of",
    "cut_clip",
    "image_steps",
]

STRATEGIES = ("video_only", "image_only", "mixed_video_image")
# Each kind of draw has its own stream of random numbers; 2 is that of the image steps.
ORDER_STREAM, SAMPLE_STREAM = 0, 1
MAX_FRAMES = 100_000  # far beyond what is trained on


@dataclass(frozen=True)
class ClipConfig:
    """How clips are cut out of videos.

    Attributes:
        sample_n_frames: frames per video clip.
        sample_stride: every how many source frames one is taken.
        size: side of the square, or (height, width), in pixels.
        short_side_range: (min, max) length in pixels to which the short side is scaled, drawn anew
            for each clip, before the crop; None: just large enough for `size`.
        crop: "center" or "random".
        flip: whether half of the clips are mirrored left to right.
        mixed_strategy: "video_only"; "image_only" (single frames); or "mixed_video_image", where
            each step is either a batch of clips or a batch of single frames.
        mixed_image_ratio: share of the image steps in "mixed_video_image", in (0, 1).
        random_stride: whether each clip draws its stride anew, from 1 to `sample_stride`.
    """

    sample_n_frames: int
    size: int | tuple[int, int]
    sample_stride: int = 1
    short_side_range: tuple[int, int] | None = None
    crop: str = "center"
    flip: bool = False
    mixed_strategy: str = "video_only"
    mixed_image_ratio: float = 0.0
    random_stride: bool = False

    def __post_init__(self):
        for name in ("sample_n_frames", "sample_stride"):
            if not 1 <= getattr(self, name) <= MAX_FRAMES:
                raise ValueError(f"{name} must be 1 to {MAX_FRAMES}, not {getattr(self, name)}")
        check_image_size("size", self.size)
        if self.crop not in ("center", "random"):
            raise ValueError(f"crop must be 'center' or 'random', not {self.crop!r}")
        if self.mixed_strategy not in STRATEGIES:
            raise ValueError(
                f"mixed_strategy must be one of {', '.join(STRATEGIES)}, "
                f"not {self.mixed_strategy!r}"
            )
        if self.random_stride and self.sample_stride == 1:
            raise ValueError(
                "random_stride has no effect with sample_stride=1, the largest that is drawn; "
                "raise sample_stride"
            )
        self._check_image_ratio()
        self._check_short_side_range()

    def _check_image_ratio(self) -> None:
        if self.mixed_strategy == "mixed_video_image":
            if not 0 < self.mixed_image_ratio < 1:
                raise ValueError(
                    "mixed_image_ratio must lie between 0 and 1 for mixed_video_image, not "
                    f"{self.mixed_image_ratio}; use video_only or image_only for the ends"
                )
        elif self.mixed_image_ratio:
            raise ValueError(
                f"mixed_image_ratio={self.mixed_image_ratio} has no effect with "
                f"mixed_strategy={self.mixed_strategy!r}; set it to 0 or use mixed_video_image"
            )

    def _check_short_side_range(self) -> None:
        if self.short_side_range is None:
            return
        low, high = self.short_side_range
        if low > high or high > MAX_SIDE or low < min(self.height_width):
            raise ValueError(
                f"short_side_range must be (min, max) with min <= max <= {MAX_SIDE} and min "
                f"at least the short side of size {self.height_width}, not "
                f"{tuple(self.short_side_range)}; null takes the smallest that covers the size"
            )

    @property
    def height_width(self) -> tuple[int, int]:
        """Size of a clip's frames as (height, width)."""
        return (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)

    @property
    def num_source_frames(self) -> int:
        """Consecutive frames that a source needs for one video clip."""
        return (self.sample_n_frames - 1) * self.sample_stride + 1

    @property
    def uses_images(self) -> bool:
        """Whether single images are of use."""
        return self.mixed_strategy != "video_only" or self.sample_n_frames == 1


@dataclass(frozen=True)
class ClipBatch:
    """One batch: `frames` float32 (B, 3, T, H, W) in [-1, 1], and the name of each clip."""

    frames: np.ndarray
    names: tuple[str, ...]

    @property
    def num_frames(self) -> int:
        return self.frames.shape[2]


@dataclass(frozen=True)
class ClipDraw:
    """One sample to be read: the clip, the key of its random numbers, one frame or several."""

    clip: Clip
    random_key: tuple[int, ...]
    is_image: bool

    @property
    def name(self) -> str:
        return self.clip.name


@dataclass
class ClipDataset(Dataset):
    """Random access to clips by (step, index).

    Every clip is drawn once per epoch, in an order shuffled anew for each epoch. A clip that cannot
    be read is replaced by the next one.
    """

    manifest: Manifest
    config: ClipConfig
    seed: int = 0
    rank: int = 0
    num_ranks: int = 1
    bad: dict[str, str] = field(default_factory=dict)
    max_bad_share: float = 0.25

    def __post_init__(self):
        self.check_settings()
        if not self._usable(is_image=self.config.mixed_strategy == "image_only"):
            raise ValueError(
                f"no clip has the {self.config.num_source_frames} frames that sample_n_frames="
                f"{self.config.sample_n_frames} and sample_stride={self.config.sample_stride} "
                f"need:\n{self.manifest.table()}"
            )

    def num_batches_per_epoch(self, batch_size: int) -> int:
        """Return in how many batches every clip is drawn once, rounded up.

        With mixed_video_image every clip as video; the image batches in between count.
        """
        num_clips = len(self._usable(is_image=self.config.mixed_strategy == "image_only"))
        share_of_clips = 1 - self.config.mixed_image_ratio
        num_batches = num_clips / (batch_size * self.num_ranks * share_of_clips)
        return math.ceil(round(num_batches, 6))  # 12 / (1 - 0.2) is a little more than 15

    @property
    def names(self) -> set[str]:
        return {clip.name for clip in self.manifest.clips}

    def is_image_step(self, step: int) -> bool:
        """Return whether the batch of `step` holds single frames; the same on every rank."""
        return self._image_steps.is_image(step)

    @functools.cached_property
    def _image_steps(self) -> ImageSteps:
        return image_steps(self.config, self.seed)

    def draw(self, step: int, index: int, *, batch_size: int = 1) -> ClipDraw:
        """Return which clip sample `index` of the batch of `step` is cut from, bad ones left out.

        Args:
            step: number of the batch in the run, from 0.
            index: place in this rank's batch, in [0, batch_size).
            batch_size: of this rank; it fixes how far the run is through the epoch.

        Raises:
            ValueError: all clips are bad.
        """
        if step < 0 or not 0 <= index < batch_size:
            raise ValueError(
                f"step must be >= 0 and index in [0, {batch_size}), not {step} and {index}"
            )
        is_image = self.is_image_step(step)
        index += self.rank * batch_size
        num_before = self._image_steps.num_before(step, is_image=is_image)
        drawn = num_before * batch_size * self.num_ranks + index
        clips = self._usable(is_image)
        epoch, place = divmod(drawn, len(clips))
        order = _epoch_order(self.seed, epoch, len(clips), is_image)
        for attempt in range(len(clips)):
            clip = clips[order[(place + attempt) % len(clips)]]
            if clip.name not in self.bad:
                return ClipDraw(clip, (SAMPLE_STREAM, self.seed, step, index, attempt), is_image)
        raise ValueError(f"none of the {len(clips)} clips can be read:\n{self.bad_table()}")

    def sample(self, step: int, index: int, *, batch_size: int = 1) -> tuple[np.ndarray, str]:
        """Return (frames uint8 (T, H, W, 3), clip name) of a sample; arguments as of `draw`.

        Raises:
            ValueError: too many clips are bad.
        """
        draw, frames = self.read_or_replace(step, index, batch_size=batch_size)
        return frames, draw.name

    def read(self, draw: ClipDraw) -> np.ndarray:
        """Return a random piece of a clip, resized, cropped and flipped, uint8 (T, H, W, 3)."""
        config = self.config
        if draw.is_image:
            config = dataclasses.replace(config, sample_n_frames=1)
        return cut_clip(draw.clip, config, np.random.default_rng(draw.random_key))

    def collate(self, draws: Sequence[ClipDraw], samples: Sequence[np.ndarray]) -> ClipBatch:
        return batch_of(draws, samples)

    def _usable(self, is_image: bool) -> tuple[Clip, ...]:
        if is_image:
            return self.manifest.clips
        needed = self.config.num_source_frames
        return tuple(clip for clip in self.manifest.clips if clip.num_frames >= needed)


@functools.lru_cache(maxsize=4)
def _epoch_order(seed: int, epoch: int, num_clips: int, is_image: bool) -> np.ndarray:
    rng = np.random.default_rng((ORDER_STREAM, seed, epoch, int(is_image)))
    return rng.permutation(num_clips)


def image_steps(config: ClipConfig, seed: int) -> ImageSteps:
    """Return which steps of a run hold single frames."""
    shares = {"video_only": 0.0, "image_only": 1.0}
    return ImageSteps(shares.get(config.mixed_strategy, config.mixed_image_ratio), seed)


def cut_clip(clip: Clip, config: ClipConfig, rng: np.random.Generator) -> np.ndarray:
    """Return a random piece of a clip, resized, cropped and flipped, uint8 (T, H, W, 3).

    Args:
        clip: at least as long as `config` needs.
        config: how it is cut out.
        rng: of the piece, the crop and the flip.
    """
    if config.random_stride:
        stride = int(rng.integers(1, config.sample_stride + 1))
        config = dataclasses.replace(config, sample_stride=stride, random_stride=False)
    start = int(rng.integers(clip.num_frames - config.num_source_frames + 1))
    with clip.open() as reader:
        stop = start + config.num_source_frames
        frames = reader.read(range(start, stop, config.sample_stride))
    short_side = None
    if config.short_side_range is not None:
        low, high = config.short_side_range
        short_side = int(rng.integers(low, high + 1))
    frames = resize_and_crop(
        frames, size=config.height_width, short_side=short_side, crop=config.crop, rng=rng
    )
    if config.flip and rng.random() < 0.5:
        frames = flip_horizontal(frames)
    return frames


def batch_of(draws: Sequence[Draw], samples: Sequence[np.ndarray]) -> ClipBatch:
    """Return the batch of pieces of clips, uint8 (T, H, W, 3) each."""
    frames = np.stack([to_model_range(sample) for sample in samples])  # (B, 3, T, H, W)
    return ClipBatch(frames, tuple(draw.name for draw in draws))
