"""The video model's training loss (Movie Gen 3.1.2): flow matching on latents drawn afresh."""

import mindspore as ms
from mindspore import Tensor, nn, ops

from mg.flow.path import noisy_latent, target_velocity

__all__ = ["FLOW_TERMS", "FlowLoss"]

FLOW_TERMS = ("mse",)


class FlowLoss(nn.Cell):
    """Mean squared error of the velocity, in float32.

    Args:
        network: (latent (B, C, T, H, W), t (B,), *text) -> velocity of the latent's shape.
        scaling_factor, shift_factor: of the autoencoder; the network sees
            scaling_factor * z + shift_factor.
    """

    def __init__(
        self, network: nn.Cell, *, scaling_factor: float = 1.0, shift_factor: float = 0.0
    ) -> None:
        super().__init__(auto_prefix=False)  # leaves parameter names as they are
        self.network = network
        self.scaling_factor = scaling_factor
        self.shift_factor = shift_factor

    def construct(
        self,
        mean: Tensor,
        std: Tensor,
        posterior_noise: Tensor,
        noise: Tensor,
        t: Tensor,
        *text: Tensor,
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """Return (loss, terms in the order of FLOW_TERMS, loss of each clip (B,)), in fp32.

        Args:
            mean, std: of the autoencoder's posterior, unscaled, float32 (B, C, T, H, W).
            posterior_noise: standard normal, the same shape; draws the latent.
            noise: x_0, standard normal, the same shape.
            t: (B,) in [0, 1]; see `draw_times`.
            text: embedding and mask of each text encoder.
        """
        latent = mean + std * posterior_noise
        data = self.scaling_factor * latent + self.shift_factor
        velocity = self.network(noisy_latent(data, noise, t), t, *text).astype(ms.float32)
        error = velocity - target_velocity(data, noise)
        per_clip = ops.square(error).mean((1, 2, 3, 4))  # (B, C, T, H, W) -> (B,)
        loss = per_clip.mean()
        return loss, (loss,), per_clip
