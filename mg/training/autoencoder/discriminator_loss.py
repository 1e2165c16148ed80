"""The discriminator's own loss, beside the TAE's."""

from mindspore import Tensor, nn, ops

from mg.losses.adversarial import discriminator_accuracy, discriminator_loss, lecam_penalty
from mg.models.discriminator import Discriminator
from mg.training.autoencoder.autoencoder_config import AdversarialSettings

__all__ = ["DISCRIMINATOR_TERMS", "DiscriminatorLoss"]

DISCRIMINATOR_TERMS = ("disc_accuracy", "logits_real", "logits_fake", "lecam")


class DiscriminatorLoss(nn.Cell):
    """Loss of a discriminator on real and reconstructed frames, with LeCam if asked for."""

    def __init__(self, discriminator: Discriminator, settings: AdversarialSettings) -> None:
        super().__init__(auto_prefix=False)  # leaves parameter names as they are
        self.discriminator = discriminator
        self.settings = settings

    def construct(
        self, video: Tensor, frames: Tensor, mean_real: Tensor, mean_fake: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """Return (loss, terms in the order of DISCRIMINATOR_TERMS, loss); fp32 scalars.

        Args:
            video: real frames (B, 3, T, H, W) in [-1, 1].
            frames: their reconstruction, as it was before the autoencoder's update.
            mean_real, mean_fake: running means of the logits, scalars, for LeCam.
        """
        settings = self.settings
        real, fake = self.discriminator(video), self.discriminator(frames)
        loss = discriminator_loss(real, fake, kind=settings.loss)
        lecam = ops.zeros_like(loss)
        if settings.lecam_weight > 0:
            lecam = lecam_penalty(real, fake, mean_real, mean_fake)
            loss = loss + settings.lecam_weight * lecam
        accuracy = discriminator_accuracy(real, fake)
        return loss, (accuracy, real.mean(), fake.mean(), lecam), loss
