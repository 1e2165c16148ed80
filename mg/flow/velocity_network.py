"""A network of any prediction and clock as a velocity on the straight path (t = 0 noise, 1 data).

So published generators are trained, and our own of their families, with the flow-matching loss:

    flow   HunyuanVideo predicts noise - data at 1000 (1 - t), on the same path
    v      CogVideoX sees signal data + sigma noise with signal^2 + sigma^2 = 1: the noisy latent
           by sqrt(t^2 + (1 - t)^2), at the step whose schedule has as much of each
"""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mg.flow.noise_schedule import NoiseSchedule

__all__ = ["VelocityNetwork", "velocity_network"]

CONVERTED = ("flow", "v")


class VelocityNetwork(nn.Cell):
    """(latent, t, *conditions) -> velocity, from a network that predicts something else.

    Args:
        network: (latent (B, C, T, H, W), its own time (B,), *conditions) -> prediction.
        prediction: "flow" or "v".
        schedule: the clock of a network that predicts v.

    Raises:
        ValueError: another prediction.
    """

    def __init__(
        self, network: nn.Cell, prediction: str, schedule: NoiseSchedule | None = None
    ) -> None:
        super().__init__(auto_prefix=False)  # leaves parameter names as they are
        if prediction not in CONVERTED:
            raise ValueError(f"prediction={prediction!r}; expected one of {', '.join(CONVERTED)}")
        self.network = network
        self.is_flow = prediction == "flow"
        alphas = (schedule or NoiseSchedule()).alphas()
        self.alphas = Tensor(alphas.astype(np.float32).reshape(1, -1))
        self.last_step = len(alphas) - 1

    def construct(self, latent: Tensor, t: Tensor, *conditions: Tensor) -> Tensor:
        """Return the velocity (B, C, T, H, W) in fp32."""
        if self.is_flow:
            return -self.network(latent, 1000.0 * (1.0 - t), *conditions)
        length = ops.sqrt(t * t + (1.0 - t) * (1.0 - t))  # (B,)
        signal, sigma = t / length, (1.0 - t) / length
        # How many steps have more data than this: the first one that has not.
        has_more = self.alphas > (signal * signal).reshape(-1, 1)  # (B, 1000)
        step = has_more.astype(ms.float32).sum(axis=1)
        step = ops.minimum(step, ops.ones_like(step) * self.last_step)
        shape = (-1, 1, 1, 1, 1)
        x = latent / length.reshape(shape)
        v = self.network(x, step, *conditions)
        # data - noise, of data = signal x - sigma v and noise = sigma x + signal v
        along, across = (signal - sigma).reshape(shape), (signal + sigma).reshape(shape)
        return along * x - across * v


def velocity_network(
    network: nn.Cell, prediction: str, schedule: NoiseSchedule | None = None
) -> nn.Cell:
    """Return a network that gives the velocity: itself, if that is what it predicts.

    Args:
        network: of a family of denoisers.
        prediction: what it predicts, "velocity", "flow" or "v".
        schedule: the clock of a network that predicts v.
    """
    return network if prediction == "velocity" else VelocityNetwork(network, prediction, schedule)
