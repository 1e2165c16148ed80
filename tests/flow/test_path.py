"""The path between noise and data, in numpy and on tensors."""

import numpy as np
import pytest
from mindspore import Tensor

from mg.flow.path import SIGMA_MIN, noisy_latent, target_velocity

SHAPE = (3, 4, 2, 5, 5)


@pytest.fixture(scope="module")
def ends():
    rng = np.random.default_rng(0)
    return rng.standard_normal(SHAPE, np.float32), rng.standard_normal(SHAPE, np.float32)


def test_the_path_begins_at_the_noise_and_ends_at_the_data(ends):
    data, noise = ends
    assert np.array_equal(noisy_latent(data, noise, np.zeros(3, np.float32)), noise)
    end = noisy_latent(data, noise, np.ones(3, np.float32))
    np.testing.assert_allclose(end - data, SIGMA_MIN * noise, atol=3e-7)


def test_each_clip_has_its_own_time(ends):
    data, noise = ends
    t = np.array([0.25, 0.5, 0.9], np.float32)
    expected = np.stack(
        [t[i] * data[i] + (1 - (1 - 1e-5) * t[i]) * noise[i] for i in range(len(t))]
    )
    np.testing.assert_allclose(noisy_latent(data, noise, t), expected, atol=1e-6)


def test_the_velocity_is_the_derivative_of_the_path(ends):
    data, noise = (x.astype(np.float64) for x in ends)
    step = 0.125
    for t in (0.0, 0.375, 0.875):
        times = np.full(3, t)
        slope = (noisy_latent(data, noise, times + step) - noisy_latent(data, noise, times)) / step
        np.testing.assert_allclose(slope, target_velocity(data, noise), atol=1e-13)


def test_tensors_and_arrays_give_the_same(ends):
    data, noise = ends
    t = np.array([0.1, 0.6, 0.99], np.float32)
    on_tensors = noisy_latent(Tensor(data), Tensor(noise), Tensor(t))
    np.testing.assert_allclose(on_tensors.asnumpy(), noisy_latent(data, noise, t), atol=1e-6)
    velocity = target_velocity(Tensor(data), Tensor(noise))
    np.testing.assert_allclose(velocity.asnumpy(), target_velocity(data, noise), atol=1e-6)
