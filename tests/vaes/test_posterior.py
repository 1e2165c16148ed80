"""Posterior: clamping, spread, repeatable samples."""

import numpy as np
import pytest
from mindspore import Tensor

from mg.vaes import Posterior

pytestmark = pytest.mark.usefixtures("pynative_mode")
SHAPE = (1, 2, 3, 4, 5)


def posterior_of(logvar, mean=1.5):
    return Posterior(
        Tensor(np.full(SHAPE, mean, np.float32)), Tensor(np.full(SHAPE, logvar, np.float32))
    )


@pytest.mark.parametrize(("given", "kept"), [(-99.0, -30.0), (-1.0, -1.0), (99.0, 20.0)])
def test_logvar_is_clamped_and_std_is_its_root(given, kept):
    posterior = posterior_of(given)
    np.testing.assert_allclose(posterior.logvar.asnumpy(), kept, rtol=1e-6)
    np.testing.assert_allclose(posterior.std.asnumpy(), np.exp(kept / 2), rtol=1e-5)


def test_sample_is_repeatable_and_distributed_as_stated():
    posterior = Posterior(
        Tensor(np.full((1, 4, 8, 16, 16), 1.5, np.float32)),
        Tensor(np.full((1, 4, 8, 16, 16), np.log(4.0), np.float32)),
    )
    sample = posterior.sample(7).asnumpy()
    assert np.array_equal(sample, posterior.sample(7).asnumpy())
    other = posterior.sample(8).asnumpy()
    # 8192 numbers of standard deviation 2: their mean is within 0.1 with 4.5 sigma.
    assert sample.mean() == pytest.approx(1.5, abs=0.1)
    assert sample.std() == pytest.approx(2.0, abs=0.1)
    assert abs(np.corrcoef(sample.ravel(), other.ravel())[0, 1]) < 0.05


def test_mode_is_the_mean():
    assert np.array_equal(posterior_of(0.0).mode().asnumpy(), np.full(SHAPE, 1.5, np.float32))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"mean is \(1, 2\) and logvar is \(1, 3\)"):
        Posterior(Tensor(np.zeros((1, 2), np.float32)), Tensor(np.zeros((1, 3), np.float32)))
