"""The validation loss: right, deterministic, and the same in every batch."""

import numpy as np
import pytest
from mindspore import Tensor, nn

from mg.flow.noise import keyed_noise
from mg.flow.path import target_velocity
from mg.flow.times import draw_times, time_grid
from mg.flow.validation_loss import validation_losses

SHAPE = (3, 2, 4, 4)
TIMES = time_grid(8)


class Network(nn.Cell):
    """velocity = x t + shift."""

    def construct(self, latent, t, shift):
        return latent * t.reshape((-1, 1, 1, 1, 1)) + shift.reshape((-1, 1, 1, 1, 1))


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    return rng.standard_normal((3, *SHAPE), np.float32), rng.standard_normal(3, np.float32)


@pytest.fixture(scope="module")
def losses(clips):
    latent, shift = clips
    return validation_losses(Network(), latent, [Tensor(shift)], times=TIMES)


def test_each_clip_and_time_has_its_loss(clips, losses):
    latent, shift = (x.astype(np.float64) for x in clips)
    assert losses.dtype == np.float32 and losses.shape == (3, 8)
    for number, t in enumerate(TIMES.astype(np.float64)):
        noise = keyed_noise(SHAPE, 3, kind="validation", seed=0, step=number)
        noisy = t * latent + (1 - (1 - 1e-5) * t) * noise
        error = noisy * t + shift.reshape(-1, 1, 1, 1, 1) - (latent - (1 - 1e-5) * noise)
        np.testing.assert_allclose(losses[:, number], (error**2).mean((1, 2, 3, 4)), rtol=1e-5)


def test_it_is_the_same_each_time_and_in_every_batch(clips, losses):
    latent, shift = clips
    again = validation_losses(Network(), latent, [Tensor(shift)], times=TIMES)
    assert np.array_equal(losses, again)
    for place in range(3):
        part = slice(place, place + 1)
        alone = validation_losses(
            Network(), latent[part], [Tensor(shift[part])], times=TIMES, first_place=place
        )
        np.testing.assert_allclose(alone, losses[part], rtol=1e-6)


def test_another_seed_has_other_noise(clips, losses):
    latent, shift = clips
    other = validation_losses(Network(), latent, [Tensor(shift)], times=TIMES, seed=1)
    assert np.abs(other - losses).min() > 1e-4


def test_a_network_that_knows_the_velocity_has_no_loss():
    latent = np.ones((2, *SHAPE), np.float32)
    noise = [keyed_noise(SHAPE, 2, kind="validation", seed=0, step=n) for n in range(len(TIMES))]
    answers = iter(noise)

    def network(noisy, t):
        return Tensor(target_velocity(latent, next(answers)))

    losses = validation_losses(network, latent, [], times=TIMES)
    np.testing.assert_allclose(losses, 0, atol=1e-12)


def test_the_mean_over_the_grid_estimates_the_training_loss():
    # The best answer to Gaussian data loses variance(v | x_t), a known function of t: its mean
    # over the grid is that over the times of training.
    def loss(t):
        return 0.25 / (0.25 * t**2 + (1 - t) ** 2)

    trained = loss(draw_times(20000, seed=0, step=0).astype(np.float64)).mean()
    assert loss(time_grid(10).astype(np.float64)).mean() == pytest.approx(trained, rel=0.01)
