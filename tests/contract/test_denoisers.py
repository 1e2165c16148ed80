"""What every family of denoisers keeps: one contract, a test for each of its points."""

import json

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from mg.flow.velocity_network import velocity_network
from mg.models.autoencoder_parts import AutoencoderParts
from mg.models.families import DENOISERS, autoencoder_family, denoiser_family, denoiser_of_class
from mg.pipelines.generator_folder import load_generator
from mg.pipelines.generator_writer import save_generator
from mg.pipelines.text_to_video import TextToVideo
from tests.tiny import AUTOENCODERS
from tests.tiny import DENOISERS as TINY

CHANNELS = 4
families = pytest.mark.parametrize("name", DENOISERS)
pytestmark = pytest.mark.usefixtures("pynative_mode")


def build(name):
    """Return the record of a family and a small network with weights that all count."""
    family = denoiser_family(name)
    config = family.read_config({**TINY[name], "latent_channels": CHANNELS})
    network = family.build(config)
    rng = np.random.default_rng(0)
    shapes = {key: array.shape for key, array in network.tensors().items()}
    network.load_tensors(
        {key: 0.3 * rng.standard_normal(shape, np.float32) for key, shape in shapes.items()}
    )
    return family, network


def inputs(config, *, t=0.5, seed=0):
    """Return a noisy latent, its time, and texts, of two clips."""
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal((2, CHANNELS, 2, 4, 4), np.float32), np.full(2, t, np.float32)]
    for encoder in config.text_encoders:
        arrays.append(rng.standard_normal((2, encoder.max_tokens, encoder.width), np.float32))
        arrays.append(np.ones((2, encoder.max_tokens), bool))
    return list(map(Tensor, arrays))


def test_every_family_has_a_small_network():
    assert set(TINY) == set(DENOISERS)


@families
def test_config_and_class_come_back_from_json(name):
    family, network = build(name)
    stored = json.loads(json.dumps({"_class_name": family.class_name, **network.config.to_dict()}))
    assert denoiser_of_class(stored.pop("_class_name")).name == family.name == network.family
    assert family.read_config(stored) == network.config


@families
def test_loading_is_strict_and_shapes_are_known_without_building(name):
    family, network = build(name)
    tensors = network.tensors()
    assert {key: array.shape for key, array in tensors.items()} == dict(
        family.shapes(network.config)
    )
    last = list(tensors)[-1]
    missing = {key: array + 1 for key, array in tensors.items() if key != last}
    for wrong in (missing, {**missing, last: tensors[last][..., None]}):
        with pytest.raises(ValueError, match=r"missing|misshapen"):
            network.load_tensors(wrong)
    for key, array in network.tensors().items():
        np.testing.assert_array_equal(array, tensors[key])


@families
def test_velocity_has_the_latents_shape_and_heeds_time_and_text(name):
    family, network = build(name)
    velocity = network
    if family.prediction != "velocity":
        velocity = velocity_network(network, family.prediction)
    arguments = inputs(network.config)
    before = velocity(*arguments).asnumpy()
    assert before.shape == arguments[0].shape and before.dtype == np.float32
    later = [arguments[0], Tensor(np.full(2, 0.9, np.float32)), *arguments[2:]]
    assert np.abs(velocity(*later).asnumpy() - before).max() > 1e-3
    other = inputs(network.config, seed=1)
    changed = velocity(*arguments[:2], *other[2:]).asnumpy()
    assert np.abs(changed - before).max() > 1e-3
    with pytest.raises(ValueError, match="expected"):
        network(*arguments[:2])


@families
def test_arrays_of_numpy_are_taken_as_tensors(name):
    _, network = build(name)
    arguments = inputs(network.config)
    expected = network(*arguments).asnumpy()
    found = network(*[x.asnumpy() for x in arguments]).asnumpy()
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(TypeError, match="latent is list; expected a MindSpore tensor or a numpy"):
        network([1.0], *arguments[1:])


@families
def test_a_config_of_another_class_is_refused(name):
    family = denoiser_family(name)
    fields = {**TINY[name], "latent_channels": CHANNELS}
    for other in DENOISERS:
        if other != name:
            stated = {"_class_name": denoiser_family(other).class_name, **fields}
            with pytest.raises(
                ValueError, match=f"but the family '{name}' has {family.class_name}"
            ):
                family.read_config(stated)


@families
def test_a_few_updates_lower_the_error(name):
    family, network = build(name)
    velocity = network
    if family.prediction != "velocity":
        velocity = velocity_network(network, family.prediction)
    arguments = inputs(network.config)
    goal = Tensor(np.random.default_rng(3).standard_normal(arguments[0].shape, np.float32))
    parameters = ms.ParameterTuple(network.trainable_params())
    step = ms.value_and_grad(
        lambda: ops.square(velocity(*arguments) - goal).mean(), None, parameters
    )
    optimizer = ms.nn.Adam(parameters, 1e-2)
    losses = []
    for _ in range(8):
        loss, gradients = step()
        optimizer(gradients)
        losses.append(float(loss.asnumpy()))
    assert losses[-1] < 0.9 * losses[0]


@families
def test_a_generator_is_saved_and_samples(name, tmp_path):
    family, network = build(name)
    record = autoencoder_family("tae")
    config = record.read_config(AUTOENCODERS["tae"])
    autoencoder = AutoencoderParts.of_network(record.build(config))
    texts = [f"word,width=32,max_tokens={e.max_tokens}" for e in network.config.text_encoders]
    texts[1:] = ["text,width=32"] * (len(texts) - 1)  # a pooled text is one token
    save_generator(
        tmp_path / "generator",
        transformer_tensors=network.tensors(),
        transformer_config=network.config,
        autoencoder=autoencoder,
        text_encoders=texts,
        defaults={"num_frames": 4, "size": [8, 8], "fps": 8, "guidance": 1.0, "steps": 1},
        family=family,
    )
    index = json.loads((tmp_path / "generator" / "model_index.json").read_text())
    assert index["families"] == {"denoiser": name, "autoencoder": "tae"}
    parts = load_generator(tmp_path / "generator")
    assert (parts.family.name, parts.autoencoder.family.name) == (name, "tae")
    for key, array in network.tensors().items():
        np.testing.assert_array_equal(parts.transformer_tensors[key], array)
    videos = TextToVideo(parts)("red", seed=0)
    assert videos.frames.shape == (1, 4, 8, 8, 3)
    assert videos.latents.shape == (1, CHANNELS, 2, 4, 4)
