"""Reconstruction, KL and outlier losses: values and gradients against numpy in float64."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mg.losses.kl import kl_loss
from mg.losses.outlier import outlier_penalty_loss
from mg.losses.reconstruction import l1_loss, mse_loss


@pytest.fixture(params=[ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"])
def mode(request):
    before = ms.get_context("mode")
    ms.set_context(mode=request.param)
    yield request.param
    ms.set_context(mode=before)


def numpy_l1(x, y):
    return np.abs(x - y).mean()


def numpy_mse(x, y):
    return ((x - y) ** 2).mean()


def numpy_kl(mean, logvar):
    logvar = np.clip(logvar, -30, 20)
    return 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar).sum() / len(mean)


def numpy_outlier(z, r=1.5):
    distance = np.abs(z - z.mean((3, 4), keepdims=True))
    return np.maximum(distance - r * z.std((3, 4), keepdims=True), 0).mean()


def outlier_with_r(z):
    return outlier_penalty_loss(z, 1.5)


def make_inputs(num_inputs: int) -> list[np.ndarray]:
    rng = np.random.RandomState(0)
    return [rng.standard_normal((2, 3, 2, 4, 5)).astype(np.float32) for _ in range(num_inputs)]


def numeric_gradient(function, inputs: list[np.ndarray], position: int) -> np.ndarray:
    """Return the central difference of `function` for every element of one input, in float64."""
    inputs = [x.astype(np.float64) for x in inputs]
    gradient = np.empty_like(inputs[position])
    for index in np.ndindex(gradient.shape):
        values = []
        for step in (1e-6, -1e-6):
            moved = [x.copy() for x in inputs]
            moved[position][index] += step
            values.append(function(*moved))
        gradient[index] = (values[0] - values[1]) / 2e-6
    return gradient


@pytest.mark.parametrize(
    ("loss", "in_numpy", "num_inputs"),
    [
        (l1_loss, numpy_l1, 2),
        (mse_loss, numpy_mse, 2),
        (kl_loss, numpy_kl, 2),
        (outlier_with_r, numpy_outlier, 1),
    ],
)
def test_value_and_gradient_match_numpy(mode, loss, in_numpy, num_inputs):
    inputs = make_inputs(num_inputs)
    positions = tuple(range(num_inputs))
    value, gradients = ms.value_and_grad(loss, positions)(*map(Tensor, inputs))
    expected = in_numpy(*(x.astype(np.float64) for x in inputs))
    assert value.dtype == ms.float32 and value.shape == ()
    assert float(value) == pytest.approx(expected, rel=1e-5)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    for position, gradient in enumerate(gradients):
        expected_gradient = numeric_gradient(in_numpy, inputs, position)
        np.testing.assert_allclose(gradient.asnumpy(), expected_gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", [l1_loss, mse_loss, kl_loss])
def test_half_precision_is_computed_in_float32(mode, loss):
    halves = [x.astype(np.float16) for x in make_inputs(2)]
    value = loss(*map(Tensor, halves))
    same = loss(*(Tensor(x.astype(np.float32)) for x in halves))
    assert value.dtype == ms.float32
    assert float(value) == pytest.approx(float(same), rel=1e-6)


def test_kl_is_a_sum_per_sample_and_a_mean_over_the_batch(mode):
    mean, logvar = make_inputs(2)
    once = float(kl_loss(Tensor(mean), Tensor(logvar)))
    doubled_batch = [Tensor(np.concatenate([x, x])) for x in (mean, logvar)]
    doubled_space = [Tensor(np.concatenate([x, x], 3)) for x in (mean, logvar)]
    assert float(kl_loss(*doubled_batch)) == pytest.approx(once, rel=1e-5)
    assert float(kl_loss(*doubled_space)) == pytest.approx(2 * once, rel=1e-5)
    standard = Tensor(np.zeros_like(mean))
    assert float(kl_loss(standard, standard)) == 0


def test_kl_clamps_logvar(mode):
    mean = np.zeros((1, 4), np.float32)
    logvar = np.array([[-1000, -29, 19, 1000]], np.float32)
    value, gradient = ms.value_and_grad(kl_loss, 1)(Tensor(mean), Tensor(logvar))
    expected = numpy_kl(mean.astype(np.float64), logvar.astype(np.float64))
    assert float(value) == pytest.approx(expected, rel=1e-5)
    assert (gradient.asnumpy() != 0).tolist() == [[False, True, True, False]]


def test_outlier_penalty_sees_one_spike(mode):
    z = np.random.RandomState(0).uniform(-1, 1, (1, 2, 2, 8, 8)).astype(np.float32)
    assert float(outlier_penalty_loss(Tensor(z))) == 0
    z[0, 1, 0, 3, 4] = 50
    value, gradient = ms.value_and_grad(outlier_penalty_loss)(Tensor(z))
    assert float(value) == pytest.approx(numpy_outlier(z.astype(np.float64), 3), rel=1e-5)
    touched = np.abs(gradient.asnumpy()).sum((0, 3, 4)) > 0
    assert touched.tolist() == [[False, False], [True, False]]  # only the spike's own map
    assert gradient.asnumpy()[0, 1, 0, 3, 4] > 0  # descent lowers the spike


@pytest.mark.parametrize("shape", [(2, 3, 2, 4, 4), (1, 2, 1, 1, 1)])
def test_outlier_penalty_of_constant_maps_is_zero_with_a_finite_gradient(mode, shape):
    value, gradient = ms.value_and_grad(outlier_penalty_loss)(Tensor(np.full(shape, 2.5, "f4")))
    assert float(value) == 0
    np.testing.assert_array_equal(gradient.asnumpy(), 0)
