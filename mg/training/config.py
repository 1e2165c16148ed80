"""Every setting of a training run of an autoencoder, checked before anything is built."""

import dataclasses
import difflib
import math
from typing import TYPE_CHECKING, Any

from mg.data.media_rules import Reading
from mg.models.discriminator_config import DiscriminatorConfig
from mg.models.families import AUTOENCODERS, AutoencoderFamily, autoencoder_family
from mg.models.tae.config import TAEConfig
from mg.shipped import find_shipped
from mg.training.pretrained import (
    PretrainedSettings,
    PretrainedTarget,
    PretrainedVAESettings,
    check_pretrained,
)
from mg.training.setting_checks import check_types, require
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
    "TrainTAEConfig",
    "TrainVAEConfig",
    "ValidationSettings",
]


@dataclasses.dataclass(frozen=True)
class AutoencoderModel:
    """Which network is trained.

    Attributes:
        family: the network's family.
        config: the network's config; None takes the one stored with the weights to start from, and
            the family's default where there are none.
    """

    family: AutoencoderFamily
    config: "AutoencoderSettings | None"


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
        lcr_weight: local-correlation regulariser (SSVAE, arXiv 2512.05394): latents whose
            neighbours agree are learnt faster by generators. SSVAE has 0.1, adaptive.
        lcr_threshold: correlation of neighbours that is enough.
        lcr_adaptive: scale lcr_weight by the ratio of the gradient norms of reconstruction and
            regulariser at the latent. Costs one more pass back through the decoder.
        lpips_path: LPIPS weights; null takes those that mg fetch-lpips stored.
        lpips_num_frames: frames of each clip that LPIPS looks at, drawn anew each step; null
            for all.
    """

    l1_weight: float = 1.0
    mse_weight: float = 0.0
    perceptual_loss_weight: float = 1.0
    kl_loss_weight: float = 1e-6
    opl_loss_weight: float = 0.0
    opl_r: float = 3.0
    lcr_weight: float = 0.0
    lcr_threshold: float = 0.75
    lcr_adaptive: bool = True
    lpips_path: str | None = None
    lpips_num_frames: int | None = None

    def __post_init__(self) -> None:
        check_types(self, "loss.")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("weight"):
                require(value >= 0, f"loss.{field.name}={value}; expected 0 or more")
        require(self.opl_r >= 0, f"loss.opl_r={self.opl_r}; expected 0 or more")
        require(
            0 < self.lcr_threshold <= 1,
            f"loss.lcr_threshold={self.lcr_threshold}; expected more than 0, and 1 at most",
        )
        require(
            self.lpips_num_frames is None or self.lpips_num_frames >= 1,
            f"loss.lpips_num_frames={self.lpips_num_frames}; expected 1 or more, or null",
        )
        require(
            self.l1_weight + self.mse_weight + self.perceptual_loss_weight > 0,
            "loss: all reconstruction weights are 0, so nothing would be learned; set l1_weight",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdversarialSettings:
    """A discriminator that is trained against the autoencoder, and its share of the loss.

    One step is one update of the autoencoder and one of the discriminator.

    Args:
        weight: weight of the generator's loss.
        start_step: the step at which the discriminator joins.
        loss: hinge or non_saturating.
        adaptive: scale the weight by the ratio of the gradient norms of reconstruction and
            generator loss at the decoder's last layer (Esser et al., arXiv 2012.09841, eq. 7).
        max_adaptive_weight: upper end of that ratio.
        lecam_weight: weight of the LeCam regularisation (arXiv 2104.03310); 0 leaves it out.
        lecam_decay: decay of the running means of the logits that LeCam compares with.
        lr: learning rate of the discriminator, constant after warm-up.
        warmup_steps: steps of linear warm-up after start_step.
        betas: AdamW's decay rates of the first and second moment.
        weight_decay: decoupled weight decay of the discriminator.
        clip_grad_norm: largest gradient norm of the discriminator; null for no clipping.
        network: the discriminator.
    """

    weight: float = 0.5
    start_step: int = 0
    loss: str = "hinge"
    adaptive: bool = True
    max_adaptive_weight: float = 1e4
    lecam_weight: float = 0.0
    lecam_decay: float = 0.99
    lr: float = 1e-4
    warmup_steps: int = 0
    betas: tuple[float, float] = (0.5, 0.9)
    weight_decay: float = 0.0
    clip_grad_norm: float | None = 1.0
    network: DiscriminatorConfig = dataclasses.field(default_factory=DiscriminatorConfig)

    def __post_init__(self) -> None:
        check_types(self, "adversarial.")
        for name in ("weight", "max_adaptive_weight"):
            value = getattr(self, name)
            require(value > 0, f"adversarial.{name}={value}; expected more than 0")
        for name in ("start_step", "lecam_weight"):
            value = getattr(self, name)
            require(value >= 0, f"adversarial.{name}={value}; expected 0 or more")
        require(
            self.loss in ("hinge", "non_saturating"),
            f"adversarial.loss={self.loss!r}; expected hinge or non_saturating",
        )
        require(
            0 < self.lecam_decay < 1,
            f"adversarial.lecam_decay={self.lecam_decay}; expected a number between 0 and 1",
        )
        try:
            self.optim_settings(accumulation_steps=1)
        except ValueError as error:
            raise ValueError(str(error).replace("optim.", "adversarial.")) from error

    def optim_settings(self, *, accumulation_steps: int) -> OptimSettings:
        """Return the settings of the discriminator's own optimiser."""
        return OptimSettings(
            lr=self.lr,
            warmup_steps=self.warmup_steps,
            betas=self.betas,
            weight_decay=self.weight_decay,
            clip_grad_norm=self.clip_grad_norm,
            accumulation_steps=accumulation_steps,
            ema_decay=None,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainAutoencoderConfig(RunSettings):
    """Train an autoencoder; subclasses add the field `model` and say what it means.

    Args:
        csv_path: CSV with a column video (path under video_folder) and optionally caption.
        video_folder: folder of videos, or one video file.
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
    video_folder: str | None = None
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
        for phase in self.phases:
            self.loss_of_phase(phase)
        section = self._pretrained_section()
        if section is not None:
            check_pretrained(
                section,
                self.target(),
                phases=self.phases,
                train=self.train,
                lr_multipliers=self.lr_multipliers,
            )
        network = self.model_to_train()
        if network.config is not None or self.start_weights() is None:
            spec = (network.config or network.family.read_config({})).spec
            self._check_sizes(math.lcm(spec.h, spec.w))
        if self.adversarial is not None:
            self._check_adversarial(self.adversarial)
        require(
            self.zero_stage < 3,
            "zero_stage=3 shares out the matrices of the Movie Gen transformer; the autoencoder "
            "has none of that size: take 2 or less",
        )

    def model_to_train(self) -> AutoencoderModel:
        """Return which network is trained."""
        raise NotImplementedError(f"{type(self).__name__} does not say which network it trains")

    def target(self) -> PretrainedTarget:
        """Return what this training makes of `pretrained`.

        Of another family's weights, all but the layers along time come from them.
        """
        family = self.model_to_train().family
        return PretrainedTarget(
            families=(family.name, *family.starts_from),
            trained_first=("temporal",),
            parts={"vae_encoder": "encoder", "vae_decoder": "decoder"},
        )

    def start_weights(self) -> PretrainedVAESettings | None:
        """Return what the network starts from; None for random weights."""
        section = self._pretrained_section()
        return section.vae if section is not None and section.is_used else None

    def _pretrained_section(self) -> PretrainedSettings | None:
        if self.pretrained is None or isinstance(self.pretrained, PretrainedSettings):
            return self.pretrained
        return PretrainedSettings(vae=PretrainedVAESettings(model_name=str(self.pretrained)))

    def _check_sizes(self, factor: int) -> None:
        """Refuse crops that the network cannot halve as often as it has to."""
        is_validated = self.validation.csv_path or self.validation.video_folder
        for section in ("data", "validation") if is_validated else ("data",):
            settings = getattr(self, section)
            require(
                all(side % factor == 0 for side in settings.height_width),
                f"{section}.size={settings.size}; the network needs a multiple of {factor}",
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
        require(
            min(self.data.height_width) >= least,
            f"adversarial.network.num_layers={adversarial.network.num_layers} needs crops of at "
            f"least {least} pixels, but data.size={self.data.size}; take fewer layers",
        )

    def loss_of_phase(self, phase: PhaseSettings) -> LossSettings:
        """Return the loss settings with the changes of a phase."""
        names = [field.name for field in dataclasses.fields(LossSettings)]
        for name in phase.loss:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"expected one of {names}"
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
class TrainTAEConfig(TrainAutoencoderConfig):
    """Train the temporal autoencoder.

    Args:
        model: the network (keys of TAE_CONFIG); null takes the config stored with pretrained, and
            the full-size one without.
    """

    model: TAEConfig | None = None

    def model_to_train(self) -> AutoencoderModel:
        return AutoencoderModel(autoencoder_family("tae"), self.model)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainVAEConfig(TrainAutoencoderConfig):
    """Train a video autoencoder of any family.

    Args:
        model: the network: `family`, and fields of that family's config or `config`, the path of a
            config.json with them; without either it is the one stored with pretrained, or the
            family's default. `from_pretrained` is another way to write `pretrained`.
    """

    model: dict[str, Any]

    def __post_init__(self) -> None:
        fields = {name: value for name, value in self.model.items() if value is not None}
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
            return AutoencoderModel(family, family.read_config(fields) if fields else None)
        except ValueError as error:
            raise ValueError(f"model: {error}") from error
