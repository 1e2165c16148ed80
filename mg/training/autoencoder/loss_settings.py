"""The losses of an autoencoder's training, and the discriminator's."""

import dataclasses

from mg.known_names import one_of
from mg.models.discriminator_config import DiscriminatorConfig
from mg.training.setting_checks import check_types, require
from mg.training.settings import OptimSettings

__all__ = ["AdversarialSettings", "LossSettings"]


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
        feature_weight: difference of the decoder's features from those of the network that
            `pretrained.vae` names, as attention maps (arXiv 1612.03928); for a decoder that starts
            anew with the encoder of those weights (`pretrained.vae.parts`).
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
    feature_weight: float = 0.0
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
    loss: str = one_of("hinge", ("hinge", "non_saturating"))
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
