"""Every setting of a training of a denoiser together with its VAE, on pairs of videos."""

import dataclasses
from typing import Any

from mg.data.clips import ClipConfig
from mg.data.transforms import check_image_size
from mg.models.families import AUTOENCODERS
from mg.training.autoencoder.autoencoder_config import LossSettings
from mg.training.denoiser.denoiser_config import DenoiserSettings, SamplingSettings, TextSettings
from mg.training.pretrained import PretrainedSettings, PretrainedTarget, check_pretrained
from mg.training.setting_checks import check_types, require
from mg.training.settings import MAX_WORKERS, RunSettings

__all__ = [
    "NEEDED_TO_TRAIN",
    "PairDataSettings",
    "PairValidationSettings",
    "TrainVideoToVideoConfig",
]

NEEDED_TO_TRAIN = ("output_path", "csv_path")  # and not to build the model
TARGET = PretrainedTarget(
    families=tuple(AUTOENCODERS),
    trained_first=("unet",),
    parts={part: part for part in ("vae_encoder", "vae_decoder", "unet")},
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairDataSettings:
    """How clips are cut out of the pairs.

    Args:
        sample_n_frames: frames per clip.
        resolution: side of the square crop, or [height, width], in pixels.
        sample_stride: take every n-th frame.
        crop: center or random; the same of a video and its source.
        batch_size: clips per device and step, another place for `batch_size`.
        num_workers: processes that read and decode.
    """

    sample_n_frames: int = 16
    resolution: int | tuple[int, int] = 128
    sample_stride: int = 1
    crop: str = "center"
    batch_size: int | None = None
    num_workers: int = 0

    def __post_init__(self) -> None:
        check_types(self, "data.")
        check_image_size("data.resolution", self.resolution)
        require(
            self.batch_size is None or self.batch_size >= 1,
            f"data.batch_size={self.batch_size}; expected 1 or more",
        )
        require(
            0 <= self.num_workers <= MAX_WORKERS,
            f"data.num_workers={self.num_workers}; expected 0 to {MAX_WORKERS}",
        )
        self.clip_config()

    @property
    def height_width(self) -> tuple[int, int]:
        """Size of a crop as (height, width)."""
        return self.clip_config().height_width

    def clip_config(self) -> ClipConfig:
        """Return the part of the settings that says how clips are cut out."""
        try:
            return ClipConfig(
                sample_n_frames=self.sample_n_frames,
                size=self.resolution,
                sample_stride=self.sample_stride,
                crop=self.crop,
            )
        except ValueError as error:
            raise ValueError(f"data: {error}") from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairValidationSettings:
    """Held-out pairs: the flow loss of the edits, and the PSNR of what the VAE makes of them.

    Args:
        csv_path: table of the held-out pairs; null for no validation.
        video_folder: folder of the videos; null for that of the table.
        interval: steps between validations; the first and the last step always validate.
        num_times: times t in [0, 1] that the loss is measured at.
        num_clips: the first so many pairs of the table are measured.
    """

    csv_path: str | None = None
    video_folder: str | None = None
    interval: int = 1000
    num_times: int = 8
    num_clips: int = 64

    def __post_init__(self) -> None:
        check_types(self, "validation.")
        for name in ("interval", "num_times", "num_clips"):
            value = getattr(self, name)
            require(value >= 1, f"validation.{name}={value}; expected 1 or more")
        require(
            self.video_folder is None or self.csv_path is not None,
            "validation.video_folder has no effect without validation.csv_path",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainVideoToVideoConfig(RunSettings):
    """Train a denoiser that edits videos, on the latents of a VAE that may train along.

    Args:
        csv_path: table (CSV, JSONL or JSON) of the edited videos, with the columns video, source
            and caption.
        video_folder: folder of the videos; null for that of the table.
        pretrained: the VAE's weights, for how long they stay as they are, and learning rates by
            part.
        model: the denoiser: `family` (unet), fields of that family's config or a `preset` of it,
            and `recompute_every`; `latent_dim` and `in_channels` are checked against the VAE.
        data: how clips are cut out of the videos.
        text: how captions reach the denoiser.
        source_dropout: share of the samples that are trained without their source.
        loss: the VAE's own loss, once it trains; LPIPS by its `perceptual_loss_weight`.
        validation: held-out pairs.
        sampling: defaults of the exported generator.
    """

    csv_path: str
    video_folder: str | None = None
    pretrained: PretrainedSettings
    model: dict[str, Any] = dataclasses.field(
        default_factory=dict, metadata={"families": "denoisers"}
    )
    data: PairDataSettings = dataclasses.field(default_factory=PairDataSettings)
    text: TextSettings = dataclasses.field(default_factory=TextSettings)
    source_dropout: float = 0.1
    loss: LossSettings = dataclasses.field(
        default_factory=lambda: LossSettings(perceptual_loss_weight=0.0)
    )
    validation: PairValidationSettings = dataclasses.field(default_factory=PairValidationSettings)
    sampling: SamplingSettings = dataclasses.field(default_factory=SamplingSettings)

    def __post_init__(self) -> None:
        if self.data.batch_size is not None:
            require(
                self.batch_size in (1, self.data.batch_size),
                f"batch_size={self.batch_size} and data.batch_size={self.data.batch_size} are the "
                "same setting; keep one",
            )
            object.__setattr__(self, "batch_size", self.data.batch_size)
        super().__post_init__()
        require(
            self.pretrained.is_used,
            "pretrained.use_pretrained: video-to-video training starts from a VAE's weights; name "
            "them in pretrained.vae.model_name (mg train-vae makes some)",
        )
        check_pretrained(
            self.pretrained,
            TARGET,
            phases=self.phases,
            train=self.train,
            lr_multipliers=self.lr_multipliers,
        )
        require(
            0 <= self.source_dropout < 1,
            f"source_dropout={self.source_dropout}; expected 0 to below 1",
        )
        require(
            all(not phase.loss for phase in self.phases),
            "phases: `loss` cannot change from phase to phase in this training",
        )
        require(self.zero_stage < 3, f"zero_stage={self.zero_stage}; take 2 or less here")
        for name in ("latent_dim", "in_channels"):
            value = self.model.get(name)
            require(
                value is None or (type(value) is int and value >= 1),
                f"model.{name}={value!r}; expected a whole number of 1 or more",
            )
        self.sampling.check_conditions(["source"])
        self.denoiser()

    def denoiser(self) -> DenoiserSettings:
        """Return what `model` says of the denoiser, read and checked."""
        fields = {k: v for k, v in self.model.items() if k not in ("latent_dim", "in_channels")}
        return DenoiserSettings.from_mapping({"family": "unet", **fields})
