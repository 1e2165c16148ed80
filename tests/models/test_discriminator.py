"""Discriminators: shapes, what a logit sees, independence, gradients and gradients of gradients."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import ParameterTuple, Tensor, nn, ops

from mg.losses.adversarial import hinge_discriminator_loss, hinge_generator_loss
from mg.models.discriminator import Discriminator
from mg.models.discriminator_config import DiscriminatorConfig

KINDS = ("frames", "video")
both_kinds = pytest.mark.parametrize("kind", KINDS)
pynative = pytest.mark.usefixtures("pynative_mode")


def make(kind, *, seed=0, **changes):
    ms.set_seed(seed)
    settings = {"ch": 8, "num_layers": 2, "norm_groups": 4, **changes}
    return Discriminator(DiscriminatorConfig(kind=kind, **settings))


def random_video(batch, frames, height=16, width=24, *, seed=0):
    shape = (batch, 3, frames, height, width)
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def weights_of(cell):
    return {parameter.name: parameter.asnumpy().copy() for parameter in cell.get_parameters()}


# -- the network ---------------------------------------------------------------------------------


@pynative
@both_kinds
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("frames", [1, 2, 5, 8])
def test_shape_of_the_logits(kind, num_layers, frames):
    logits = make(kind, num_layers=num_layers)(Tensor(random_video(2, frames)))
    factor = 2**num_layers
    num_maps = frames if kind == "frames" else -(-frames // factor)
    assert logits.shape == (2, 1, num_maps, 16 // factor, 24 // factor)
    assert logits.dtype == ms.float32 and np.isfinite(logits.asnumpy()).all()


@pynative
@both_kinds
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_how_far_a_logit_sees(kind, num_layers):
    """Without normalisation: 7 * 2^n - 2 pixels and, of videos, 2^(n + 1) - 1 frames."""
    network = make(kind, num_layers=num_layers, norm_groups=0)
    frames, size = 4 * 2**num_layers, 16 * 2**num_layers

    def one_logit(video):
        logits = network(video)
        return logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2, logits.shape[4] // 2]

    gradient = ms.grad(one_logit)(Tensor(random_video(1, frames, size, size))).asnumpy()
    seen = [np.flatnonzero(gradient.any(tuple({1, 2, 3, 4} - {axis}))[0]) for axis in (2, 3, 4)]
    pixels = 7 * 2**num_layers - 2
    num_frames = 1 if kind == "frames" else 2 ** (num_layers + 1) - 1
    assert [len(positions) for positions in seen] == [num_frames, pixels, pixels]


@pynative
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_motion_is_judged_by_the_kind_video_alone(dtype):
    video = random_video(1, 8).astype(dtype)
    shuffled = video[:, :, [3, 0, 7, 1, 5, 2, 6, 4]]
    logits = {}
    for kind in KINDS:
        network = make(kind)
        logits[kind] = [network(Tensor(v)).asnumpy() for v in (video, shuffled)]
    before, after = logits["frames"]
    # Convolutions over a batch in another order round differently.
    np.testing.assert_allclose(after, before[:, :, [3, 0, 7, 1, 5, 2, 6, 4]], rtol=0, atol=2e-3)
    before, after = logits["video"]
    assert np.abs(after - before).max() > 0.1 * np.abs(before).max()


@pynative
@both_kinds
def test_clips_of_a_batch_do_not_influence_each_other(kind):
    network = make(kind)
    video = random_video(3, 4)
    expected = network(Tensor(video)).asnumpy()
    video[[0, 2]] = 5 * random_video(2, 4, seed=1)
    changed = network(Tensor(video)).asnumpy()
    np.testing.assert_array_equal(changed[1], expected[1])
    assert np.abs(changed[[0, 2]] - expected[[0, 2]]).max() > 1e-3


@pynative
def test_frames_of_a_clip_do_not_influence_each_other_in_the_kind_frames():
    network = make("frames")
    video = random_video(1, 4)
    expected = network(Tensor(video)).asnumpy()
    video[:, :, 1] = 0.9
    changed = network(Tensor(video)).asnumpy()
    np.testing.assert_array_equal(changed[:, :, [0, 2, 3]], expected[:, :, [0, 2, 3]])
    assert (changed[:, :, 1] != expected[:, :, 1]).all()


@both_kinds
def test_initial_weights_follow_the_seed(kind):
    weights, same, other = (weights_of(make(kind, seed=seed)) for seed in (3, 3, 4))
    for name, value in weights.items():
        np.testing.assert_array_equal(value, same[name], err_msg=name)
        if name.endswith("weight"):
            assert np.abs(value - other[name]).max() > 0.01, name


@both_kinds
def test_initial_weights_have_their_standard_deviation(kind):
    """Within 5 %, over at least 10,000 values."""
    for name, value in weights_of(make(kind, ch=64, norm_groups=32)).items():
        if "conv_spat.weight" in name and value.size > 10_000:
            assert value.std() == pytest.approx(0.02, rel=0.05), name
        elif "conv_temp.conv.weight" in name:
            assert value.std() == pytest.approx((3 * len(value)) ** -0.5, rel=0.05), name
        elif name.endswith("bias") or name.endswith("beta"):
            assert not value.any(), name


# -- training ------------------------------------------------------------------------------------


class Loss(nn.Cell):
    """The discriminator's loss of a real and a fake video."""

    def __init__(self, network):
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, real, fake):
        # Twice the real logits: equal pulls of both sides would cancel at the last bias.
        return hinge_discriminator_loss(2 * self.network(real), self.network(fake))


@pytest.mark.parametrize(("kind", "frames"), [("frames", 5), ("video", 1), ("video", 5)])
def test_both_modes_give_the_same_gradients(kind, frames):
    """1e-5 of the largest value, for all parameters and both videos; no name changes."""
    videos = [Tensor(random_video(2, frames, seed=seed)) for seed in (1, 2)]
    results = []
    before = ms.get_context("mode")
    for mode in (ms.GRAPH_MODE, ms.PYNATIVE_MODE):
        ms.set_context(mode=mode)
        cell = Loss(make(kind, num_layers=1))
        names = list(weights_of(cell))
        parameters = ParameterTuple(cell.trainable_params())
        value, (by_input, by_weight) = ms.value_and_grad(cell, (0, 1), parameters)(*videos)
        assert list(weights_of(cell)) == names
        tensors = [value, *by_input, *by_weight]
        results.append([tensor.asnumpy() for tensor in tensors])
    ms.set_context(mode=before)
    assert all(tensor.any() for tensor in results[0])  # none is idle
    for compiled, expected in zip(*results, strict=True):
        limit = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(compiled, expected, rtol=0, atol=limit)


class StepWithInnerGradient(nn.Cell):
    """A generator's loss that holds the adversarial loss's own gradient at the frames.

    loss = sum(stop_gradient(d adversarial / d frames) * frames) + ratio of norms * adversarial
    """

    def __init__(self, network):
        super().__init__(auto_prefix=False)
        self.network = network
        self.generator = nn.Conv2d(3, 3, 3, weight_init="normal", has_bias=True)
        self.inner_gradient = ms.grad(self.adversarial, 0)
        self.parameters = ParameterTuple(self.generator.trainable_params())
        self.outer = ms.value_and_grad(self.loss, None, self.parameters, has_aux=True)

    def adversarial(self, frames):
        return hinge_generator_loss(self.network(frames))

    def loss(self, video):
        batch, channels, frames, height, width = video.shape
        folded = video.reshape(batch, channels, frames * height, width)
        fake = self.generator(folded).reshape(video.shape)
        gradient = ops.stop_gradient(self.inner_gradient(fake))
        norm = ops.sqrt(ops.square(gradient).sum())
        return (gradient * fake).sum() + self.adversarial(fake) / norm, gradient, fake

    def construct(self, video):
        return self.outer(video)


@pynative
@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"])
@both_kinds
def test_a_gradient_within_a_differentiated_function(kind, mode):
    """With v the inner gradient, d loss / d frames is v + v / |v|: 1e-5 of the largest value."""
    network = make(kind, num_layers=1)
    step = StepWithInnerGradient(network)
    video = Tensor(random_video(2, 3, 16, 16))
    names = list(weights_of(network))
    ms.set_context(mode=mode)
    (_, inner, fake), by_weight = step(video)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    assert list(weights_of(network)) == names

    expected_inner = ms.grad(step.adversarial)(fake).asnumpy()
    limit = 1e-5 * np.abs(expected_inner).max()
    np.testing.assert_allclose(inner.asnumpy(), expected_inner, rtol=0, atol=limit)

    at_frames = expected_inner + expected_inner / np.linalg.norm(expected_inner)

    def projected(video):
        folded = video.reshape(2, 3, 48, 16)
        return (step.generator(folded).reshape(video.shape) * Tensor(at_frames)).sum()

    expected = ms.grad(projected, None, step.parameters)(video)
    for gradient, other in zip(by_weight, expected, strict=True):
        limit = 1e-5 * np.abs(other.asnumpy()).max()
        np.testing.assert_allclose(gradient.asnumpy(), other.asnumpy(), rtol=0, atol=limit)


@pynative
@both_kinds
def test_second_derivatives(kind):
    """The gradient of |d logits / d video|^2 against central differences: 2 %.

    R1 needs it. A smooth activation stands in, since kinks spoil finite differences.
    """
    network = make(kind)
    for layer in network.layers:
        layer.activation = nn.Tanh()
    gradient_at_video = ms.grad(lambda v: network(v).sum())

    def squared_norm(video):
        return ops.square(gradient_at_video(video)).sum()

    video = Tensor(random_video(2, 3, 8, 8))
    weight = network.layers[1].conv_spat.weight
    found = ms.grad(squared_norm, None, ParameterTuple([weight]))(video)[0].asnumpy()
    direction = found / np.linalg.norm(found)  # the steepest, where rounding matters least
    start = weight.asnumpy().copy()
    sides = []
    for sign in (1, -1):
        weight.set_data(Tensor(start + sign * 1e-3 * direction))
        sides.append(float(squared_norm(video).asnumpy()))
    difference = (sides[0] - sides[1]) / 2e-3
    assert np.linalg.norm(found) == pytest.approx(difference, rel=0.02)


@pynative
@both_kinds
def test_a_discriminator_learns_to_tell_videos_apart(kind):
    """Noise from a smooth ramp, in 10 steps."""
    network = make(kind, num_layers=1)
    cell = Loss(network)
    optimizer = nn.Adam(network.trainable_params(), 3e-3)
    step = ms.value_and_grad(cell, None, optimizer.parameters)
    ramp = np.linspace(-1, 1, 16, dtype=np.float32) + np.zeros((2, 3, 4, 16, 1), np.float32)
    losses = []
    for seed in range(10):
        loss, gradients = step(Tensor(ramp), Tensor(random_video(2, 4, 16, 16, seed=seed)))
        optimizer(gradients)
        losses.append(float(loss.asnumpy()))
    assert losses[0] > 0.8 and losses[-1] < 0.2
    assert len(network.trainable_params()) == len(set(weights_of(network)))


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "3d"}, "kind='3d'; expected one of frames, video"),
        ({"ch": 0}, "ch=0; expected a whole number of 1 or more"),
        ({"num_layers": 0}, "num_layers=0; expected a whole number of 1 or more"),
        ({"max_multiple": 1.5}, "max_multiple=1.5; expected a whole number of 1 or more"),
        ({"norm_groups": -1}, "norm_groups=-1; expected a whole number of 0 or more"),
        ({"ch": 12}, r"gives layers of \[24, 48\] channels; GroupNorm needs multiples of"),
    ],
)
def test_a_wrong_config_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        DiscriminatorConfig(**changes)


def test_widths_stop_growing_at_the_largest_multiple():
    assert DiscriminatorConfig().widths == (64, 128, 256, 512)
    assert DiscriminatorConfig(num_layers=5, max_multiple=4).widths == (64, 128, *[256] * 4)
    assert DiscriminatorConfig(ch=10, norm_groups=0).widths == (10, 20, 40, 80)


@pytest.mark.parametrize("mode", ["graph_mode", "pynative_mode"])
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 2, 16, 7), "num_layers=3 judges videos of at least 8x8 pixels, got 16x7"),
        (
            (1, 4, 2, 16, 16),
            r"expected videos \(B, 3, T, H, W\), got the shape \(1, 4, 2, 16, 16\)",
        ),
        ((3, 2, 16, 16), r"expected videos \(B, 3, T, H, W\), got the shape"),
    ],
)
def test_a_wrong_video_is_refused(mode, shape, message, request):
    request.getfixturevalue(mode)
    with pytest.raises(ValueError, match=message):
        make("video", num_layers=3)(Tensor(np.zeros(shape, np.float32)))
