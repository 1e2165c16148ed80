"""The local-correlation regulariser against numpy, and its gradient against finite differences."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mg.losses.local_correlation import local_correlation, local_correlation_loss
from mg.metrics.latent_structure import local_correlation as correlation_in_numpy


@pytest.mark.parametrize("shape", [(2, 4, 4, 4, 6), (1, 3, 5, 5, 3), (2, 6, 1, 4, 4)])
def test_agrees_with_numpy(pynative_mode, shape):
    z = np.random.RandomState(0).randn(*shape).cumsum(4).astype(np.float32)
    expected = np.mean([correlation_in_numpy(each)[0] for each in z])
    assert float(local_correlation(Tensor(z))) == pytest.approx(expected, abs=1e-5)
    loss = float(local_correlation_loss(Tensor(z), 0.9))
    assert loss == pytest.approx(max(0.9 - expected, 0), abs=1e-5)


def test_nothing_is_asked_of_what_agrees_enough(pynative_mode):
    z = Tensor(np.random.RandomState(1).randn(1, 8, 1, 1, 1).repeat(4, 3).repeat(4, 4), ms.float32)
    value, gradient = ms.value_and_grad(local_correlation_loss)(z)
    assert float(value) == 0 and not gradient.asnumpy().any()


def test_gradient(graph_mode):
    rng = np.random.RandomState(2)
    z = rng.randn(1, 3, 2, 2, 4).astype(np.float32)
    direction = rng.randn(*z.shape).astype(np.float32)
    gradient = ms.grad(local_correlation_loss)(Tensor(z)).asnumpy()
    step = 1e-2

    def correlation(values):
        return correlation_in_numpy(values[0])[0]

    expected = -(correlation(z + step * direction) - correlation(z - step * direction)) / (2 * step)
    assert (gradient * direction).sum() == pytest.approx(expected, rel=1e-2)


def test_flat_vectors_have_a_finite_gradient(pynative_mode):
    z = Tensor(np.zeros((1, 3, 2, 2, 2), np.float32))
    assert np.isfinite(ms.grad(local_correlation_loss)(z).asnumpy()).all()
    with pytest.raises(ValueError, match="needs 2 channels"):
        local_correlation(Tensor(np.zeros((1, 1, 2, 2, 2), np.float32)))
