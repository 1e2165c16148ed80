"""Networks that predict something else, as velocities: exact where their prediction is."""

import numpy as np
import pytest
from mindspore import Tensor, nn

from mg.flow.noise_schedule import NoiseSchedule
from mg.flow.path import noisy_latent, target_velocity
from mg.flow.velocity_network import VelocityNetwork, velocity_network

SHAPE = (4, 2, 1, 3, 3)
TIMES = np.array([0.0, 0.2, 0.7, 0.999], np.float32)


class Perfect(nn.Cell):
    """Predicts exactly what it is trained for, of known data and noise; keeps what it saw."""

    def __init__(self, prediction, data, noise):
        super().__init__()
        self.prediction, self.data, self.noise = prediction, data, noise
        self.seen = None

    def construct(self, latent, time, *conditions):
        self.seen = latent.asnumpy(), time.asnumpy(), conditions
        if self.prediction == "flow":
            return Tensor(self.noise - self.data)
        length = np.sqrt(TIMES**2 + (1 - TIMES) ** 2).reshape(-1, 1, 1, 1, 1)
        t = TIMES.reshape(-1, 1, 1, 1, 1)
        return Tensor((t * self.noise - (1 - t) * self.data) / length)


def draws():
    rng = np.random.default_rng(0)
    return (rng.standard_normal(SHAPE, np.float32) for _ in range(2))


@pytest.mark.parametrize("prediction", ["flow", "v"])
def test_a_perfect_prediction_is_the_perfect_velocity(prediction, pynative_mode):
    data, noise = draws()
    network = Perfect(prediction, data, noise)
    latent = noisy_latent(data, noise, TIMES)
    velocity = VelocityNetwork(network, prediction)(Tensor(latent), Tensor(TIMES), Tensor([1.0]))
    np.testing.assert_allclose(velocity.asnumpy(), target_velocity(data, noise), atol=1e-4)
    assert len(network.seen[2]) == 1


def test_the_network_sees_its_own_clock(pynative_mode):
    data, noise = draws()
    latent = Tensor(noisy_latent(data, noise, TIMES))
    flow = Perfect("flow", data, noise)
    VelocityNetwork(flow, "flow")(latent, Tensor(TIMES))
    np.testing.assert_allclose(flow.seen[1], 1000 * (1 - TIMES), atol=1e-3)
    np.testing.assert_array_equal(flow.seen[0], latent.asnumpy())

    of_v = Perfect("v", data, noise)
    VelocityNetwork(of_v, "v")(latent, Tensor(TIMES))
    seen, steps, _ = of_v.seen
    # As much data and noise as the schedule has at that step, to the step's rounding.
    alphas = NoiseSchedule().alphas()
    share = TIMES**2 / (TIMES**2 + (1 - TIMES) ** 2)
    assert steps[0] == 999 and steps[-1] == 0
    for step, alpha in zip(steps.astype(int)[1:-1], share[1:-1], strict=True):
        assert alphas[step] <= alpha <= alphas[step - 1]
    signal = np.sqrt(share).reshape(-1, 1, 1, 1, 1)
    expected = signal * data + np.sqrt(1 - signal**2) * noise
    np.testing.assert_allclose(seen, expected, atol=1e-3)


def test_a_velocity_is_left_as_it_is():
    network = Perfect("velocity", *draws())
    assert velocity_network(network, "velocity") is network
    with pytest.raises(ValueError, match="expected one of flow, v"):
        velocity_network(network, "noise")
