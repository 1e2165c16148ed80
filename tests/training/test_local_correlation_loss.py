"""The local-correlation regulariser in the autoencoder's loss: its weight and its gradient."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mg.losses.local_correlation import local_correlation_loss
from mg.losses.reconstruction import l1_loss
from mg.training.autoencoder.autoencoder_config import LossSettings
from mg.training.autoencoder.autoencoder_loss import LOSS_TERMS, AutoencoderLoss


class SmallAutoencoder(nn.Cell):
    """What the loss asks of an autoencoder, in two convolutions: quick to compile."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 8, 3, has_bias=True)
        self.decoder = nn.Conv2d(4, 3, 3, has_bias=True)
        rng = np.random.RandomState(0)
        for parameter in self.get_parameters():
            parameter.set_data(Tensor(0.3 * rng.randn(*parameter.shape), ms.float32))
        self.last_weight = self.decoder.weight

    def moments(self, video):
        """Return mean and logvar (1, 4, T, H, W) of a video (1, 3, T, H, W)."""
        x = ops.tanh(self.encoder(video[0].transpose(1, 0, 2, 3))).transpose(1, 0, 2, 3)
        return x[:4].expand_dims(0), x[4:].expand_dims(0)

    has_posterior = True

    def sample(self, mean, logvar, noise):
        return mean + ops.exp(0.5 * logvar) * noise

    def features(self, z, num_frames=None):
        return z[0].transpose(1, 0, 2, 3), z.shape[2]

    def frames_of_features(self, features, num_frames, weight):
        x = ops.conv2d(features, weight, self.decoder.bias, pad_mode="same")
        return x.transpose(1, 0, 2, 3).reshape(1, 3, num_frames, *x.shape[2:])


def make_loss(**settings) -> AutoencoderLoss:
    loss = LossSettings(perceptual_loss_weight=0, kl_loss_weight=0, lcr_threshold=1.0, **settings)
    return AutoencoderLoss(SmallAutoencoder(), loss)


def make_batch() -> tuple[Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(1)
    video = rng.uniform(-1, 1, (1, 3, 4, 6, 6)).astype(np.float32)
    noise = rng.standard_normal((1, 4, 4, 6, 6), np.float32)
    return Tensor(video), Tensor(noise), Tensor(np.zeros(1, np.int32))


def terms_of(result: tuple) -> dict[str, float]:
    return dict(zip(LOSS_TERMS, (float(term.asnumpy()) for term in result[1]), strict=True))


def test_the_adaptive_weight_and_its_gradient_are_those_of_plain_derivatives(in_graph_mode):
    """The compiled loss against derivatives that are taken piece by piece, line by line."""
    loss = make_loss(lcr_weight=0.1)
    tae = loss.autoencoder
    parameters = ms.ParameterTuple(tae.trainable_params())
    video, noise, indices = make_batch()
    step = ms.value_and_grad(loss, None, weights=parameters, has_aux=True)
    (total, terms, _), gradients = step(video, noise, indices)
    terms = terms_of((total, terms))

    ms.set_context(mode=ms.PYNATIVE_MODE)

    def frames_from(z):
        return tae.frames_of_features(*tae.features(z), tae.last_weight)

    z = tae.sample(*tae.moments(video), noise)
    by_reconstruction = ms.grad(lambda z: l1_loss(frames_from(z), video))(z).asnumpy()
    by_correlation = ms.grad(lambda z: local_correlation_loss(z, 1.0))(z).asnumpy()
    weight = float(0.1 * np.linalg.norm(by_reconstruction) / np.linalg.norm(by_correlation))

    def plain():
        z = tae.sample(*tae.moments(video), noise)
        return l1_loss(frames_from(z), video) + weight * local_correlation_loss(z, 1.0)

    value, expected = ms.value_and_grad(plain, None, weights=parameters)()
    assert terms["lcr_weight"] == pytest.approx(weight, rel=1e-4)
    assert terms["lcr"] == pytest.approx(float(local_correlation_loss(z, 1.0)), rel=1e-5)
    assert float(total.asnumpy()) == pytest.approx(float(value), rel=1e-5)
    assert weight * terms["lcr"] > 1e-3 * float(value)
    for parameter, gradient, want in zip(parameters, gradients, expected, strict=True):
        tolerance = 1e-4 * np.abs(want.asnumpy()).max()
        np.testing.assert_allclose(
            gradient.asnumpy(), want.asnumpy(), rtol=0, atol=tolerance, err_msg=parameter.name
        )


def test_a_fixed_weight_and_none(pynative_mode):
    batch = make_batch()
    without = make_loss()(*batch)
    fixed = make_loss(lcr_weight=0.5, lcr_adaptive=False)(*batch)
    terms = terms_of(fixed)
    assert terms_of(without)["lcr"] == terms_of(without)["lcr_weight"] == 0
    assert terms["lcr_weight"] == 0.5 and terms["lcr"] > 0.1
    difference = float(fixed[0].asnumpy()) - float(without[0].asnumpy())
    assert difference == pytest.approx(0.5 * terms["lcr"], rel=1e-4)


@pytest.mark.parametrize("threshold", [0.0, 1.5])
def test_refused_thresholds(threshold):
    with pytest.raises(ValueError, match=r"loss\.lcr_threshold=.*; expected more than 0, and 1"):
        LossSettings(lcr_weight=0.1, lcr_threshold=threshold)
