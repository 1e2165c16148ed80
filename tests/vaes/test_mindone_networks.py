"""mindone's VAE networks against the reference implementation, and their names and shapes."""

import json
import re
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mg.parameters import set_values
from mg.vaes.mindone_networks import (
    build_network,
    load_network,
    network_shapes,
    network_tensors,
    pynative_mode,
)
from mg.weights.safetensors_file import read_safetensors

FIXTURES = Path(__file__).parent.parent / "fixtures"
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
# Published files: (class, config, manifest). The other fields are the class's defaults.
PUBLISHED = {
    "sd-vae-ft-mse": ("AutoencoderKL", IMAGE_VAE, "sd-vae-ft-mse"),
    "sdxl-vae": (
        "AutoencoderKL",
        {**IMAGE_VAE, "scaling_factor": 0.13025, "sample_size": 1024, "force_upcast": True},
        "sd-vae-ft-mse",
    ),
    "sd35-vae": ("AutoencoderKL", SD35_VAE, "sd35-vae"),
    "cogvideox-vae": (
        "AutoencoderKLCogVideoX",
        {"block_out_channels": [128, 256, 256, 512], "layers_per_block": 3, "latent_channels": 16},
        "cogvideox-vae",
    ),
    "hunyuanvideo-vae": (
        "AutoencoderKLHunyuanVideo",
        {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 16},
        "hunyuanvideo-vae",
    ),
}


def read_fixture(name):
    """Return a tiny VAE's class name, config, tensors, and what the reference makes of them."""
    folder = FIXTURES / "vaes" / name
    config = json.loads((folder / "config.json").read_text())
    reference = np.load(FIXTURES / "vaes" / f"{name.removesuffix('_old')}.npz")
    tensors = read_safetensors(folder / "diffusion_pytorch_model.safetensors")
    return config["_class_name"], config, tensors, reference


def loaded(name):
    class_name, config, tensors, reference = read_fixture(name)
    network = build_network(class_name, config, initialize=False)
    load_network(network, tensors)
    return network, reference


def round_trip(network, x):
    mean, logvar = ops.chunk(network.encode(x)[0], 2, axis=1)
    return mean, logvar, network.decode(mean)[0]


def max_error(tensor, expected):
    assert tensor.shape == expected.shape
    return np.abs(tensor.asnumpy() - expected).max()


@pytest.mark.parametrize("name", ["kl", "kl_old", "cogvae", "hyvae"])
def test_encode_decode_and_every_gradient(name, pynative_mode):
    network, reference = loaded(name)
    x = Tensor(reference["i:x"])

    def loss_and_outputs(x):
        mean, logvar, y = round_trip(network, x)
        return ops.square(y - x).mean(), mean, logvar, y

    names, parameters = zip(*network.parameters_and_names(), strict=True)
    grad = ms.value_and_grad(loss_and_outputs, None, list(parameters), has_aux=True)
    (loss, mean, logvar, y), gradients = grad(x)
    assert abs(float(loss) - float(reference["loss"])) < 1e-5
    assert max_error(mean, reference["o:z"]) < 1e-5
    assert max_error(logvar, reference["o:logvar"]) < 1e-5
    assert max_error(y, reference["o:y"]) < 5e-5
    assert {f"g:{n}" for n in names} == {key for key in reference if key.startswith("g:")}
    for parameter, gradient in zip(names, gradients, strict=True):
        assert max_error(gradient, reference[f"g:{parameter}"]) < 2e-5, parameter


@pytest.mark.parametrize("name", ["cogvae", "hyvae"])
def test_gradient_of_a_single_frame(name, pynative_mode):
    network, reference = loaded(name)
    parameters = network.trainable_params()
    x = Tensor(reference["i:x"][:, :, :1])

    def loss(x):
        _, logvar, y = round_trip(network, x)
        return ops.square(y).mean() + ops.square(logvar).mean()

    gradients = ms.grad(loss, None, parameters)(x)
    rng = np.random.default_rng(0)
    start = [p.asnumpy().copy() for p in parameters]
    steps = [1e-4 * rng.standard_normal(p.shape).astype(np.float32) for p in parameters]
    slope = sum((g.asnumpy() * s).sum() for g, s in zip(gradients, steps, strict=True))
    ends = []
    for sign in (1, -1):  # central difference along one random direction
        for parameter, values, step in zip(parameters, start, steps, strict=True):
            set_values(parameter, values + sign * step)
        ends.append(float(loss(x)))
    assert abs((ends[0] - ends[1]) / 2 - slope) < 0.01 * abs(slope)


@pytest.mark.parametrize("name", ["kl", "cogvae", "hyvae"])
def test_names_stay_through_a_training_step_and_saving(name, pynative_mode, tmp_path):
    network, reference = loaded(name)
    official = {key[2:] for key in reference if key.startswith("g:")}
    x = Tensor(reference["i:x"])
    round_trip(network, x)
    optimizer = nn.AdamWeightDecay(network.trainable_params(), learning_rate=1e-3)

    def loss(x):
        return ops.square(round_trip(network, x)[2] - x).mean()

    before = network_tensors(network)
    optimizer(ms.grad(loss, None, optimizer.parameters)(x))
    after = network_tensors(network)
    assert set(after) == official == {p.name for p in network.get_parameters()}
    assert all((after[n] != before[n]).any() for n in official if n.endswith("conv1.weight"))
    ms.save_checkpoint(network, str(tmp_path / "vae.ckpt"))
    assert set(ms.load_checkpoint(str(tmp_path / "vae.ckpt"))) == official


class Encode(nn.Cell):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def construct(self, x):
        return self.network.encode(x)[0]


class Decode(nn.Cell):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def construct(self, z):
        return self.network.decode(z)[0]


def test_image_vae_compiles(graph_mode):
    network, reference = loaded("kl")
    moments = Encode(network)(Tensor(reference["i:x"]))
    expected = np.concatenate([reference["o:z"], reference["o:logvar"]], axis=1)
    assert max_error(moments, expected) < 1e-5
    assert max_error(Decode(network)(Tensor(reference["o:z"])), reference["o:y"]) < 5e-5


def test_cogvideox_encoder_compiles(graph_mode):
    network, reference = loaded("cogvae")
    moments = Encode(network)(Tensor(reference["i:x"]))
    expected = np.concatenate([reference["o:z"], reference["o:logvar"]], axis=1)
    assert max_error(moments, expected) < 1e-5


def test_hunyuanvideo_runs_line_by_line_in_graph_mode(graph_mode):
    network, reference = loaded("hyvae")
    with pynative_mode():
        mean, _, y = round_trip(network, Tensor(reference["i:x"]))
    assert ms.get_context("mode") == ms.GRAPH_MODE
    assert max_error(mean, reference["o:z"]) < 1e-5
    assert max_error(y, reference["o:y"]) < 5e-5
    with pytest.raises(ZeroDivisionError), pynative_mode():
        1 / 0  # noqa: B018
    assert ms.get_context("mode") == ms.GRAPH_MODE


@pytest.mark.parametrize("name", PUBLISHED)
def test_full_size_names_and_shapes(name):
    class_name, config, manifest = PUBLISHED[name]
    published = json.loads((FIXTURES / "vae_keys" / f"{manifest}.json").read_text())
    expected = {key: tuple(shape) for key, (shape, _) in published.items()}
    assert network_shapes(class_name, config) == expected
    network = build_network(class_name, config, initialize=False)
    sizes = {p.name: p.size for p in network.get_parameters() if not p.has_init}
    assert sum(sizes.values()) < 1e5  # only norms take memory, of 83 million numbers and more


def test_ldm_names_load(pynative_mode):
    class_name, config, tensors, _ = read_fixture("kl")
    ldm = {
        "first_stage_model." + _ldm_name(name): array[..., None, None]
        if ".attentions." in name and array.ndim == 2
        else array
        for name, array in tensors.items()
    }
    assert "first_stage_model.decoder.up.1.block.0.norm1.weight" in ldm
    network = build_network(class_name, config)
    load_network(network, ldm)
    for name, array in network_tensors(network).items():
        np.testing.assert_array_equal(array, tensors[name])


def _ldm_name(name):
    """Return LDM's name for one of diffusers', of a VAE of two levels."""
    name = re.sub(
        r"up_blocks\.(\d)", lambda match: f"up.{1 - int(match[1])}", name
    )  # from the output side
    for new, old in {
        "down_blocks": "down",
        "mid_block.resnets.0": "mid.block_1",
        "mid_block.resnets.1": "mid.block_2",
        "mid_block.attentions.0": "mid.attn_1",
        "resnets": "block",
        "conv_shortcut": "nin_shortcut",
        "downsamplers.0": "downsample",
        "upsamplers.0": "upsample",
        "group_norm": "norm",
        "to_out.0": "proj_out",
        "to_q": "q",
        "to_k": "k",
        "to_v": "v",
        "conv_norm_out": "norm_out",
    }.items():
        name = name.replace(new, old)
    return name


@pytest.mark.parametrize("initialize", [True, False])
def test_loading_takes_any_precision_and_copies(initialize, pynative_mode):
    class_name, config, tensors, _ = read_fixture("kl")
    half = {name: array.astype(np.float16) for name, array in tensors.items()}
    network = build_network(class_name, config, initialize=initialize)
    load_network(network, half)
    first = network_tensors(network)
    assert all(array.dtype == np.float32 for array in first.values())
    for name, array in first.items():
        np.testing.assert_array_equal(array, half[name].astype(np.float32))
    first["encoder.conv_in.bias"][:] = 7
    assert (network_tensors(network)["encoder.conv_in.bias"] != 7).all()


def test_what_does_not_fit_is_refused_and_changes_nothing(pynative_mode):
    network, _ = loaded("kl")
    tensors = network_tensors(network)
    bias = "decoder.conv_out.bias"
    wrong = {
        "1 missing": {name: array for name, array in tensors.items() if name != bias},
        "1 extra": {**tensors, "decoder.conv_out.scale": tensors[bias]},
        "1 misshapen": {**tensors, bias: tensors[bias][:1]},
        "holds int64": {**tensors, bias: tensors[bias].astype(np.int64)},
    }
    for message, given in wrong.items():
        with pytest.raises(ValueError, match=message):
            load_network(
                network, {name: array + array.dtype.type(1) for name, array in given.items()}
            )
    for name, array in network_tensors(network).items():
        np.testing.assert_array_equal(array, tensors[name])


def test_unknown_classes_and_impossible_configs_are_refused():
    with pytest.raises(ValueError, match="AutoencoderKLCausal3D"):
        build_network("AutoencoderKLCausal3D", {})
    with pytest.raises(ValueError, match="no AutoencoderKL can be built"):
        build_network("AutoencoderKL", {**IMAGE_VAE, "block_out_channels": [32]})
    with pytest.raises(ValueError, match="no AutoencoderKLHunyuanVideo can be built"):
        network_shapes("AutoencoderKLHunyuanVideo", {"temporal_compression_ratio": 5})
