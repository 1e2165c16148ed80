"""Networks that predict something else, as velocities: exact where their prediction is."""

import numpy as np
import pytest
from mindspore import Tensor, nn

from mg.flow.noise_schedule import NoiseSchedule
from mg.flow.parametrisation import Mixture, prediction_of
from mg.flow.path import noisy_latent, target_velocity
from mg.flow.scheduler_config import diffusion_config, flow_config, predicted_by
from mg.flow.velocity_network import (
    PublishedNetwork,
    VelocityNetwork,
    published_network,
    velocity_network,
)

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
        length = np.sqrt(TIMES**2 + (1 - TIMES) ** 2).reshape(-1, 1, 1, 1, 1)
        t = TIMES.reshape(-1, 1, 1, 1, 1)
        mixture = Mixture(t / length, (1 - t) / length)
        return Tensor(prediction_of(self.prediction, self.data, self.noise, mixture))


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


@pytest.mark.parametrize("prediction", ["noise", "data"])
def test_predictions_of_one_part_are_finite_at_both_ends(prediction, pynative_mode):
    data, noise = draws()
    schedule = NoiseSchedule(snr_shift_scale=3.0, zero_terminal_snr=False)
    network = VelocityNetwork(Perfect(prediction, data, noise), prediction, schedule)
    found = network(Tensor(noisy_latent(data, noise, TIMES)), Tensor(TIMES)).asnumpy()
    # In the middle the velocity is exact, to rounding; at pure noise, or data, it is bounded.
    np.testing.assert_allclose(found[1:3], (data - noise)[1:3], atol=1e-3)
    assert np.isfinite(found).all() and np.abs(found).max() < 50


def test_graphs_have_the_conversions_too(graph_mode):
    data, _ = draws()
    latent, times = Tensor(data), Tensor(TIMES)
    schedule = NoiseSchedule(zero_terminal_snr=False)
    for prediction in ("flow", "v", "noise", "data"):
        network = VelocityNetwork(Half(), prediction, schedule)
        found = network(latent, times).asnumpy()
        half = PublishedNetwork(Half(), is_flow=True)(latent, times).asnumpy()
        if prediction == "flow":
            np.testing.assert_array_equal(found, -0.5 * data)
        assert np.isfinite(found).all() and found.shape == data.shape
        np.testing.assert_array_equal(half, -0.5 * data)


class Half(nn.Cell):
    def construct(self, latent, time):
        return 0.5 * latent


def test_the_scheduler_says_what_a_network_predicts():
    schedule = NoiseSchedule(snr_shift_scale=3.0, zero_terminal_snr=False)
    for kind in ("v", "noise", "data"):
        config = diffusion_config(schedule, prediction=kind)
        assert predicted_by(config, "v") == predicted_by(config, "velocity") == (kind, schedule)
        assert velocity_network(Half(), "v", config).velocity_of.__name__.endswith(kind)
    assert predicted_by(None, "v") == ("v", None)
    assert predicted_by(flow_config(7.0), "v") == ("flow", None)
    assert predicted_by(flow_config(7.0), "velocity") == ("velocity", None)


def test_a_network_of_ours_as_a_published_scheduler_calls_it(pynative_mode):
    data, noise = draws()
    network = Perfect("velocity", data, noise)
    published = published_network(network, "velocity", flow_config(7.0))
    latent = Tensor(noisy_latent(data, noise, TIMES))
    flow = published(latent, Tensor(1000 * (1 - TIMES))).asnumpy()
    np.testing.assert_allclose(flow, noise - data, atol=1e-6)
    np.testing.assert_allclose(network.seen[1], TIMES, atol=1e-6)
    config = diffusion_config(NoiseSchedule(), prediction="v")
    assert published_network(network, "v", config) is network
    # One that was trained to predict v has both conversions one after the other.
    of_v = Perfect("v", data, noise)
    velocity = velocity_network(of_v, "velocity", config)(latent, Tensor(TIMES))
    np.testing.assert_allclose(velocity.asnumpy(), target_velocity(data, noise), atol=1e-4)
    assert of_v.seen[1][0] == pytest.approx(0.001, rel=1e-4) and of_v.seen[1][-1] == 1


def test_a_velocity_is_left_as_it_is():
    network = Perfect("velocity", *draws())
    assert velocity_network(network, "velocity") is network
    assert velocity_network(network, "velocity", flow_config(7.0)) is network
    with pytest.raises(ValueError, match="expected one of flow, v, noise, data"):
        velocity_network(network, "speed")
    with pytest.raises(ValueError, match="tells nothing of pure noise; expected a schedule with"):
        velocity_network(network, "noise")
