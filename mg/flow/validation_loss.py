"""The validation loss of a denoiser: fixed noise and times, so that only the weights change it."""

from collections.abc import Callable, Sequence

import numpy as np
from mindspore import Tensor

from mg.flow.noise import keyed_noise
from mg.flow.objectives import FlowObjective, Objective

__all__ = ["validation_losses"]

FLOW = FlowObjective()


def validation_losses(
    network: Callable[..., Tensor],
    latent: np.ndarray,
    conditions: Sequence[Tensor],
    *,
    times: np.ndarray,
    seed: int = 0,
    first_place: int = 0,
    objective: Objective = FLOW,
) -> np.ndarray:
    """Return the mean squared error of each clip at each time, float32 (B, len(times)).

    The mean over clips and times is the validation loss; that of flow matching follows human rating
    (Movie Gen 3.1.4). The noise is keyed by (seed, number of the time, place of the clip), so the
    batch size changes nothing.

    Args:
        network: (latent (B, C, T, H, W), t (B,), *conditions) -> what the objective has it
            predict, of the latent's shape.
        latent: x_1 as the network is trained on it, scaled and shifted, float32.
        conditions: what the network is conditioned on, such as embedding and mask of a text.
        times: float32 (n,); see the objective's `time_grid`.
        seed: of the noise.
        first_place: number of the first clip of this batch among all.
        objective: how data and noise are mixed, and what is predicted.
    """
    losses = []
    for number, t in enumerate(times):
        noise = keyed_noise(
            latent.shape[1:],
            len(latent),
            kind="validation",
            seed=seed,
            step=number,
            first_place=first_place,
        )
        batch_times = np.full(len(latent), t, np.float32)
        noisy, target = objective.mixed(latent, noise, batch_times)
        prediction = network(Tensor(noisy), Tensor(batch_times), *conditions).asnumpy()
        error = prediction.astype(np.float32) - target
        losses.append(np.square(error).reshape(len(latent), -1).mean(axis=1))
    return np.stack(losses, axis=1)  # n x (B,) -> (B, n)
