"""Classifier-free guidance on networks simple enough to know the answer."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mg.flow.guidance import guided_velocity
from mg.flow.noise import initial_noise
from mg.flow.sampler import sample
from mg.flow.schedules import linear_schedule

SHAPE = (3, 2, 4, 4)


class Network:
    """velocity = x t + mean of the unmasked tokens; remembers the batch size of each call."""

    def __init__(self):
        self.batch_sizes = []

    def __call__(self, latent, t, values, mask):
        self.batch_sizes.append(len(latent))
        mean = (values * mask[..., None]).sum((1, 2)) / mask.sum(1)  # (B,)
        return latent * t.reshape(-1, 1, 1, 1, 1) + mean.reshape(-1, 1, 1, 1, 1)


def make_text(seed, num_rows=2):
    rng = np.random.default_rng(seed)
    mask = np.arange(5) < rng.integers(1, 6, (num_rows, 1))
    return rng.standard_normal((num_rows, 5, 4), np.float32), mask


@pytest.fixture(scope="module")
def latent():
    return initial_noise(SHAPE, [0, 1])


T = np.array([0.3, 0.3], np.float32)


@pytest.mark.parametrize("one_batch", [True, False])
@pytest.mark.parametrize("scale", [0.0, 0.5, 7.5])
def test_the_two_branches_are_weighed_as_in_the_paper(latent, one_batch, scale):
    text, empty = make_text(0), make_text(1)
    network = Network()
    conditional, unconditional = network(latent, T, *text), network(latent, T, *empty)
    velocity = guided_velocity(network, text, empty, scale=scale, one_batch=one_batch)
    expected = unconditional + scale * (conditional - unconditional)
    np.testing.assert_allclose(velocity(latent, T), expected, atol=1e-5)


def test_both_ways_sample_the_same_video(latent):
    text, empty = make_text(0), make_text(1)
    one, two = (
        sample(
            guided_velocity(Network(), text, empty, scale=3, one_batch=one_batch),
            latent,
            linear_schedule(5),
        )
        for one_batch in (True, False)
    )
    np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.mark.parametrize(
    ("scale", "one_batch", "batch_sizes"),
    [(1.0, True, [2] * 5), (1.0, False, [2] * 5), (4, True, [4] * 5), (4, False, [2] * 10)],
)
def test_the_network_runs_no_more_often_than_needed(latent, scale, one_batch, batch_sizes):
    network = Network()
    velocity = guided_velocity(
        network, make_text(0), make_text(1), scale=scale, one_batch=one_batch
    )
    sample(velocity, latent, linear_schedule(5))
    assert network.batch_sizes == batch_sizes


def test_scale_1_is_the_conditional_velocity_and_needs_no_other_text(latent):
    text = make_text(0)
    velocity = guided_velocity(Network(), text, scale=1.0)
    np.testing.assert_array_equal(velocity(latent, T), Network()(latent, T, *text))


def test_a_negative_prompt_takes_the_place_of_the_empty_one(latent):
    text, negative = make_text(0), make_text(2)
    network = Network()
    pushed = guided_velocity(network, text, negative, scale=2)(latent, T)
    expected = 2 * network(latent, T, *text) - network(latent, T, *negative)
    np.testing.assert_allclose(pushed, expected, atol=1e-5)


@pytest.mark.parametrize("kind", [np.asarray, Tensor])
@pytest.mark.parametrize("one_batch", [True, False])
def test_one_row_of_unconditional_text_serves_all_videos(latent, kind, one_batch):
    text, empty = make_text(0), make_text(1, num_rows=1)
    repeated = [np.repeat(x, 2, axis=0) for x in empty]
    shapes = []

    def network(latent, t, values, mask):
        shapes.append((values.shape, mask.shape))
        values, mask = (x if isinstance(x, np.ndarray) else x.asnumpy() for x in (values, mask))
        return kind(Network()(np.asarray(latent), np.asarray(t), values, mask))

    velocity = guided_velocity(
        network, list(map(kind, text)), list(map(kind, empty)), one_batch=one_batch
    )
    expected = guided_velocity(Network(), text, repeated)(latent, T)
    np.testing.assert_allclose(np.asarray(velocity(kind(latent), kind(T))), expected, atol=1e-5)
    assert {values[0] for values, _ in shapes} == {4 if one_batch else 2}


class CompiledNetwork(nn.Cell):
    """The same as Network, as a MindSpore cell with a weight."""

    def __init__(self):
        super().__init__()
        self.projection = nn.Dense(4, SHAPE[0])

    def construct(self, latent, t, values, mask):
        mask = mask.astype(ms.float32).expand_dims(-1)  # (B, L, 1)
        mean = (values * mask).sum(1) / mask.sum(1)  # (B, D)
        shift = self.projection(mean).reshape((-1, SHAPE[0], 1, 1, 1))
        return ops.tanh(latent) * t.reshape((-1, 1, 1, 1, 1)) + shift


def test_a_compiled_network_gives_the_same_in_one_batch_as_in_two_passes(graph_mode, latent):
    network = CompiledNetwork()
    text, empty = map(Tensor, make_text(0)), map(Tensor, make_text(1, num_rows=1))
    text, empty = tuple(text), tuple(empty)
    one, two = (
        sample(
            guided_velocity(network, text, empty, scale=3, one_batch=one_batch),
            Tensor(latent),
            linear_schedule(4),
        ).asnumpy()
        for one_batch in (True, False)
    )
    np.testing.assert_allclose(one, two, atol=2e-6)
    off = sample(guided_velocity(network, text, scale=1), Tensor(latent), linear_schedule(4))
    assert np.abs(off.asnumpy() - one).max() > 0.1


@pytest.mark.parametrize("scale", [-1, float("nan"), float("inf")])
def test_a_scale_that_cannot_be_is_refused(scale):
    with pytest.raises(ValueError, match=f"guidance scale {scale}; expected 0 or more"):
        guided_velocity(Network(), make_text(0), make_text(1), scale=scale)


def test_guidance_without_the_other_text_is_refused():
    with pytest.raises(ValueError, match=r"guidance scale 7.5 needs the conditions of the un"):
        guided_velocity(Network(), make_text(0))


@pytest.mark.parametrize("other", [make_text(1, num_rows=3), make_text(1)[:1]])
def test_unconditional_text_that_does_not_fit_is_refused(other):
    with pytest.raises(ValueError, match="the unconditional branch has the shapes"):
        guided_velocity(Network(), make_text(0), other)
