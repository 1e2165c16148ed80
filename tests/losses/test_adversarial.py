"""Adversarial losses: values and gradients against numpy in float64, 1e-5 relative."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mg.losses import adversarial as losses


@pytest.fixture(params=["graph_mode", "pynative_mode"], autouse=True)
def mode(request):
    request.getfixturevalue(request.param)


def logits(shape, seed, scale=2.0):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


REAL, FAKE = logits((2, 1, 3, 4, 5), 0), logits((2, 1, 2, 3, 3), 1)


def relu(x):
    return np.maximum(x, 0)


def step(x):
    return (x > 0).astype(np.float64)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# Name -> value from (real, fake), and the gradients with respect to both.
IN_NUMPY = {
    "hinge": (
        lambda r, f: 0.5 * (relu(1 - r).mean() + relu(1 + f).mean()),
        lambda r, f: (-0.5 * step(1 - r) / r.size, 0.5 * step(1 + f) / f.size),
    ),
    "non_saturating": (
        lambda r, f: 0.5 * (np.log1p(np.exp(-r)).mean() + np.log1p(np.exp(f)).mean()),
        lambda r, f: (-0.5 * sigmoid(-r) / r.size, 0.5 * sigmoid(f) / f.size),
    ),
    "lecam": (
        lambda r, f: (relu(r - 0.3) ** 2).mean() + (relu(0.8 - f) ** 2).mean(),
        lambda r, f: (2 * relu(r - 0.3) / r.size, -2 * relu(0.8 - f) / f.size),
    ),
}


def compute(name, real, fake):
    if name == "lecam":
        return losses.lecam_penalty(real, fake, Tensor(0.8, ms.float32), Tensor(0.3, ms.float32))
    return losses.discriminator_loss(real, fake, kind=name)


@pytest.mark.parametrize("name", IN_NUMPY)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_discriminator_losses(name, dtype):
    def loss(real, fake):
        return compute(name, real, fake)

    real, fake = REAL.astype(dtype), FAKE.astype(dtype)
    value, gradients = ms.value_and_grad(loss, (0, 1))(Tensor(real), Tensor(fake))
    in_numpy, gradients_in_numpy = IN_NUMPY[name]
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    assert value.dtype == ms.float32 and value.shape == ()
    assert float(value.asnumpy()) == pytest.approx(in_numpy(real, fake), rel=1e-5)
    tolerance = 1e-5 if dtype == np.float32 else 1e-3  # the gradients themselves are float16
    for gradient, expected in zip(gradients, gradients_in_numpy(real, fake), strict=True):
        np.testing.assert_allclose(gradient.asnumpy(), expected, rtol=tolerance, atol=1e-7)


@pytest.mark.parametrize(
    ("kind", "in_numpy", "gradient_in_numpy"),
    [
        ("hinge", lambda f: -f.mean(), lambda f: np.full(f.shape, -1 / f.size)),
        (
            "non_saturating",
            lambda f: np.log1p(np.exp(-f)).mean(),
            lambda f: -sigmoid(-f) / f.size,
        ),
    ],
)
def test_generator_losses(kind, in_numpy, gradient_in_numpy):
    def loss(fake):
        return losses.generator_loss(fake, kind=kind)

    value, gradient = ms.value_and_grad(loss)(Tensor(FAKE))
    fake = FAKE.astype(np.float64)
    assert float(value.asnumpy()) == pytest.approx(in_numpy(fake), rel=1e-5)
    np.testing.assert_allclose(gradient.asnumpy(), gradient_in_numpy(fake), rtol=1e-5, atol=1e-8)


def test_each_logit_weighs_the_same_whatever_its_side():
    """Means over 2 real and 4 fake logits: 0.5 * (0.5 * 3 + 0.25 * 2)."""
    real, fake = Tensor([[3.0, -2.0]]), Tensor([[1.0, -5.0, -1.0, -1.0]])
    value = losses.hinge_discriminator_loss(real, fake)
    assert float(value.asnumpy()) == pytest.approx(0.5 * (3 / 2 + 2 / 4), rel=1e-6)


def test_far_logits_stay_finite():
    far = Tensor([-1e4, 1e4])
    value, gradient = ms.value_and_grad(losses.non_saturating_generator_loss)(far)
    assert float(value.asnumpy()) == pytest.approx(5e3, rel=1e-6)
    np.testing.assert_allclose(gradient.asnumpy(), [-0.5, 0], atol=1e-7)


def test_unsure_discriminator_learns_in_both_losses():
    """At logits of 0 the gradients are those of the definitions, kink or not."""
    # Two tensors: PyNative gives the gradient of one that is passed twice to one place alone.
    zeros = Tensor(np.zeros(4, np.float32)), Tensor(np.zeros(4, np.float32))
    for loss, expected in (
        (losses.hinge_discriminator_loss, 1 / 8),
        (losses.non_saturating_discriminator_loss, 1 / 16),
    ):
        real, fake = ms.grad(loss, (0, 1))(*zeros)
        np.testing.assert_allclose(real.asnumpy(), -expected, rtol=1e-6)
        np.testing.assert_allclose(fake.asnumpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("real", "fake", "expected"),
    [
        ([1, 2], [-1, -2, -3], 1),
        ([-1, -2], [1, 2, 3], 0),
        ([1, -1, 1, 1], [-1, 1], 0.625),
        ([0], [0], 0),
    ],
)
def test_accuracy(real, fake, expected):
    value = losses.discriminator_accuracy(Tensor(real, ms.float32), Tensor(fake, ms.float32))
    assert float(value.asnumpy()) == expected and value.dtype == ms.float32


def test_lecam_gives_its_averages_no_gradient():
    averages = Tensor(0.8, ms.float32), Tensor(0.3, ms.float32)
    gradients = ms.grad(losses.lecam_penalty, (2, 3))(Tensor(REAL), Tensor(FAKE), *averages)
    assert [float(gradient.asnumpy()) for gradient in gradients] == [0, 0]


@pytest.mark.parametrize(
    ("reconstruction", "adversarial", "expected"),
    [(2.0, 0.5, 2 / 0.5001), (0.0, 1.0, 0.0), (1.0, 0.0, 100.0), (0.0, 0.0, 0.0)],
)
def test_adaptive_weight(reconstruction, adversarial, expected):
    def weighted(reconstruction, adversarial):
        weight = losses.adaptive_weight(reconstruction, adversarial, max_weight=100.0)
        return weight * 1.0

    norms = Tensor(reconstruction, ms.float32), Tensor(adversarial, ms.float32)
    value, gradients = ms.value_and_grad(weighted, (0, 1))(*norms)
    assert float(value.asnumpy()) == pytest.approx(expected, rel=1e-6)
    assert [float(gradient.asnumpy()) for gradient in gradients] == [0, 0]


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="adversarial loss 'wgan'; expected one of"):
        losses.generator_loss(Tensor(FAKE), kind="wgan")
    with pytest.raises(ValueError, match="adversarial loss 'wgan'; expected one of"):
        losses.discriminator_loss(Tensor(REAL), Tensor(FAKE), kind="wgan")
