"""Networks that code like diffusers': reference numbers, names, both modes, no 3-D convolution."""

import json
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mg.models.autoencoder_kl.config import AutoencoderKLConfig
from mg.models.autoencoder_kl.network import AutoencoderKL
from mg.models.cogvideox_vae.config import CogVideoXVAEConfig, chunk_lengths
from mg.models.cogvideox_vae.network import CogVideoXVAE
from mg.models.hunyuan_vae.config import HunyuanVideoVAEConfig
from mg.models.hunyuan_vae.network import HunyuanVideoVAE
from mg.weights.safetensors_file import read_safetensors
from mg.weights.vae_names import to_diffusers_names
from tests.networks import built_without_values, load_network, network_shapes, network_tensors

FIXTURES = Path(__file__).parents[1] / "fixtures"
# Family -> config, network, reference
FAMILIES = {
    "kl": (AutoencoderKLConfig, AutoencoderKL),
    "cogvae": (CogVideoXVAEConfig, CogVideoXVAE),
    "hyvae": (HunyuanVideoVAEConfig, HunyuanVideoVAE),
}


IMAGE_VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "act_fn": "silu",
}
SD35_VAE = {
    **IMAGE_VAE,
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
# Published files: (family, config, manifest). The other fields are the class's defaults.
PUBLISHED = {
    "sd-vae-ft-mse": ("kl", IMAGE_VAE, "sd-vae-ft-mse"),
    "sdxl-vae": (
        "kl",
        {**IMAGE_VAE, "scaling_factor": 0.13025, "sample_size": 1024, "force_upcast": True},
        "sd-vae-ft-mse",
    ),
    "sd35-vae": ("kl", SD35_VAE, "sd35-vae"),
    "cogvideox-vae": (
        "cogvae",
        {"block_out_channels": [128, 256, 256, 512], "layers_per_block": 3, "latent_channels": 16},
        "cogvideox-vae",
    ),
    "hunyuanvideo-vae": (
        "hyvae",
        {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 16},
        "hunyuanvideo-vae",
    ),
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
def test_numbers_and_every_gradient_are_the_references_in_both_modes(name, request):
    results = []
    for mode in ("pynative_mode", "graph_mode"):
        request.getfixturevalue(mode)
        network, reference = loaded(name)
        outputs, gradients = coded(network, Tensor(reference["i:x"]))
        check_against(reference, outputs, gradients)
        assert list(gradients) == [p.name for p in network.get_parameters()]
        results.append(dict(enumerate(outputs)) | gradients)
    by_line, compiled = results
    for key, right in by_line.items():
        tolerance = 1e-5 * max(1, np.abs(right).max())
        np.testing.assert_allclose(compiled[key], right, rtol=0, atol=tolerance, err_msg=key)


def check_against(reference, outputs, gradients):
    expected = [reference[key] for key in ("loss", "o:z", "o:logvar", "o:y")]
    expected[2] = np.clip(expected[2], -30, 20)
    for found, right in zip(outputs, expected, strict=True):
        assert found.shape == right.shape
        np.testing.assert_allclose(found, right, rtol=0, atol=1e-5 * max(1, np.abs(right).max()))
    assert {f"g:{key}" for key in gradients} == {key for key in reference if key[:2] == "g:"}
    for key, gradient in gradients.items():
        np.testing.assert_allclose(gradient, reference[f"g:{key}"], rtol=0, atol=2e-5, err_msg=key)


@pytest.mark.parametrize("name", PUBLISHED)
def test_full_size_names_and_shapes(name):
    family, config, manifest = PUBLISHED[name]
    config_class, network_class = FAMILIES[family]
    published = json.loads((FIXTURES / "vae_keys" / f"{manifest}.json").read_text())
    network = built_without_values(lambda: network_class(config_class.from_mapping(config)))
    assert network_shapes(network) == {key: tuple(shape) for key, (shape, _) in published.items()}
    sizes = {p.name: p.size for p in network.get_parameters() if not p.has_init}
    assert sum(sizes.values()) < 1e5  # only norms take memory, of 83 million numbers and more


@pytest.mark.usefixtures("pynative_mode")
def test_without_attention_the_middle_is_two_blocks():
    config, tensors, reference = read_fixture("hyvae")
    without = {**config, "mid_block_add_attention": False}
    network = HunyuanVideoVAE(HunyuanVideoVAEConfig.from_mapping(without))
    load_network(network, {k: v for k, v in tensors.items() if ".attentions." not in k})
    # Attention that adds nothing is none.
    silenced = {k: 0 * v if ".attentions.0.to_out" in k else v for k, v in tensors.items()}
    other = HunyuanVideoVAE(HunyuanVideoVAEConfig.from_mapping(config))
    load_network(other, silenced)
    video = Tensor(reference["i:x"][:, :, :5])
    np.testing.assert_array_equal(network(video).asnumpy(), other(video).asnumpy())


@pytest.mark.usefixtures("pynative_mode")
def test_all_frames_together_are_one_chunk():
    network, reference = loaded("cogvae")
    video = Tensor(reference["i:x"])  # 9 frames: one chunk
    chunked = network.moments(video)[0].asnumpy()
    longer = Tensor(np.concatenate([reference["i:x"], reference["i:x"][:, :, 1:]], axis=2))
    in_chunks = network.moments(longer)[0].asnumpy()
    np.testing.assert_allclose(in_chunks[:, :, :3], chunked, rtol=0, atol=1e-6)
    network.set_framewise(False)
    assert network.piece_frames is None
    np.testing.assert_array_equal(network.moments(video)[0].asnumpy(), chunked)
    together = network.moments(longer)[0].asnumpy()
    assert together.shape == in_chunks.shape
    assert np.abs(together - in_chunks).max() > 0.01  # its statistics are of all frames


@pytest.mark.usefixtures("pynative_mode")
def test_a_step_moves_every_parameter_and_renames_none():
    network, reference = loaded("kl")
    names = [name for name, _ in network.parameters_and_names()]
    before = network_tensors(network)
    optimizer = nn.AdamWeightDecay(network.trainable_params(), learning_rate=1e-3)
    video = Tensor(reference["i:x"])

    def loss(video):
        return ops.square(network(video) - video).mean()

    optimizer(ms.grad(loss, None, optimizer.parameters)(video))
    assert names == [p.name for p in network.get_parameters()]
    still = {n for n, array in network_tensors(network).items() if (array == before[n]).all()}
    # Of the moments the mean alone is in this loss, and attention ignores what all keys share.
    assert all("quant_conv" in name or "to_k.bias" in name for name in still)


WRONG_CONFIGS = [
    (AutoencoderKLConfig, {"block_out_channels": [64, 100]}, "multiples of norm_num_groups=32"),
    (AutoencoderKLConfig, {"act_fn": "relu"}, "act_fn='relu'; supported is 'silu'"),
    (AutoencoderKLConfig, {"layers_per_block": 0}, "layers_per_block=0; expected a whole number"),
    (AutoencoderKLConfig, {"down_block_types": ["AttnDownEncoderBlock2D"]}, "expected 1 times"),
    (AutoencoderKLConfig, {"use_quant_conv": 1}, "use_quant_conv=1; expected true or false"),
    (AutoencoderKLConfig, {"scaling_factor": "1"}, "scaling_factor='1'; expected a finite number"),
    (CogVideoXVAEConfig, {"temporal_compression_ratio": 3}, "expected one of"),
    (CogVideoXVAEConfig, {"use_quant_conv": True}, "use_quant_conv=True; supported is False"),
    (HunyuanVideoVAEConfig, {"temporal_compression_ratio": 8}, "supported is 4"),
    (HunyuanVideoVAEConfig, {"block_out_channels": [32, 64]}, "has 4 levels"),
    (HunyuanVideoVAEConfig, {"block_out_channels": 32}, "expected a list of whole numbers"),
]


@pytest.mark.parametrize(("config_class", "fields", "message"), WRONG_CONFIGS)
def test_configs_without_a_network_are_refused(config_class, fields, message):
    with pytest.raises(ValueError, match=message):
        config_class.from_mapping(fields)


def test_a_config_comes_back_and_unknown_fields_are_warned_of(caplog):
    fields = {"latent_channels": 8, "_class_name": "AutoencoderKL", "wings": 2}
    config = AutoencoderKLConfig.from_mapping(fields)
    assert "without a meaning here: wings" in caplog.text
    stored = config.to_dict()
    assert stored["latent_channels"] == 8 and stored["down_block_types"] == ["DownEncoderBlock2D"]
    assert AutoencoderKLConfig.from_mapping(json.loads(json.dumps(stored))) == config


@pytest.mark.parametrize(
    ("frames", "lengths"),
    [(1, (1,)), (5, (5,)), (9, (9,)), (13, (13,)), (16, (8, 8)), (49, (9, 8, 8, 8, 8, 8))],
)
def test_the_first_chunk_takes_what_is_over(frames, lengths):
    assert chunk_lengths(frames, 8) == lengths
    assert chunk_lengths(frames, None) == (frames,)
