"""The sampler on velocity fields whose flow is known in closed form."""

import numpy as np
import pytest
from mindspore import Tensor

from mg.flow.noise import initial_noise
from mg.flow.path import SIGMA_MIN
from mg.flow.sampler import sample
from mg.flow.schedules import linear_quadratic_schedule, linear_schedule
from mg.flow.solvers import EULER, MIDPOINT, SOLVERS

SHAPE = (4, 2, 6, 6)


@pytest.fixture(scope="module")
def noise():
    return initial_noise(SHAPE, [0, 1])


class Counted:
    """A velocity field that remembers the times it was asked for."""

    def __init__(self, velocity):
        self.velocity = velocity
        self.times = []

    def __call__(self, latent, t):
        self.times.append(t)
        return self.velocity(latent, t)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    "schedule", [linear_schedule(1), linear_schedule(7), linear_quadratic_schedule(9)]
)
def test_a_constant_velocity_leads_to_noise_plus_velocity(noise, solver, schedule):
    constant = initial_noise(SHAPE, [5, 6])
    latent = sample(lambda x, t: constant, noise, schedule, solver=solver)
    assert latent.dtype == np.float32
    np.testing.assert_allclose(latent, noise + constant, atol=2e-6)


@pytest.mark.parametrize(("solver", "ratio"), [(EULER, 2), (MIDPOINT, 4)])
def test_the_error_falls_with_the_order_of_the_solver(noise, solver, ratio):
    x = noise.astype(np.float64)
    a = -1.5  # dx/dt = a x leads to exp(a) x
    errors = [
        np.abs(
            sample(lambda x, t: a * x, x, linear_schedule(n), solver=solver.name) - np.exp(a) * x
        ).max()
        for n in (64, 128)
    ]
    assert 2**solver.order == ratio
    assert errors[0] / errors[1] == pytest.approx(ratio, rel=0.03)


@pytest.mark.parametrize("solver", [EULER, MIDPOINT])
def test_solvers_heed_the_time(noise, solver):
    # dx/dt = 2 t leads to x + 1; the midpoint rule is exact on it.
    field = lambda x, t: np.ones_like(x) * (2 * t).reshape(-1, 1, 1, 1, 1)  # noqa: E731
    error = sample(field, noise, linear_schedule(20), solver=solver.name) - (noise + 1)
    expected = {"euler": -1 / 20, "midpoint": 0}[solver.name]
    np.testing.assert_allclose(error, expected, atol=2e-6)


@pytest.mark.parametrize("solver", [EULER, MIDPOINT])
def test_the_velocity_is_evaluated_as_often_as_stated_and_never_at_the_end(noise, solver):
    field = Counted(lambda x, t: x)
    sample(field, noise, linear_schedule(6), solver=solver.name)
    assert len(field.times) == 6 * solver.num_evaluations
    assert all(t.shape == (2,) and t.dtype == np.float32 for t in field.times)
    assert min(t.min() for t in field.times) == 0 and max(t.max() for t in field.times) < 1


class GaussianField:
    """The exact marginal velocity where every number of the data is N(mean, std^2)."""

    def __init__(self, mean, std):
        self.mean, self.std = mean, std

    def __call__(self, latent, t):
        # x_t = t x_1 + r x_0 and v = x_1 - (1 - sigma_min) x_0 are jointly normal; the velocity
        # of the flow is E[v | x_t].
        t = t.reshape(-1, 1, 1, 1, 1)
        r = 1 - (1 - SIGMA_MIN) * t
        covariance = t * self.std**2 - (1 - SIGMA_MIN) * r
        variance = t**2 * self.std**2 + r**2
        return self.mean + covariance / variance * (latent - t * self.mean)


@pytest.mark.parametrize(
    ("solver", "schedule", "relative_error"),
    [  # of the standard deviation: Euler's method makes it too small
        ("euler", linear_schedule(50), -0.0292),
        ("euler", linear_schedule(200), -0.0074),
        ("euler", linear_quadratic_schedule(50), -0.0775),
        ("midpoint", linear_schedule(50), 0.0),
        ("midpoint", linear_quadratic_schedule(50), 0.0),
    ],
)
def test_gaussian_data_are_sampled_with_their_mean_and_deviation(solver, schedule, relative_error):
    mean, std = 1.5, 0.5
    noise = initial_noise((4, 2, 50, 50), [0])
    latent = sample(GaussianField(mean, std), noise, schedule, solver=solver)
    sampled_std = std * (1 + relative_error)
    standard_error = std / np.sqrt(latent.size)
    assert latent.mean() == pytest.approx(mean, abs=4 * standard_error)
    assert latent.std() == pytest.approx(sampled_std, abs=4 * standard_error)
    # The flow takes each number of the noise to mean + std x_0: the one rising map that can.
    np.testing.assert_allclose(latent, mean + sampled_std * noise, atol=2e-4)


def test_tensors_lead_to_what_arrays_do(noise):
    field = GaussianField(-0.5, 0.8)
    schedule = linear_quadratic_schedule(10)
    latent = sample(field, Tensor(noise), schedule)
    assert isinstance(latent, Tensor)
    np.testing.assert_allclose(latent.asnumpy(), sample(field, noise, schedule), atol=3e-6)


def test_a_video_is_the_same_in_every_batch():
    field = GaussianField(-0.5, 0.8)
    schedule = linear_quadratic_schedule(10)
    together = sample(field, initial_noise(SHAPE, [3, 4, 5]), schedule)
    again = sample(field, initial_noise(SHAPE, [3, 4, 5]), schedule)
    assert np.array_equal(together, again)
    alone = sample(field, initial_noise(SHAPE, [4]), schedule)
    assert np.array_equal(alone[0], together[1])


def test_each_step_is_reported_with_its_latent(noise):
    steps = []
    latent = sample(
        lambda x, t: np.ones_like(x),
        noise,
        [0, 0.25, 1],
        on_step=lambda number, x: steps.append((number, float((x - noise).mean()))),
    )
    assert [number for number, _ in steps] == [1, 2]
    assert [moved for _, moved in steps] == pytest.approx([0.25, 1.0], abs=1e-6)
    np.testing.assert_allclose(latent - noise, 1, atol=1e-6)


def test_noise_is_left_as_it_was(noise):
    before = noise.copy()
    sample(lambda x, t: x, noise, linear_schedule(3))
    assert np.array_equal(noise, before)


@pytest.mark.parametrize(
    "schedule",
    [[0.0], [], [[0, 1]], [0, 0.5, 0.5, 1], [1, 0], [-0.1, 1], [0, 1.5], [0, np.nan, 1]],
)
def test_times_that_do_not_rise_within_0_and_1_are_refused(noise, schedule):
    with pytest.raises(ValueError, match="must rise within"):
        sample(lambda x, t: x, noise, schedule)


def test_an_unknown_solver_is_refused(noise):
    with pytest.raises(ValueError, match="solver 'heun'; expected one of euler, midpoint"):
        sample(lambda x, t: x, noise, [0, 1], solver="heun")


def test_a_velocity_of_another_shape_is_refused(noise):
    with pytest.raises(ValueError, match=r"has the shape \(2, 1, 2, 6, 6\); expected the same"):
        sample(lambda x, t: x[:, :1], noise, [0, 1])
