"""A condition beside the latent: without effect before training, to the last bit; then with."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mg.models.families import denoiser_family
from mg.parameters import set_values
from tests.tiny import DENOISERS

CHANNELS, BESIDE = 4, 9
# Each family's weight whose last columns are for the condition.
PATCH_WEIGHTS = {
    "movie_gen": "condition_embedding.weight",
    "cogvideox": "patch_embed.proj.weight",
    "hunyuan": "x_embedder.proj.weight",
    "unet": "condition_in.weight",
}


def build(name, condition_channels):
    family = denoiser_family(name)
    config = family.read_config(
        {**DENOISERS[name], "latent_channels": CHANNELS, "condition_channels": condition_channels}
    )
    assert (config.latent_channels, config.condition_channels) == (CHANNELS, condition_channels)
    return family, config, family.build(config)


def inputs(name):
    rng = np.random.default_rng(0)
    draw = lambda *shape: Tensor(rng.standard_normal(shape, np.float32))  # noqa: E731
    text = [draw(2, 4, 32), Tensor(np.ones((2, 4), bool))]
    if name == "hunyuan":
        text += [draw(2, 1, 32), Tensor(np.ones((2, 1), bool))]
    times = Tensor(np.array([0.3, 0.7], np.float32))
    return [draw(2, CHANNELS, 2, 4, 4), times, *text], draw(2, BESIDE, 2, 4, 4)


def grown(name):
    """Return a network, the same with a condition, and the arguments of both."""
    family, plain_config, plain = build(name, 0)
    _, config, conditioned = build(name, BESIDE)
    rng = np.random.default_rng(1)
    tensors = {
        key: 0.3 * rng.standard_normal(array.shape, np.float32)
        for key, array in plain.tensors().items()
    }
    plain.load_tensors(tensors)
    larger = family.grow(tensors, plain_config, config)
    assert {key: array.shape for key, array in larger.items()} == dict(family.shapes(config))
    with pytest.raises(ValueError, match="another network"):
        family.grow(larger, config, plain_config)
    conditioned.load_tensors(larger)
    return plain, conditioned, *inputs(name)


@pytest.mark.parametrize("name", DENOISERS)
def test_before_training_the_output_is_that_of_the_network_without_to_the_last_bit(
    name, graph_mode
):
    plain, conditioned, arguments, beside = grown(name)
    before = plain(*arguments).asnumpy()
    assert before.shape == (2, CHANNELS, 2, 4, 4) and np.abs(before).max() > 0.1
    np.testing.assert_array_equal(conditioned(*arguments, beside).asnumpy(), before)
    with pytest.raises(ValueError, match="the last condition lies on the latent's channel axis"):
        conditioned(*arguments)


@pytest.mark.parametrize("name", DENOISERS)
def test_its_columns_learn_from_what_the_condition_shows(name, pynative_mode):
    _, conditioned, arguments, beside = grown(name)
    weight = dict(conditioned.parameters_and_names())[PATCH_WEIGHTS[name]]
    loss = lambda *tensors: (conditioned(*tensors) ** 2).sum()  # noqa: E731
    num_columns = BESIDE * (27 if name == "unet" else 4)  # 3 x 3 x 3, or patches of 1 x 2 x 2

    def gradient(beside):
        values = ms.grad(loss, None, weight)(*arguments, beside).asnumpy()
        return values.reshape(len(values), -1)[:, -num_columns:]

    assert np.abs(gradient(beside)).max() > 1e-3
    assert not gradient(beside * 0).any()
    before = conditioned(*arguments, beside).asnumpy()
    rng = np.random.default_rng(2)
    set_values(weight, weight.asnumpy() + 0.3 * rng.standard_normal(weight.shape, np.float32))
    assert np.abs(conditioned(*arguments, beside).asnumpy() - before).max() > 1e-2
