"""The validation loss of a flow: fixed noise and times, so that only the weights change it."""

from collections.abc import Callable, Sequence

import numpy as np
from mindspore import Tensor

from mg.flow.noise import keyed_noise
from mg.flow.path import noisy_latent, target_velocity

__all__ = ["validation_losses"]


def validation_losses(
    network: Callable[..., Tensor],
    latent: np.ndarray,
    conditions: Sequence[Tensor],
    *,
    times: np.ndarray,
    seed: int = 0,
    first_place: int = 0,
) -> np.ndarray:
    """Return the flow-matching loss of each clip at each time, float32 (B, len(times)).

    The mean over clips and times is the validation loss, which follows human rating (Movie Gen
    3.1.4). The noise is keyed by (seed, number of the time, place of the clip), so the batch size
    changes nothing.

    Args:
        network: (latent (B, C, T, H, W), t (B,), *conditions) -> velocity of the latent's shape.
        latent: x_1 as the network is trained on it, scaled and shifted, float32.
        conditions: what the network is conditioned on, such as embedding and mask of a text.
        times: float32 (n,) in [0, 1]; see `time_grid`.
        seed: of the noise.
        first_place: number of the first clip of this batch among all.
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
        noisy = noisy_latent(latent, noise, batch_times)
        velocity = network(Tensor(noisy), Tensor(batch_times), *conditions).asnumpy()
        error = velocity.astype(np.float32) - target_velocity(latent, noise)
        losses.append(np.square(error).reshape(len(latent), -1).mean(axis=1))
    return np.stack(losses, axis=1)  # n x (B,) -> (B, n)
