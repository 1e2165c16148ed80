"""Every setting of a training run of an autoencoder, checked before anything is built."""

import dataclasses
import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mg.data.bucket_config import ClipBucket
from mg.data.buckets import Bucket
from mg.data.media_rules import Reading
from mg.known_names import did_you_mean
from mg.latent_spec import LatentSpec
from mg.models.families import AUTOENCODERS, AutoencoderFamily, autoencoder_family
from mg.shipped import find_shipped
from mg.training.autoencoder.loss_settings import AdversarialSettings, LossSettings
from mg.training.pretrained import (
    PretrainedSettings,
    PretrainedTarget,
    PretrainedVAESettings,
    check_pretrained,
)
from mg.training.setting_checks import require
from mg.training.settings import (
    DataSettings,
    GuardSettings,
    OptimSettings,
    PhaseSettings,
    RunSettings,
    ValidationSettings,
)
from mg.weights.stored_config import read_config

if TYPE_CHECKING:  # MindSpore takes seconds to import
    from mg.models.autoencoder import AutoencoderSettings

__all__ = [
    "AdversarialSettings",
    "AutoencoderModel",
    "DataSettings",
    "GuardSettings",
    "LossSettings",
    "OptimSettings",
    "PhaseSettings",
    "PretrainedSettings",
    "PretrainedVAESettings",
    "TrainAutoencoderConfig",
    "TrainVAEConfig",
    "ValidationSettings",
]

logger = logging.getLogger("mg")

SIDE_UNIT = 16  # sides of buckets are multiples of this, as Open-Sora's are


@dataclasses.dataclass(frozen=True)
class AutoencoderModel:
    """Which network is trained.

    Attributes:
        family: the network's family.
        config: the network's config; None takes the one stored with the weights to start from, and
            the family's default where there are none.
        changes: fields that differ from those stored with the weights, where `config` is None.
    """

    family: AutoencoderFamily
    config: "AutoencoderSettings | None"
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainAutoencoderConfig(RunSettings):
    """Train an autoencoder; subclasses add the field `model` and say what it means.

    Args:
        csv_path: CSV with a column video (path under video_folder) and optionally caption.
        video_folder: folder of videos, one video file, or WebDataset shards: a .tar, a pattern
            such as clips-{000..099}.tar, or a list of them.
        reading: largest frames that are read, held-out ones too (max_pixels), and whether
            pixels are made square.
        pretrained: weights to start from: a file, a folder or a public name, or a section that
            also says how they are treated; null starts from random weights.
        recompute: trade time for memory.
        data: how training clips are cut out of the videos.
        loss: weights of the loss terms.
        adversarial: a discriminator and its loss; null for none.
        validation: held-out clips.
    """

    csv_path: str | None = None
    video_folder: list[str] | str | None = None
    reading: Reading = dataclasses.field(default_factory=Reading)
    pretrained: str | PretrainedSettings | None = None
    recompute: bool = False
    data: DataSettings = dataclasses.field(default_factory=DataSettings)
    loss: LossSettings = dataclasses.field(default_factory=LossSettings)
    adversarial: AdversarialSettings | None = None
    validation: ValidationSettings = dataclasses.field(default_factory=ValidationSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.csv_path is not None or self.video_folder is not None,
            "no data: set video_folder (a folder or a file), or csv_path with video_folder",
        )
        losses = [self.loss, *map(self.loss_of_phase, self.phases)]
        require(
            self.starts_in_part() or all(loss.feature_weight == 0 for loss in losses),
            "loss.feature_weight compares a new decoder with that of other weights; name them in "
            "pretrained.vae.model_name, and what comes from them in pretrained.vae.parts",
        )
        section = self._pretrained_section()
        if section is not None:
            check_pretrained(
                section,
                self.target(),
                phases=self.phases,
                train=self.train,
                lr_multipliers=self.lr_multipliers,
            )
        if self.model_to_train().config is not None or self.start_weights() is None:
            self.check_sizes(math.lcm(self._spec().h, self._spec().w))
        if self.adversarial is not None:
            self._check_adversarial(self.adversarial)
        require(
            self.zero_stage < 3,
            "zero_stage=3 shares out the matrices of denoisers; an autoencoder has none of that "
            "size: take 2 or less",
        )

    def model_to_train(self) -> AutoencoderModel:
        """Return which network is trained."""
        raise NotImplementedError(f"{type(self).__name__} does not say which network it trains")

    def clip_buckets(self) -> tuple[ClipBucket, ...]:
        """Return the buckets of the training clips; none without data.bucket_config."""
        return self.data.clip_buckets(math.lcm(SIDE_UNIT, self._spec().h, self._spec().w))

    def clip_sizes(self) -> list[Bucket]:
        """Return the sizes of the training clips."""
        sizes = [bucket.size for bucket in self.clip_buckets()]
        return sizes or [Bucket(self.data.sample_n_frames, *self.data.height_width)]

    def _spec(self) -> LatentSpec:
        """Return the latents of the network; while its config is not known, of its family's."""
        network = self.model_to_train()
        return (network.config or network.family.read_config({})).spec

    def target(self) -> PretrainedTarget:
        """Return what this training makes of `pretrained`.

        Of another family's weights, all but the layers along time come from them.
        """
        family = self.model_to_train().family
        return PretrainedTarget(
            families=(family.name, *family.starts_from),
            trained_first=("temporal",),
            parts={half: half for half in ("vae_encoder", "vae_decoder")},
        )

    def start_weights(self) -> PretrainedVAESettings | None:
        """Return what the network starts from; None for random weights."""
        section = self._pretrained_section()
        return section.vae if section is not None and section.is_used else None

    def starts_in_part(self) -> bool:
        """Return whether weights to start from are for a part of the network alone."""
        start = self.start_weights()
        return start is not None and start.parts is not None

    def _pretrained_section(self) -> PretrainedSettings | None:
        if self.pretrained is None or isinstance(self.pretrained, PretrainedSettings):
            return self.pretrained
        return PretrainedSettings(vae=PretrainedVAESettings(model_name=str(self.pretrained)))

    def check_sizes(self, factor: int) -> None:
        """Raise ValueError for crops that the network cannot halve as often as it has to.

        Args:
            factor: sides must be multiples of it.
        """
        sizes = {"data": self.clip_sizes()}
        if self.validation.csv_path or self.validation.video_folder:
            sizes["validation"] = [Bucket(1, *self.validation.height_width)]
        for section, buckets in sizes.items():
            for size in buckets:
                given = f"size={getattr(self, section).size}"
                if section == "data" and self.data.bucket_config is not None:
                    given = f"bucket_config, {size}"
                require(
                    size.height % factor == 0 and size.width % factor == 0,
                    f"{section}.{given}; the network needs a multiple of {factor}",
                )

    def _check_adversarial(self, adversarial: AdversarialSettings) -> None:
        require(
            adversarial.start_step < self.steps,
            f"adversarial.start_step={adversarial.start_step} lies behind the last of "
            f"steps={self.steps}: the discriminator would never train",
        )
        num_steps = self.steps - adversarial.start_step
        require(
            adversarial.warmup_steps < num_steps or adversarial.warmup_steps == 0,
            f"adversarial.warmup_steps={adversarial.warmup_steps} must be below the {num_steps} "
            "steps that the discriminator trains",
        )
        least = adversarial.network.min_size
        for size in self.clip_sizes():
            require(
                min(size.height, size.width) >= least,
                f"adversarial.network.num_layers={adversarial.network.num_layers} needs crops of "
                f"at least {least} pixels, but some are {size.height}x{size.width}; take fewer "
                "layers",
            )

    def loss_of_phase(self, phase: PhaseSettings) -> LossSettings:
        """Return the loss settings with the changes of a phase."""
        names = [field.name for field in dataclasses.fields(LossSettings)]
        for name in phase.loss:
            if name not in names:
                hint = did_you_mean(name, names, f"expected one of {names}")
                raise ValueError(f"phases: loss has no field {name!r}; {hint}")
            require(
                not name.startswith("lpips_"),
                f"phases: loss.{name} is one for the whole run; set it outside of the phases",
            )
        try:
            return dataclasses.replace(self.loss, **phase.loss)
        except ValueError as error:
            raise ValueError(f"phases: {error}") from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainVAEConfig(TrainAutoencoderConfig):
    """Train a video autoencoder of any family.

    Args:
        model: the network: `family`, and fields of that family's config or `config`, the path of a
            config.json with them; without either it is the one stored with pretrained, or the
            family's default. `from_pretrained` is another way to write `pretrained`;
            `disc_off_grad_ckpt`, Open-Sora's, has nothing to do here. What a CausalVideoVAE's
            config says of its training is that of the run (docs/vae.md).
    """

    model: dict[str, Any] = dataclasses.field(metadata={"families": "autoencoders"})

    def __post_init__(self) -> None:
        fields = {name: value for name, value in self.model.items() if value is not None}
        if fields.pop("disc_off_grad_ckpt", None) is not None:
            logger.info(
                "model.disc_off_grad_ckpt has nothing to do here: the adaptive weight is found "
                "from the decoder's last convolution, which is never recomputed."
            )
        weights = fields.pop("from_pretrained", None)
        if weights is not None:
            require(
                self.pretrained in (None, weights),
                "model.from_pretrained and pretrained both name weights to start from; keep one",
            )
            object.__setattr__(self, "pretrained", str(weights))
        object.__setattr__(self, "model", fields)
        super().__post_init__()

    def model_to_train(self) -> AutoencoderModel:
        """Return which network is trained.

        Raises:
            ValueError: no or an unknown family, or fields that no network can be built from.
            FileNotFoundError: there is no such config.json.
        """
        fields = dict(self.model)
        name = fields.pop("family", None)
        require(name is not None, f"model.family is missing: one of {', '.join(AUTOENCODERS)}")
        path = fields.pop("config", None)
        try:
            family = autoencoder_family(name)
            if path is not None:
                fields = {**read_config(find_shipped(path)), **fields}
            if self.starts_in_part():
                return AutoencoderModel(family, None, fields)
            return AutoencoderModel(family, family.read_config(fields) if fields else None)
        except ValueError as error:
            raise ValueError(f"model: {error}") from error
