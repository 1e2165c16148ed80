"""The TAE's training loss (Movie Gen 3.1.1): reconstruction, LPIPS, KL, outlier penalty."""

from mindspore import Tensor, nn, ops

from mg.losses.kl import kl_loss
from mg.losses.outlier import outlier_penalty_loss
from mg.losses.perceptual import PerceptualLoss
from mg.losses.reconstruction import l1_loss, mse_loss
from mg.models.tae.tae import TemporalAutoencoder
from mg.training.config import LossSettings

__all__ = ["LOSS_TERMS", "TAELoss"]

LOSS_TERMS = ("l1", "mse", "lpips", "kl", "opl")


class TAELoss(nn.Cell):
    """Weighted sum of the loss terms of one batch, with the terms themselves (unweighted)."""

    def __init__(
        self,
        tae: TemporalAutoencoder,
        settings: LossSettings,
        *,
        perceptual: PerceptualLoss | None = None,
    ) -> None:
        super().__init__(auto_prefix=False)  # leaves parameter names as they are
        self.tae = tae
        self.settings = settings
        self.perceptual = perceptual

    def construct(
        self, video: Tensor, noise: Tensor, frame_indices: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return (loss, terms in the order of LOSS_TERMS), float32 scalars.

        Args:
            video: (B, 3, T, H, W) in [-1, 1].
            noise: standard normal in the latent's shape.
            frame_indices: frames that LPIPS looks at, int32 (n,).
        """
        settings = self.settings
        mean, logvar = self.tae.moments(video)
        z = self.tae.sample(mean, logvar, noise)
        frames = self.tae.frames_from(z)
        if frames.shape[2] != video.shape[2]:
            frames = frames[:, :, : video.shape[2]]  # drop the spurious tail
        l1 = l1_loss(frames, video)
        mse = mse_loss(frames, video)
        kl = kl_loss(mean, logvar)
        loss = settings.l1_weight * l1 + settings.mse_weight * mse + settings.kl_loss_weight * kl
        lpips = ops.zeros_like(l1)
        if self.perceptual is not None:
            lpips = self.perceptual(video, frames, frame_indices)
            loss = loss + settings.perceptual_loss_weight * lpips
        opl = ops.zeros_like(l1)
        if settings.opl_loss_weight > 0:
            opl = outlier_penalty_loss(z, settings.opl_r)
            loss = loss + settings.opl_loss_weight * opl
        return loss, (l1, mse, lpips, kl, opl)
