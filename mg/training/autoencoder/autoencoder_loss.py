"""An autoencoder's training loss (Movie Gen 3.1.1): reconstruction, LPIPS, KL, outliers, GAN."""

import mindspore as ms
from mindspore import Tensor, nn, ops

from mg.losses.adversarial import adaptive_weight, generator_loss
from mg.losses.attention_transfer import attention_transfer_loss
from mg.losses.kl import kl_loss
from mg.losses.local_correlation import local_correlation_loss
from mg.losses.outlier import outlier_penalty_loss
from mg.losses.perceptual import PerceptualLoss
from mg.losses.reconstruction import l1_loss, mse_loss
from mg.models.autoencoder import Autoencoder
from mg.models.discriminator import Discriminator
from mg.parallel.collectives import GradientMean
from mg.parallel.ranks import ONE_RANK, Ranks
from mg.training.autoencoder.autoencoder_config import AdversarialSettings, LossSettings

__all__ = ["LOSS_TERMS", "AutoencoderLoss"]

LOSS_TERMS = (
    *("l1", "mse", "lpips", "kl", "opl", "lcr", "lcr_weight"),
    *("features", "adv", "adv_weight"),
)
# Of the regulariser's adaptive weight: one that is satisfied has no gradient. Both losses are
# means, so their gradients at the latent are small numbers.
LCR_NORM_FLOOR, MAX_LCR_WEIGHT = 1e-9, 1e4


class AutoencoderLoss(nn.Cell):
    """Weighted sum of the loss terms of one batch, with the terms themselves (unweighted).

    Args:
        autoencoder: the network that is trained.
        settings: weights of the terms.
        perceptual: LPIPS; None leaves it out.
        adversarial: settings of the generator's loss, with `discriminator`.
        discriminator: judges the reconstruction; None leaves the generator's loss out.
        teacher: another network of the same latents, whose decoder's features are learnt from;
            None leaves that out.
        ranks: over which the adaptive weight's gradients are averaged.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        settings: LossSettings,
        *,
        perceptual: PerceptualLoss | None = None,
        adversarial: AdversarialSettings | None = None,
        discriminator: Discriminator | None = None,
        teacher: Autoencoder | None = None,
        ranks: Ranks = ONE_RANK,
    ) -> None:
        super().__init__(auto_prefix=False)  # leaves parameter names as they are
        self.autoencoder = autoencoder
        self.settings = settings
        self.perceptual = perceptual
        self.adversarial = adversarial
        self.discriminator = discriminator
        self.teacher = teacher
        size = autoencoder.last_weight.size
        self.mean_of_gradients = GradientMean(ranks, [size, size])
        self.reconstruction_and_gradient = ms.value_and_grad(self._reconstruction, 0, has_aux=True)
        self.generator_and_gradient = ms.value_and_grad(self._generator, 0)
        self.last_layer_gradient = ms.grad(self._projection, 0)
        self.mean_of_squares = GradientMean(ranks, [1, 1])
        self.correlation_gradient = ms.grad(self._local_correlation, 0)
        self.latent_gradient = ms.grad(self._reconstruction_of_latent, 0)

    def construct(
        self, video: Tensor, noise: Tensor, frame_indices: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """Return (loss, terms in the order of LOSS_TERMS, reconstruction); fp32 scalars first.

        Args:
            video: (B, 3, T, H, W) in [-1, 1].
            noise: standard normal in the latent's shape.
            frame_indices: frames that LPIPS looks at, int32 (n,).
        """
        settings = self.settings
        mean, logvar = self.autoencoder.moments(video)
        z = self.autoencoder.sample(mean, logvar, noise)
        features, num_frames = self.autoencoder.features(z, video.shape[2])
        frames = self._frames(self.autoencoder.last_weight, features, num_frames, video.shape[2])
        # A point has no distance from a normal distribution.
        kl = kl_loss(mean, logvar) if self.autoencoder.has_posterior else ops.zeros_like(z.mean())
        rest = settings.kl_loss_weight * kl
        opl = ops.zeros_like(kl)
        if settings.opl_loss_weight > 0:
            opl = outlier_penalty_loss(z, settings.opl_r)
            rest = rest + settings.opl_loss_weight * opl
        lcr, lcr_weight = ops.zeros_like(kl), ops.zeros_like(kl)
        if settings.lcr_weight > 0:
            lcr = self._local_correlation(z)
            lcr_weight = self._correlation_weight(z, video, frame_indices, lcr)
            rest = rest + lcr_weight * lcr
        likeness = ops.zeros_like(kl)
        if self.teacher is not None:
            target, _ = self.teacher.features(z, video.shape[2])
            likeness = attention_transfer_loss(features, ops.stop_gradient(target))
            rest = rest + settings.feature_weight * likeness
        if self.discriminator is None:
            main, (l1, mse, lpips) = self._reconstruction(frames, video, frame_indices)
            adv, weight = ops.zeros_like(kl), ops.zeros_like(kl)
        elif self.adversarial.adaptive:
            main, (l1, mse, lpips), adv, weight = self._with_adaptive_weight(
                features, num_frames, frames, video, frame_indices
            )
        else:
            main, (l1, mse, lpips) = self._reconstruction(frames, video, frame_indices)
            adv = self._generator(frames)
            weight = ops.ones_like(kl) * self.adversarial.weight
            main = main + weight * adv
        terms = (l1, mse, lpips, kl, opl, lcr, lcr_weight, likeness, adv, weight)
        return main + rest, terms, frames

    def _local_correlation(self, z: Tensor) -> Tensor:
        return local_correlation_loss(z, self.settings.lcr_threshold)

    def _reconstruction_of_latent(self, z: Tensor, video: Tensor, frame_indices: Tensor) -> Tensor:
        features, num_frames = self.autoencoder.features(z, video.shape[2])
        frames = self._frames(self.autoencoder.last_weight, features, num_frames, video.shape[2])
        return self._reconstruction(frames, video, frame_indices)[0]

    def _correlation_weight(
        self, z: Tensor, video: Tensor, frame_indices: Tensor, lcr: Tensor
    ) -> Tensor:
        """Return the regulariser's weight: w, or adaptive w |dL_rec/dz| / |dL_lcr/dz|.

        SSVAE takes both norms at the encoder's last layer. The latent z is where both losses meet:
        all of the encoder sees them through it alone.
        """
        settings = self.settings
        if not settings.lcr_adaptive:
            return ops.ones_like(lcr) * settings.lcr_weight
        fixed = ops.stop_gradient(z)
        squares = self.mean_of_squares(
            (
                ops.square(self.latent_gradient(fixed, video, frame_indices)).sum().reshape(1),
                ops.square(self.correlation_gradient(fixed)).sum().reshape(1),
            ),
            lcr,
        )
        weight = ops.sqrt(squares[0][0]) / (ops.sqrt(squares[1][0]) + LCR_NORM_FLOOR)
        return ops.stop_gradient(settings.lcr_weight * ops.clamp(weight, max=MAX_LCR_WEIGHT))

    def _frames(self, weight: Tensor, features: Tensor, num_frames: int, num_wanted: int) -> Tensor:
        """Return the decoder's last layer on its features, without the spurious tail."""
        frames = self.autoencoder.frames_of_features(features, num_frames, weight)
        if frames.shape[2] != num_wanted:
            frames = frames[:, :, :num_wanted]
        return frames

    def _reconstruction(
        self, frames: Tensor, video: Tensor, frame_indices: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Return the weighted reconstruction loss and (l1, mse, lpips)."""
        settings = self.settings
        l1, mse = l1_loss(frames, video), mse_loss(frames, video)
        loss = settings.l1_weight * l1 + settings.mse_weight * mse
        lpips = ops.zeros_like(l1)
        if self.perceptual is not None:
            lpips = self.perceptual(video, frames, frame_indices)
            loss = loss + settings.perceptual_loss_weight * lpips
        return loss, (l1, mse, lpips)

    def _generator(self, frames: Tensor) -> Tensor:
        return generator_loss(self.discriminator(frames), kind=self.adversarial.loss)

    def _projection(
        self, weight: Tensor, features: Tensor, num_frames: int, gradient: Tensor
    ) -> Tensor:
        """Return <frames, gradient>: its gradient by the weight is that of the frames' loss."""
        frames = self._frames(weight, features, num_frames, gradient.shape[2])
        return (frames * gradient).sum()

    def _with_adaptive_weight(
        self,
        features: Tensor,
        num_frames: int,
        frames: Tensor,
        video: Tensor,
        frame_indices: Tensor,
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor], Tensor, Tensor]:
        """Return (loss, reconstruction terms, generator loss, its weight).

        Esser et al. (arXiv 2012.09841) eq. 7: the generator's loss L_adv is weighted by

            w |dL_rec/dW| / (|dL_adv/dW| + 1e-4)       W: the decoder's last weight

        Both losses see the network through the frames x alone. So their gradients G by x are
        computed once, here; |dL/dW| is that of <x(W), G>; and the outer backward pass goes on from
        <x, G_rec + weight G_adv>, whose gradient is that of the weighted sum.
        """
        fixed = ops.stop_gradient(frames)
        (reconstruction, terms), by_reconstruction = self.reconstruction_and_gradient(
            fixed, video, frame_indices
        )
        adv, by_generator = self.generator_and_gradient(fixed)
        by_weight = self.mean_of_gradients(
            (
                self._by_last_weight(features, num_frames, by_reconstruction),
                self._by_last_weight(features, num_frames, by_generator),
            ),
            adv,
        )
        weight = self.adversarial.weight * adaptive_weight(
            _norm(by_weight[0]),
            _norm(by_weight[1]),
            max_weight=self.adversarial.max_adaptive_weight,
        )
        weight = ops.stop_gradient(weight)
        gradient = ops.stop_gradient(by_reconstruction + weight * by_generator)
        linear = (frames * gradient).sum()
        loss = ops.stop_gradient(reconstruction + weight * adv)
        # The value of the loss, with the gradient of the linear form.
        return loss + (linear - ops.stop_gradient(linear)), terms, adv, weight

    def _by_last_weight(self, features: Tensor, num_frames: int, gradient: Tensor) -> Tensor:
        """Return dL/dW by the decoder's last weight W, given `gradient` = dL/dx."""
        # A mean's gradient is tiny per pixel: as a sum's it survives float16.
        size = gradient.size
        by_weight = self.last_layer_gradient(
            self.autoencoder.last_weight, ops.stop_gradient(features), num_frames, gradient * size
        )
        return by_weight / size


def _norm(tensor: Tensor) -> Tensor:
    return ops.sqrt(ops.square(tensor).sum())
