"""The video model's training loss (Movie Gen 3.1.2): flow matching on latents drawn afresh."""

import mindspore as ms
from mindspore import Tensor, nn

from mg.flow.path import noisy_latent, target_velocity
from mg.training.denoiser.latent_error import LatentError

__all__ = ["FlowLoss"]


class FlowLoss(nn.Cell):
    """Error of the velocity, in float32; the mean squared one unless the weights say otherwise.

    Args:
        network: (latent (B, C, T, H, W), t (B,), *conditions) -> velocity of the latent's shape.
        mse_weight, l1_weight: of the mean squared and the mean absolute error.
    """

    def __init__(self, network: nn.Cell, mse_weight: float = 1.0, l1_weight: float = 0.0) -> None:
        super().__init__(auto_prefix=False)  # leaves parameter names as they are
        self.network = network
        self.error = LatentError(mse_weight, l1_weight)

    def construct(
        self,
        mean: Tensor,
        std: Tensor,
        posterior_noise: Tensor,
        noise: Tensor,
        t: Tensor,
        *conditions: Tensor,
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """Return (loss, its only term, loss of each clip (B,)), in fp32.

        Args:
            mean, std: the autoencoder's posterior, scaled, float32 (B, C, T, H, W).
            posterior_noise: standard normal, the same shape; draws the latent.
            noise: x_0, standard normal, the same shape.
            t: (B,) in [0, 1]; see `draw_times`.
            conditions: what the network is conditioned on, such as the embedding and the mask of
                each text encoder.
        """
        data = mean + std * posterior_noise
        velocity = self.network(noisy_latent(data, noise, t), t, *conditions).astype(ms.float32)
        per_clip = self.error(velocity - target_velocity(data, noise))  # (B, C, T, H, W) -> (B,)
        loss = per_clip.mean()
        return loss, (loss,), per_clip
