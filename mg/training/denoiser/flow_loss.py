"""The video model's training loss (Movie Gen 3.1.2): flow matching on latents drawn afresh."""

import mindspore as ms
from mindspore import Tensor, nn, ops

from mg.flow.path import noisy_latent, target_velocity

__all__ = ["FlowLoss"]


class FlowLoss(nn.Cell):
    """Mean squared error of the velocity, in float32.

    Args:
        network: (latent (B, C, T, H, W), t (B,), *conditions) -> velocity of the latent's shape.
    """

    def __init__(self, network: nn.Cell) -> None:
        super().__init__(auto_prefix=False)  # leaves parameter names as they are
        self.network = network

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
        error = velocity - target_velocity(data, noise)
        per_clip = ops.square(error).mean((1, 2, 3, 4))  # (B, C, T, H, W) -> (B,)
        loss = per_clip.mean()
        return loss, (loss,), per_clip
