"""Networks that code like diffusers': reference numbers, names, both modes, no 3-D convolution."""

import json
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from mg.models.autoencoder_kl.config import AutoencoderKLConfig
from mg.models.autoencoder_kl.network import AutoencoderKL
from mg.models.cogvideox_vae.config import CogVideoXVAEConfig
from mg.models.cogvideox_vae.network import CogVideoXVAE
from mg.models.hunyuan_vae.config import HunyuanVideoVAEConfig
from mg.models.hunyuan_vae.network import HunyuanVideoVAE
from mg.vaes.networks import built_without_values, load_network
from mg.weights.safetensors_file import read_safetensors
from mg.weights.vae_names import to_diffusers_names

FIXTURES = Path(__file__).parents[1] / "fixtures"
# Family -> config, network, reference
FAMILIES = {
    "kl": (AutoencoderKLConfig, AutoencoderKL),
    "cogvae": (CogVideoXVAEConfig, CogVideoXVAE),
    "hyvae": (HunyuanVideoVAEConfig, HunyuanVideoVAE),
}


def read_fixture(name):
    """Return a tiny network's config.json, tensors, and what diffusers makes of them."""
    folder = FIXTURES / "vaes" / name
    config = json.loads((folder / "config.json").read_text())
    tensors = to_diffusers_names(read_safetensors(folder / "diffusion_pytorch_model.safetensors"))
    arrays = np.load(FIXTURES / "vaes" / f"{name}.npz", allow_pickle=False)
    reference = {
        key: arrays[key][:, :, None]
        if key[1] == ":" and key[0] != "g" and arrays[key].ndim == 4
        else arrays[key]
        for key in arrays.files
    }  # images as videos of one frame
    return config, tensors, reference


def loaded(name):
    config, tensors, reference = read_fixture(name)
    config_class, network_class = FAMILIES[name]
    network = built_without_values(lambda: network_class(config_class.from_mapping(config)))
    load_network(network, tensors)
    return network, reference


def coded(network, video):
    """Return the loss that the references were made with, mean, logvar, video, all gradients."""
    named = dict(network.parameters_and_names())

    def loss(video):
        mean, logvar = network.moments(video)
        frames = network.frames_from(mean, video.shape[2])
        return ops.square(frames - video).mean(), mean, logvar, frames

    grad = ms.value_and_grad(loss, None, list(named.values()), has_aux=True)
    outputs, gradients = grad(video)
    gradients = {name: g.asnumpy() for name, g in zip(named, gradients, strict=True)}
    return [output.asnumpy() for output in outputs], gradients


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("mode", ["pynative_mode", "graph_mode"])
def test_numbers_and_every_gradient_are_the_references(name, mode, request):
    request.getfixturevalue(mode)
    network, reference = loaded(name)
    outputs, gradients = coded(network, Tensor(reference["i:x"]))
    expected = [reference[key] for key in ("loss", "o:z", "o:logvar", "o:y")]
    expected[2] = np.clip(expected[2], -30, 20)
    for found, right in zip(outputs, expected, strict=True):
        assert found.shape == right.shape
        np.testing.assert_allclose(found, right, rtol=0, atol=1e-5 * max(1, np.abs(right).max()))
    assert {f"g:{key}" for key in gradients} == {key for key in reference if key[:2] == "g:"}
    for key, gradient in gradients.items():
        np.testing.assert_allclose(gradient, reference[f"g:{key}"], rtol=0, atol=2e-5, err_msg=key)
    assert list(gradients) == [p.name for p in network.get_parameters()]
