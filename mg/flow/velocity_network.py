"""Networks of any prediction and clock, as one of two things that samplers and losses take.

`velocity_network` gives the velocity on the straight path (t = 0 noise, 1 data), so that published
generators are trained, and sampled, as our own are:

    flow         HunyuanVideo predicts noise - data at 1000 (1 - t), on the same path
    v            CogVideoX sees signal data + sigma noise with signal^2 + sigma^2 = 1: the noisy
                 latent by sqrt(t^2 + (1 - t)^2), at the step whose schedule has as much of each
    noise, data  on the same clock

`published_network` is the other way round: a network of ours as a published scheduler calls one.
"""

from collections.abc import Mapping
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mg.flow.noise_schedule import NoiseSchedule
from mg.flow.parametrisation import velocity_rule
from mg.flow.scheduler_config import predicted_by

__all__ = ["PublishedNetwork", "VelocityNetwork", "published_network", "velocity_network"]

CONVERTED = ("flow", "v", "noise", "data")
TIME_UNITS = 1000.0  # of published clocks, from data to noise


class VelocityNetwork(nn.Cell):
    """(latent, t, *conditions) -> velocity, from a network that predicts something else.

    Args:
        network: (latent (B, C, T, H, W), its own time (B,), *conditions) -> prediction.
        prediction: "flow", "v", "noise" or "data".
        schedule: the clock of a network that does not predict flow.

    Raises:
        ValueError: another prediction, or one of noise on a clock that ends in pure noise.
    """

    def __init__(
        self, network: nn.Cell, prediction: str, schedule: NoiseSchedule | None = None
    ) -> None:
        super().__init__(auto_prefix=False)  # leaves parameter names as they are
        if prediction not in CONVERTED:
            raise ValueError(f"prediction={prediction!r}; expected one of {', '.join(CONVERTED)}")
        self.network = network
        self.velocity_of = velocity_rule(prediction)
        self.is_flow = prediction == "flow"
        # v says what is in any mixture. Of the others one end of the path says nothing: there the
        # shares are those of the clock's own last, or first, step.
        self.is_bounded = prediction in ("noise", "data")
        alphas = (schedule or NoiseSchedule()).alphas()
        if prediction == "noise" and alphas[-1] == 0:
            raise ValueError(
                "a network that predicts the noise tells nothing of pure noise; expected a "
                "schedule with zero_terminal_snr=False"
            )
        self.least, self.most = float(alphas[-1]), float(alphas[0])
        self.alphas = Tensor(alphas.astype(np.float32).reshape(1, -1))
        self.last_step = len(alphas) - 1

    def construct(self, latent: Tensor, t: Tensor, *conditions: Tensor) -> Tensor:
        """Return the velocity (B, C, T, H, W) in fp32."""
        if self.is_flow:
            flow = self.network(latent, TIME_UNITS * (1.0 - t), *conditions)
            return self.velocity_of(flow, latent, t, 1.0 - t)
        length = ops.sqrt(t * t + (1.0 - t) * (1.0 - t))  # (B,)
        signal, sigma = t / length, (1.0 - t) / length
        # How many steps have more data than this: the first one that has not.
        has_more = self.alphas > (signal * signal).reshape(-1, 1)  # (B, 1000)
        step = has_more.astype(ms.float32).sum(axis=1)
        step = ops.minimum(step, ops.ones_like(step) * self.last_step)
        shape = (-1, 1, 1, 1, 1)
        x = latent / length.reshape(shape)
        prediction = self.network(x, step, *conditions)
        if self.is_bounded:
            share = ops.clamp(signal * signal, self.least, self.most)
            signal, sigma = ops.sqrt(share), ops.sqrt(1.0 - share)
        return self.velocity_of(prediction, x, signal.reshape(shape), sigma.reshape(shape))


class PublishedNetwork(nn.Cell):
    """(latent, time, *conditions) -> prediction, from a network that sees t = 1 - time / 1000.

    Args:
        network: (latent (B, C, T, H, W), t (B,), *conditions) -> velocity, or what it was trained
            to predict instead.
        is_flow: whether it gives the velocity, and noise - data is asked for.
    """

    def __init__(self, network: nn.Cell, *, is_flow: bool) -> None:
        super().__init__(auto_prefix=False)  # leaves parameter names as they are
        self.network = network
        self.is_flow = is_flow

    def construct(self, latent: Tensor, time: Tensor, *conditions: Tensor) -> Tensor:
        """Return the prediction (B, C, T, H, W)."""
        prediction = self.network(latent, 1.0 - time / TIME_UNITS, *conditions)
        return -prediction if self.is_flow else prediction


def velocity_network(
    network: nn.Cell, own: str, scheduler: Mapping[str, Any] | None = None
) -> nn.Cell:
    """Return a network that gives the velocity: itself, if that is what it predicts.

    Args:
        network: of a family of denoisers.
        own: what its family predicts, "velocity", "flow" or "v".
        scheduler: fields of the scheduler_config.json beside it, which say what this network
            predicts, and on which clock; None where there is none.

    Raises:
        ValueError: a scheduler that is not implemented.
    """
    prediction, schedule = predicted_by(scheduler, own)
    if prediction == "velocity":
        return network
    return VelocityNetwork(_on_published_clock(network, own, prediction), prediction, schedule)


def published_network(network: nn.Cell, own: str, scheduler: Mapping[str, Any]) -> nn.Cell:
    """Return a network as the scheduler beside it calls one: itself, if its family is published.

    Args:
        network, own, scheduler: as of `velocity_network`.
    """
    prediction, _ = predicted_by(scheduler, own)
    return _on_published_clock(network, own, prediction)


def _on_published_clock(network: nn.Cell, own: str, prediction: str) -> nn.Cell:
    if own != "velocity":
        return network
    return PublishedNetwork(network, is_flow=prediction == "velocity")
