"""Every setting of a training run, checked before anything is built."""

import dataclasses

from mg.device import DeviceConfig
from mg.models.tae.config import TAEConfig

__all__ = [
    "DataSettings",
    "LossSettings",
    "OptimSettings",
    "TrainTAEConfig",
    "ValidationSettings",
]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings:
    """How training clips are cut out of the videos.

    Args:
        sample_n_frames: frames per clip.
        size: height and width of the crop in pixels, a multiple of 8.
        sample_stride: take every n-th source frame.
        short_side_range: [min, max] pixels the short side is scaled to before the crop; null for
            just large enough.
        crop: center or random.
        flip: mirror half of the clips.
        mixed_strategy: video_only, image_only or mixed_video_image.
        mixed_image_ratio: share of image steps with mixed_video_image.
        num_workers: processes that read and decode.
    """

    sample_n_frames: int = 16
    size: int = 256
    sample_stride: int = 1
    short_side_range: tuple[int, int] | None = None
    crop: str = "random"
    flip: bool = True
    mixed_strategy: str = "video_only"
    mixed_image_ratio: float = 0.0
    num_workers: int = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossSettings:
    """Weights of the loss terms (Movie Gen 3.1.1); 0 leaves a term out.

    Args:
        l1_weight: mean absolute error of the pixels.
        mse_weight: mean squared error of the pixels.
        perceptual_loss_weight: LPIPS (VGG16), mean over frames.
        kl_loss_weight: KL divergence, summed over a sample's latent, mean over the batch.
        opl_loss_weight: outlier penalty, mean over the latent. The paper uses 1e5; two published
            re-implementations found that it hurts, so it is off.
        opl_r: standard deviations that are free of the outlier penalty.
        lpips_path: LPIPS weights; null takes those that tools/fetch_lpips.py stored.
        lpips_num_frames: frames of each clip that LPIPS looks at, drawn anew each step; null
            for all.
    """

    l1_weight: float = 1.0
    mse_weight: float = 0.0
    perceptual_loss_weight: float = 1.0
    kl_loss_weight: float = 1e-6
    opl_loss_weight: float = 0.0
    opl_r: float = 3.0
    lpips_path: str | None = None
    lpips_num_frames: int | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("weight"):
                _require(value >= 0, f"loss.{field.name}={value}; expected 0 or more")
        _require(
            self.l1_weight + self.mse_weight + self.perceptual_loss_weight > 0,
            "loss: all reconstruction weights are 0, so nothing would be learned; set l1_weight",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimSettings:
    """AdamW and its learning rate.

    Args:
        lr: learning rate after warm-up.
        lr_schedule: constant or cosine (falls to lr_end at the last step).
        lr_end: learning rate that cosine ends with.
        warmup_steps: steps of linear warm-up from 0.
        betas: AdamW's decay rates of the first and second moment.
        eps: AdamW's epsilon.
        weight_decay: decoupled weight decay, on weights of two or more axes.
        clip_grad_norm: largest global gradient norm; null for no clipping.
        accumulation_steps: batches whose gradients are averaged for one update.
        ema_decay: decay of the averaged weights; null keeps none. Validation and the final
            weights use them.
    """

    lr: float = 1e-5
    lr_schedule: str = "constant"
    lr_end: float = 0.0
    warmup_steps: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_grad_norm: float | None = 1.0
    accumulation_steps: int = 1
    ema_decay: float | None = 0.999

    def __post_init__(self) -> None:
        _require(self.lr > 0, f"optim.lr={self.lr}; expected more than 0")
        _require(
            self.lr_schedule in ("constant", "cosine"),
            f"optim.lr_schedule={self.lr_schedule!r}; expected constant or cosine",
        )
        _require(
            self.accumulation_steps >= 1,
            f"optim.accumulation_steps={self.accumulation_steps}; expected 1 or more",
        )
        _require(
            self.ema_decay is None or 0 < self.ema_decay < 1,
            f"optim.ema_decay={self.ema_decay}; expected a number between 0 and 1, or null",
        )
        _require(
            self.clip_grad_norm is None or self.clip_grad_norm > 0,
            f"optim.clip_grad_norm={self.clip_grad_norm}; expected more than 0, or null",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValidationSettings:
    """Held-out clips that are reconstructed while training.

    Args:
        csv_path: CSV of the held-out clips; null with no video_folder: no validation.
        video_folder: their folder.
        interval: steps between validations; the first and the last step always validate.
        num_frames: frames of each clip, from its start.
        size: height and width in pixels.
    """

    csv_path: str | None = None
    video_folder: str | None = None
    interval: int = 1000
    num_frames: int = 32
    size: int = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainTAEConfig(DeviceConfig):
    """Train the temporal autoencoder.

    Args:
        output_path: folder for weights, logs, videos and curves.
        csv_path: CSV with a column video (path under video_folder) and optionally caption.
        video_folder: folder of videos, or one video file.
        pretrained: weights to start from; null starts from random weights.
        model: the network (keys of TAE_CONFIG); null takes the config stored with pretrained, and
            the full-size one without.
        resume: go on from the newest checkpoint in output_path.
        overwrite: allow an output_path that holds another run; its files are replaced.
        steps: updates in all.
        max_minutes: stop early after so many minutes, with the same closing work; null for none.
        batch_size: clips per device and step.
        seed: fixes data order, crops and noise.
        dtype: float32, float16 or bfloat16, of the network's computation.
        loss_scale: factor on the loss in float16, halved on overflow.
        recompute: trade time for memory.
        freeze: patterns (shell style) of parameter names that stay as they are.
        checkpoint_interval: steps between checkpoints.
        keep_checkpoints: how many checkpoints to keep.
        log_interval: steps between lines of the text log.
        tensorboard: also write TensorBoard events (needs tensorboardX).
    """

    output_path: str
    csv_path: str | None = None
    video_folder: str | None = None
    pretrained: str | None = None
    model: TAEConfig | None = None
    resume: bool = False
    overwrite: bool = False
    steps: int = 1000
    max_minutes: float | None = None
    batch_size: int = 1
    seed: int = 0
    dtype: str = "float32"
    loss_scale: float = 65536.0
    recompute: bool = False
    freeze: list[str] = dataclasses.field(default_factory=list)
    checkpoint_interval: int = 1000
    keep_checkpoints: int = 2
    log_interval: int = 50
    tensorboard: bool = False
    data: DataSettings = dataclasses.field(default_factory=DataSettings)
    loss: LossSettings = dataclasses.field(default_factory=LossSettings)
    optim: OptimSettings = dataclasses.field(default_factory=OptimSettings)
    validation: ValidationSettings = dataclasses.field(default_factory=ValidationSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "batch_size", "checkpoint_interval", "keep_checkpoints"):
            value = getattr(self, name)
            _require(value >= 1, f"{name}={value}; expected 1 or more")
        _require(
            self.csv_path is not None or self.video_folder is not None,
            "no data: set video_folder (a folder or a file), or csv_path with video_folder",
        )
        _require(
            self.dtype in ("float32", "float16", "bfloat16"),
            f"dtype={self.dtype!r}; expected float32, float16 or bfloat16",
        )
        _require(
            self.optim.warmup_steps < self.steps or self.optim.warmup_steps == 0,
            f"optim.warmup_steps={self.optim.warmup_steps} must be below steps={self.steps}",
        )
