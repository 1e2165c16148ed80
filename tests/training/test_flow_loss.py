"""The flow-matching loss: value and gradient against numpy in float64, and as a training step."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mg.training.denoiser.flow_loss import FlowLoss
from mg.training.settings import OptimSettings
from mg.training.step import TrainStep

SHAPE = (3, 4, 2, 5, 5)  # (B, C, T, H, W)


class StandIn(nn.Cell):
    """velocity = gain x_t + slope t + text projected to the channels."""

    def __init__(self, dtype=ms.float32):
        super().__init__()
        rng = np.random.default_rng(1)
        self.gain = ms.Parameter(Tensor(rng.standard_normal(4, np.float32)), name="gain")
        self.slope = ms.Parameter(Tensor(rng.standard_normal(4, np.float32)), name="slope")
        self.text = ms.Parameter(Tensor(rng.standard_normal((6, 4), np.float32)), name="text")
        self.dtype = dtype

    def construct(self, latent, t, values, mask):
        mask = mask.astype(ms.float32).expand_dims(-1)
        mean = (values * mask).sum(1) / mask.sum(1)  # (B, L, D) -> (B, D)
        shift = t.expand_dims(1) * self.slope + ms.ops.matmul(mean, self.text)  # (B, C)
        velocity = latent * self.gain.reshape((1, -1, 1, 1, 1)) + shift.reshape((-1, 4, 1, 1, 1))
        return velocity.astype(self.dtype)


def make_batch():
    """Return mean, std, posterior noise, noise, t, text values, text mask."""
    rng = np.random.default_rng(0)
    mean, posterior_noise, noise = (rng.standard_normal(SHAPE, np.float32) for _ in range(3))
    std = rng.uniform(0.1, 0.5, SHAPE).astype(np.float32)
    t = np.array([0.1, 0.5, 0.9], np.float32)
    values = rng.standard_normal((3, 7, 6), np.float32)
    mask = np.arange(7) < np.array([[1], [4], [7]])
    return mean, std, posterior_noise, noise, t, values, mask


def numpy_loss(network, mean, std, posterior_noise, noise, t, values, mask):
    """Return (loss of each clip, gradients by name), in float64."""
    gain, slope, text = (
        p.asnumpy().astype(np.float64) for p in (network.gain, network.slope, network.text)
    )
    data = (mean + std * posterior_noise).astype(np.float64)
    time = t.astype(np.float64)[:, None, None, None, None]
    noisy = time * data + (1 - (1 - 1e-5) * time) * noise
    pooled = (values * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    shift = t[:, None] * slope + pooled @ text
    velocity = noisy * gain[:, None, None, None] + shift[..., None, None, None]
    error = velocity - (data - (1 - 1e-5) * noise)
    by_velocity = 2 * error / error.size
    by_shift = by_velocity.sum((2, 3, 4))  # (B, C)
    gradients = {
        "gain": (by_velocity * noisy).sum((0, 2, 3, 4)),
        "slope": (by_shift * t[:, None]).sum(0),
        "text": pooled.T @ by_shift,
    }
    return (error**2).mean((1, 2, 3, 4)), gradients


def test_value_and_gradient_are_those_of_numpy(graph_mode):
    batch = make_batch()
    loss = FlowLoss(StandIn())
    parameters = loss.trainable_params()
    function = ms.value_and_grad(loss, None, weights=parameters, has_aux=True)
    (value, terms, per_clip), gradients = function(*map(Tensor, batch))
    expected, expected_gradients = numpy_loss(loss.network, *batch)
    assert len(terms) == 1
    np.testing.assert_allclose(per_clip.asnumpy(), expected, rtol=1e-5)
    assert float(value.asnumpy()) == pytest.approx(expected.mean(), rel=1e-5)
    assert float(terms[0].asnumpy()) == pytest.approx(expected.mean(), rel=1e-5)
    assert [p.name for p in parameters] == list(expected_gradients)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        np.testing.assert_allclose(
            gradient.asnumpy(), expected_gradients[parameter.name], rtol=1e-4, atol=1e-6
        )


def test_a_network_of_half_precision_is_compared_in_float32(pynative_mode):
    batch = make_batch()
    loss = FlowLoss(StandIn(ms.float16))
    value, _, per_clip = loss(*map(Tensor, batch))
    expected, _ = numpy_loss(loss.network, *batch)
    assert value.dtype == per_clip.dtype == ms.float32
    # float16 keeps 11 bits of the velocity; an error computed in float16 would overflow or lose.
    assert float(value.asnumpy()) == pytest.approx(expected.mean(), rel=1e-3)


def test_training_steps_lead_to_its_minimum(graph_mode):
    loss = FlowLoss(StandIn())
    settings = OptimSettings(clip_grad_norm=None, ema_decay=None)
    step = TrainStep(loss, settings)
    controls = [Tensor(value, ms.float32) for value in (0.05, 1.0, 3e38)]
    batch = list(map(Tensor, make_batch()))
    losses = []
    for _ in range(60):
        value, _, norm, per_clip = step(*controls, True, *batch)
        losses.append(float(value.asnumpy()))
    assert per_clip.shape == (3,) and np.isfinite(float(norm.asnumpy()))
    assert losses[-1] < 0.5 * losses[0]
    _, gradients = numpy_loss(loss.network, *make_batch())
    assert max(np.abs(gradient).max() for gradient in gradients.values()) < 0.2
