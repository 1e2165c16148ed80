"""The training loss of a diffusion: v or the noise at a discrete step, on latents drawn afresh."""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mg.flow.objectives import DiffusionObjective
from mg.flow.parametrisation import target_rule
from mg.training.denoiser.latent_error import LatentError

__all__ = ["DiffusionLoss"]


class DiffusionLoss(nn.Cell):
    """Error of what a network predicts at the steps of a schedule, in float32.

    Args:
        network: (latent (B, C, T, H, W), step (B,), *conditions) -> prediction of the latent's
            shape.
        objective: what it predicts, and on which schedule.
        mse_weight, l1_weight: of the mean squared and the mean absolute error.
    """

    def __init__(
        self,
        network: nn.Cell,
        objective: DiffusionObjective,
        mse_weight: float = 1.0,
        l1_weight: float = 0.0,
    ) -> None:
        super().__init__(auto_prefix=False)  # leaves parameter names as they are
        self.network = network
        shares = objective.schedule.mixture(np.arange(objective.schedule.num_steps))
        self.signals, self.sigmas = (Tensor(a.astype(np.float32)) for a in shares)  # (num_steps,)
        self.target = target_rule(objective.prediction)
        self.error = LatentError(mse_weight, l1_weight)

    def construct(
        self,
        mean: Tensor,
        std: Tensor,
        posterior_noise: Tensor,
        noise: Tensor,
        step: Tensor,
        *conditions: Tensor,
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """Return (loss, its only term, loss of each clip (B,)), in fp32.

        Args:
            mean, std: the autoencoder's posterior, scaled, float32 (B, C, T, H, W).
            posterior_noise: standard normal, the same shape; draws the latent.
            noise: what is mixed in, standard normal, the same shape.
            step: whole numbers, float32 (B,); see `draw_steps`.
            conditions: what the network is conditioned on.
        """
        data = mean + std * posterior_noise
        places, shape = step.astype(ms.int32), (-1, 1, 1, 1, 1)
        signal = ops.gather(self.signals, places, 0).reshape(shape)
        sigma = ops.gather(self.sigmas, places, 0).reshape(shape)
        x = signal * data + sigma * noise
        prediction = self.network(x, step, *conditions).astype(ms.float32)
        per_clip = self.error(prediction - self.target(data, noise, signal, sigma))
        loss = per_clip.mean()
        return loss, (loss,), per_clip
