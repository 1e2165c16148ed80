"""Settings that every kind of training shares, checked before anything is built."""

import dataclasses
import logging
from typing import Any

from mg.data.bucket_config import ClipBucket, parse_bucket_config
from mg.data.clips import ClipConfig
from mg.data.transforms import check_image_size
from mg.device import DeviceConfig
from mg.known_names import one_of
from mg.training.run.trackers import TRACKERS, missing_package
from mg.training.setting_checks import check_types, require

__all__ = [
    "MAX_WORKERS",
    "DataSettings",
    "GuardSettings",
    "OptimSettings",
    "PhaseSettings",
    "RunSettings",
    "ValidationSettings",
]

logger = logging.getLogger("mg")

# Far beyond what any machine has use for; processes and samples cost memory.
MAX_WORKERS = 1024
MAX_BATCH_SIZE = 1 << 20
WARMUP_SHARE = 10  # a run too short for its warm-up takes one step of so many for it


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings:
    """How training clips are cut out of the videos.

    Args:
        sample_n_frames: frames per clip.
        size: side of the square crop, or [height, width], in pixels: multiples of 8.
        sample_stride: take every n-th source frame.
        random_stride: draw n anew for each clip, from 1 to sample_stride.
        short_side_range: [min, max] pixels the short side is scaled to before the crop; null for
            just large enough.
        crop: center or random.
        flip: mirror half of the clips.
        mixed_strategy: video_only, image_only or mixed_video_image.
        mixed_image_ratio: share of image steps with mixed_video_image.
        bucket_config: instead of sample_n_frames, size and batch_size, clips of several sizes as
            Open-Sora writes them: {"256px_ar1:1": {32: [1.0, 1]}}, resolution, frames, keep
            probability, batch size (mg.data.bucket_config).
        num_workers: processes that read and decode.
    """

    sample_n_frames: int = 16
    size: int | tuple[int, int] = 256
    sample_stride: int = 1
    random_stride: bool = False
    short_side_range: tuple[int, int] | None = None
    crop: str = one_of("random", ("center", "random"))
    flip: bool = True
    mixed_strategy: str = one_of("video_only", ("video_only", "image_only", "mixed_video_image"))
    mixed_image_ratio: float = 0.0
    bucket_config: dict[str, Any] | None = None
    num_workers: int = 2

    def __post_init__(self) -> None:
        check_types(self, "data.")
        self.clip_config()
        self.clip_buckets(unit=1)
        require(
            0 <= self.num_workers <= MAX_WORKERS,
            f"data.num_workers={self.num_workers}; expected 0 to {MAX_WORKERS}",
        )

    @property
    def height_width(self) -> tuple[int, int]:
        """Size of a crop as (height, width)."""
        return self.clip_config().height_width

    def clip_buckets(self, unit: int) -> tuple[ClipBucket, ...]:
        """Return the buckets of `bucket_config`, sides rounded to multiples of `unit`; or none."""
        if self.bucket_config is None:
            return ()
        try:
            return parse_bucket_config(self.bucket_config, unit=unit)
        except ValueError as error:
            raise ValueError(f"data.bucket_config: {error}") from error

    def clip_config(self) -> ClipConfig:
        """Return the part of the settings that says how clips are cut out."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(ClipConfig)}
        try:
            return ClipConfig(**values)
        except ValueError as error:
            raise ValueError(f"data: {error}") from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimSettings:
    """AdamW and its learning rate.

    Args:
        lr: learning rate after warm-up.
        lr_schedule: constant, or cosine or linear, which fall to lr_end at the last step.
        lr_end: learning rate that cosine and linear end with.
        warmup_steps: steps of linear warm-up from 0; a run that has no more steps than that takes a
            tenth of its steps.
        betas: AdamW's decay rates of the first and second moment.
        eps: AdamW's epsilon.
        weight_decay: decoupled weight decay, on weights of two or more axes.
        clip_grad_norm: largest global gradient norm; null for no clipping.
        accumulation_steps: batches whose gradients are averaged for one update.
        ema_decay: decay of the averaged weights; null keeps none. Validation and the final
            weights use them.
    """

    lr: float = 1e-5
    lr_schedule: str = one_of("constant", ("constant", "cosine", "linear"))
    lr_end: float = 0.0
    warmup_steps: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_grad_norm: float | None = 1.0
    accumulation_steps: int = 1
    ema_decay: float | None = 0.999

    def __post_init__(self) -> None:
        check_types(self, "optim.")
        require(self.lr > 0, f"optim.lr={self.lr}; expected more than 0")
        require(
            self.lr_schedule in ("constant", "cosine", "linear"),
            f"optim.lr_schedule={self.lr_schedule!r}; expected constant, cosine or linear",
        )
        for name in ("lr_end", "warmup_steps", "weight_decay"):
            value = getattr(self, name)
            require(value >= 0, f"optim.{name}={value}; expected 0 or more")
        if self.lr_schedule == "constant":
            require(
                self.lr_end == 0,
                f"optim.lr_end={self.lr_end} has no effect: lr_schedule is constant",
            )
        require(
            self.lr_end <= self.lr,
            f"optim.lr_end={self.lr_end} lies above optim.lr={self.lr}, where the schedule begins",
        )
        require(self.eps > 0, f"optim.eps={self.eps}; expected more than 0")
        require(
            all(0 <= beta < 1 for beta in self.betas),
            f"optim.betas={list(self.betas)}; expected two numbers from 0 to below 1",
        )
        require(
            self.accumulation_steps >= 1,
            f"optim.accumulation_steps={self.accumulation_steps}; expected 1 or more",
        )
        require(
            self.ema_decay is None or 0 < self.ema_decay < 1,
            f"optim.ema_decay={self.ema_decay}; expected a number between 0 and 1, or null",
        )
        require(
            self.clip_grad_norm is None or self.clip_grad_norm > 0,
            f"optim.clip_grad_norm={self.clip_grad_norm}; expected more than 0, or null",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValidationSettings:
    """Held-out clips that are reconstructed while training.

    Args:
        csv_path: CSV of the held-out clips; null with no video_folder: no validation.
        video_folder: their folder, or shards.
        interval: steps between validations; the first and the last step always validate.
        num_frames: frames of each clip, from its start.
        size: side of a square, or [height, width], in pixels.
    """

    csv_path: str | None = None
    video_folder: list[str] | str | None = None
    interval: int = 1000
    num_frames: int = 32
    size: int | tuple[int, int] = 256

    def __post_init__(self) -> None:
        check_types(self, "validation.")
        for name in ("interval", "num_frames"):
            value = getattr(self, name)
            require(value >= 1, f"validation.{name}={value}; expected 1 or more")
        check_image_size("validation.size", self.size)

    @property
    def height_width(self) -> tuple[int, int]:
        """Size of the clips as (height, width)."""
        return (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuardSettings:
    """What a run does about steps and clips that go wrong.

    Args:
        max_grad_norm: leave out an update whose gradient norm (before clipping) is larger; null
            for no limit. Updates that are not finite are always left out.
        max_bad_steps: left-out updates in a row after which the last checkpoint is restored.
        max_restores: restores after which the run stops with a report.
        max_bad_share: share of the clips that may turn out unreadable before the run stops.
        decode_seconds: a clip whose decoding takes longer is given up.
    """

    max_grad_norm: float | None = None
    max_bad_steps: int = 20
    max_restores: int = 3
    max_bad_share: float = 0.1
    decode_seconds: float = 60.0

    def __post_init__(self) -> None:
        check_types(self, "guards.")
        require(
            self.max_grad_norm is None or self.max_grad_norm > 0,
            f"guards.max_grad_norm={self.max_grad_norm}; expected more than 0, or null",
        )
        require(
            self.max_bad_steps >= 1,
            f"guards.max_bad_steps={self.max_bad_steps}; expected 1 or more",
        )
        require(
            self.max_restores >= 0,
            f"guards.max_restores={self.max_restores}; expected 0 or more",
        )
        require(
            0 < self.max_bad_share <= 1,
            f"guards.max_bad_share={self.max_bad_share}; expected more than 0 and at most 1",
        )
        require(
            self.decode_seconds > 0,
            f"guards.decode_seconds={self.decode_seconds}; expected more than 0",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseSettings:
    """One phase of a run: what trains, for how many steps, with which losses.

    Args:
        steps: how many; null (last phase only) for the rest of the run.
        train: patterns of the parameters that train; null takes the run's own `train`.
        freeze: patterns of parameters that stay as they are, besides the run's own `freeze`.
        lr_multiplier: factor on the learning rate during the phase.
        loss: fields of `loss` that are different in this phase.
    """

    steps: int | None = None
    train: list[str] | None = None
    freeze: list[str] = dataclasses.field(default_factory=list)
    lr_multiplier: float = 1.0
    loss: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_types(self, "phases.")
        require(
            self.steps is None or self.steps >= 1,
            f"phases: steps={self.steps}; expected 1 or more, or null in the last phase",
        )
        require(
            self.lr_multiplier > 0,
            f"phases: lr_multiplier={self.lr_multiplier}; expected more than 0 (to keep parameters "
            "as they are, freeze them)",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings(DeviceConfig):
    """What every training run has, whatever it trains.

    Args:
        output_path: folder for weights, logs, videos and curves.
        resume: go on from the newest checkpoint in output_path.
        overwrite: allow an output_path that holds another run; its files are replaced.
        steps: updates in all.
        max_minutes: stop early after so many minutes, with the same closing work; null for none.
        batch_size: samples per device and step.
        seed: fixes data order, crops and noise.
        dtype: precision of the network's computation, float32, float16 or bfloat16.
        loss_scale: factor on the loss in float16, halved on overflow.
        train: patterns (shell style, or the name of a part such as decoder) of the parameters
            that train; null for all.
        freeze: patterns of parameters that stay as they are.
        lr_multipliers: factor on the learning rate by pattern; the last that fits counts.
        phases: what trains when; empty for one phase of all steps.
        checkpoint_interval: steps between checkpoints.
        keep_checkpoints: how many checkpoints to keep besides the best one, at least 2.
        log_interval: steps between lines of the text log.
        trackers: where else to show figures, validations and samples: tensorboard, wandb, trackio,
            swanlab; each needs the package of its name (tensorboard: tensorboardX).
        tensorboard: older spelling of trackers: [tensorboard].
        zero_stage: what each of several devices keeps its share of only (ZeRO): 0 nothing, 1 the
            optimiser's moments, 2 gradients too, 3 the transformer's matrices too.
        optim: the optimiser, AdamW, and its learning rate.
        guards: when a step is skipped and what ends a run that goes wrong.
    """

    output_path: str
    resume: bool = False
    overwrite: bool = False
    steps: int = 1000
    max_minutes: float | None = None
    batch_size: int = 1
    seed: int = 0
    dtype: str = "float32"
    loss_scale: float = 65536.0
    train: list[str] | None = None
    freeze: list[str] = dataclasses.field(default_factory=list)
    lr_multipliers: dict[str, float] = dataclasses.field(default_factory=dict)
    phases: list[PhaseSettings] = dataclasses.field(default_factory=list)
    checkpoint_interval: int = 1000
    keep_checkpoints: int = 2
    log_interval: int = 50
    trackers: list[str] = dataclasses.field(default_factory=list)
    tensorboard: bool = False
    zero_stage: int = 0
    optim: OptimSettings = dataclasses.field(default_factory=OptimSettings)
    guards: GuardSettings = dataclasses.field(default_factory=GuardSettings)

    def __post_init__(self) -> None:
        check_types(self)
        super().__post_init__()
        for name in ("steps", "batch_size", "checkpoint_interval", "log_interval"):
            value = getattr(self, name)
            require(value >= 1, f"{name}={value}; expected 1 or more")
        require(
            self.batch_size <= MAX_BATCH_SIZE,
            f"batch_size={self.batch_size}; at most {MAX_BATCH_SIZE} are taken",
        )
        require(
            self.keep_checkpoints >= 2,
            f"keep_checkpoints={self.keep_checkpoints}; expected 2 or more, so that a damaged one "
            "never is the only one",
        )
        require(0 <= self.seed < 2**32, f"seed={self.seed}; expected 0 to 2^32 - 1")
        require(
            self.max_minutes is None or self.max_minutes > 0,
            f"max_minutes={self.max_minutes}; expected more than 0, or null",
        )
        require(self.train != [], "train=[] lets nothing train; null trains all parameters")
        require(
            self.zero_stage in (0, 1, 2, 3), f"zero_stage={self.zero_stage}; expected 0, 1, 2 or 3"
        )
        for name in self.tracker_names:
            require(name in TRACKERS, f"trackers: {name!r}; expected some of {', '.join(TRACKERS)}")
            package = missing_package(name)
            require(package is None, f"trackers: {name} needs a package; pip install {package}")
        require(self.loss_scale >= 1, f"loss_scale={self.loss_scale}; expected 1 or more")
        require(
            self.dtype in ("float32", "float16", "bfloat16"),
            f"dtype={self.dtype!r}; expected float32, float16 or bfloat16",
        )
        self._fit_warmup()
        for pattern, factor in self.lr_multipliers.items():
            require(
                factor > 0,
                f"lr_multipliers: {pattern}: {factor}; expected more than 0 (to keep parameters "
                "as they are, freeze them)",
            )
        self._check_phases()

    def _fit_warmup(self) -> None:
        """Shorten a warm-up that a run of few steps would never leave, as a short try has them."""
        given = self.optim.warmup_steps
        if given < self.steps:
            return
        fitting = self.steps // WARMUP_SHARE
        logger.info(
            "Warm-up shortened from %d to %d steps, as the run has %d.", given, fitting, self.steps
        )
        object.__setattr__(self, "optim", dataclasses.replace(self.optim, warmup_steps=fitting))

    @property
    def tracker_names(self) -> list[str]:
        """The trackers of the run, each once."""
        return list(dict.fromkeys([*self.trackers, *["tensorboard"] * self.tensorboard]))

    @property
    def num_ranks_per_batch(self) -> int:
        """How many ranks work on one batch together."""
        return 1

    def _check_phases(self) -> None:
        if not self.phases:
            return
        require(
            all(phase.steps is not None for phase in self.phases[:-1]),
            "phases: only the last phase may leave out its steps",
        )
        given = sum(phase.steps or 0 for phase in self.phases)
        if self.phases[-1].steps is None:
            require(
                given < self.steps,
                f"phases: the first ones take {given} steps, which leaves none of steps="
                f"{self.steps} to the last",
            )
        else:
            require(given == self.steps, f"phases have {given} steps, but steps={self.steps}")
