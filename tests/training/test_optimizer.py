"""AdamW and the weight average against plain numpy."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor

from mg.training.optimizers.optimizer import AdamW, WeightAverage

BETA1, BETA2, EPS = 0.9, 0.99, 1e-8
SHAPES = {"conv": (3, 2, 3, 3), "dense": (4, 5), "bias": (5,), "norm": (7,)}


@pytest.fixture(params=["graph_mode", "pynative_mode"], autouse=True)
def mode(request):
    """Run each test compiled and line by line."""
    request.getfixturevalue(request.param)


def make_parameters(seed=0):
    rng = np.random.default_rng(seed)
    values = {name: rng.standard_normal(shape, np.float32) for name, shape in SHAPES.items()}
    return [Parameter(Tensor(v), name=n) for n, v in values.items()], list(values.values())


def test_adamw_is_numpy_over_five_steps():
    parameters, values = make_parameters()
    weight_decay = 0.3
    optimizer = AdamW(parameters, betas=(BETA1, BETA2), eps=EPS, weight_decay=weight_decay)
    m = [np.zeros_like(v, np.float64) for v in values]
    v = [np.zeros_like(v, np.float64) for v in values]
    expected = [value.astype(np.float64) for value in values]
    rng = np.random.default_rng(1)
    for t in range(1, 6):
        lr = 0.01 * t
        gradients = [rng.standard_normal(value.shape, np.float32) for value in values]
        for i, gradient in enumerate(gradients):
            m[i] = BETA1 * m[i] + (1 - BETA1) * gradient
            v[i] = BETA2 * v[i] + (1 - BETA2) * gradient.astype(np.float64) ** 2
            step = m[i] / (1 - BETA1**t) / (np.sqrt(v[i] / (1 - BETA2**t)) + EPS)
            decay = weight_decay if expected[i].ndim > 1 else 0.0
            expected[i] = expected[i] - lr * (step + decay * expected[i])
        count = optimizer(tuple(Tensor(g) for g in gradients), Tensor(lr, ms.float32))
        assert count.asnumpy().tolist() == [t] * len(SHAPES)
    for parameter, want in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(parameter.asnumpy(), want, rtol=0, atol=1e-6)


def test_weight_decay_alone_moves_only_weights_of_two_or_more_axes():
    parameters, values = make_parameters()
    optimizer = AdamW(parameters, betas=(BETA1, BETA2), eps=EPS, weight_decay=0.5)
    optimizer(tuple(Tensor(np.zeros_like(v)) for v in values), Tensor(0.1, ms.float32))
    for parameter, value in zip(parameters, values, strict=True):
        factor = 0.95 if value.ndim > 1 else 1.0
        np.testing.assert_allclose(parameter.asnumpy(), factor * value, rtol=1e-6)


def test_weight_average_follows_numpy_with_a_growing_decay():
    parameters, values = make_parameters()
    average = WeightAverage(parameters, decay=0.5)
    expected = [value.astype(np.float64) for value in values]
    used = []
    for t in range(1, 13):
        decay = min((1 + t) / (10 + t), 0.5)
        for i, parameter in enumerate(parameters):
            parameter.set_data(Tensor(values[i] + t))
            expected[i] = decay * expected[i] + (1 - decay) * (values[i] + t)
        used.append(float(average().asnumpy()))
    assert used[0] == pytest.approx(2 / 11) and used[-1] == 0.5
    for mean, want in zip(average.average, expected, strict=True):
        np.testing.assert_allclose(mean.asnumpy(), want, rtol=1e-6, atol=1e-6)
