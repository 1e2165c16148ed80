"""CogVideoX's and HunyuanVideo's transformers against recorded outputs and gradients."""

import json
import math
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mg.models.cogvideox_transformer import transformer as cogvideox
from mg.models.cogvideox_transformer.config import CogVideoXConfig
from mg.models.cogvideox_transformer.positions import rotations
from mg.models.families import denoiser_family, denoiser_of_class
from mg.models.hunyuan_transformer.config import HunyuanVideoConfig
from mg.weights.safetensors_file import read_safetensors

FIXTURES = Path(__file__).parents[1] / "fixtures"


def read(name):
    """Return config, tensors and recorded arrays of a network."""
    folder = FIXTURES / "transformers" / name
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tensors = read_safetensors(folder / "diffusion_pytorch_model.safetensors")
    with np.load(FIXTURES / "transformers" / f"{name}.npz", allow_pickle=False) as file:
        recorded = {key: file[key] for key in file.files}
    return config, {key: np.float32(array) for key, array in tensors.items()}, recorded


def build(name):
    """Return the network with its weights, what to call it with, and the recorded arrays."""
    config, tensors, recorded = read(name)
    family = denoiser_of_class(config["_class_name"])
    network = family.build(family.read_config(config))
    network.load_tensors(tensors)
    text = recorded["i:e"]
    mask = recorded.get("i:mask", np.ones(text.shape[:2]))
    latent = recorded["i:x"]
    if family.name == "cogvideox":  # recorded as (B, T, C, H, W)
        latent = latent.transpose(0, 2, 1, 3, 4)
    inputs = [latent, np.float32(recorded["i:t"]), text, mask > 0.5]
    if family.name == "hunyuan":
        inputs += [recorded["i:p"][:, None], np.ones((1, 1), bool), recorded["i:g"]]
    if "i:ofs" in recorded:
        inputs.append(recorded["i:ofs"])
    return network, [Tensor(np.ascontiguousarray(array)) for array in inputs], recorded


def check(network, inputs, recorded):
    """Compare output, loss and every gradient with what was recorded."""
    expected = recorded["o:y"]
    is_cogvideox = network.family == "cogvideox"
    target = recorded.get("i:target", np.zeros_like(expected))
    if is_cogvideox:
        expected, target = (x.transpose(0, 2, 1, 3, 4) for x in (expected, target))
    goal = Tensor(np.ascontiguousarray(target))

    def loss(*inputs):
        output = network(*inputs)
        return ((output - goal) ** 2).mean(), output

    parameters = network.trainable_params()
    function = ms.value_and_grad(loss, None, ms.ParameterTuple(parameters), has_aux=True)
    (value, output), gradients = function(*inputs)
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(output.asnumpy(), expected, atol=1e-4 * scale)
    assert float(value.asnumpy()) == pytest.approx(float(recorded["loss"]), rel=1e-5)
    gradients = [gradient.asnumpy() for gradient in gradients]
    named = {p.name: gradient for p, gradient in zip(parameters, gradients, strict=True)}
    assert {f"g:{name}" for name in named} == {key for key in recorded if key.startswith("g:")}
    largest = max(np.abs(recorded[f"g:{name}"]).max() for name in named)
    for name, gradient in named.items():
        reference = recorded[f"g:{name}"]
        tolerance = 2e-3 * np.abs(reference).max() + 1e-5 * largest
        np.testing.assert_allclose(gradient, reference, atol=tolerance, err_msg=name)


@pytest.fixture
def recorded_rotations(monkeypatch):
    """Give cogtr_rope the angles that it was recorded with, which are those of no grid."""
    _, _, recorded = read("cogtr_rope")
    tables = recorded["i:c"], recorded["i:s"]

    def of_name(name):
        if name == "cogtr_rope":
            monkeypatch.setattr(cogvideox, "rotations", lambda config, grid: tables)

    return of_name


@pytest.mark.parametrize("name", ["cogtr", "cogtr_rope", "cogtr15", "hytr"])
def test_outputs_and_gradients_line_by_line(name, pynative_mode, recorded_rotations):
    recorded_rotations(name)
    check(*build(name))


@pytest.mark.parametrize("name", ["cogtr_rope", "hytr"])
def test_outputs_and_gradients_compiled(name, graph_mode, recorded_rotations):
    recorded_rotations(name)
    network, inputs, recorded = build(name)
    names = [parameter.name for parameter in network.get_parameters()]
    check(network, inputs, recorded)
    assert [parameter.name for parameter in network.get_parameters()] == names


def test_angles_of_whole_positions_are_those_recorded():
    config, _, recorded = read("cogtr15")
    config = CogVideoXConfig.from_mapping(config)
    cos, sin = rotations(config, (2, 4, 4))
    np.testing.assert_allclose(cos, recorded["i:c"], atol=1e-6)
    np.testing.assert_allclose(sin, recorded["i:s"], atol=1e-6)


def test_angles_before_1_5_are_those_of_a_part_of_the_trained_grid():
    config = CogVideoXConfig.from_mapping({"preset": "5b"})  # trained on 30 x 45 tokens
    head = config.attention_head_dim
    rates = 10000.0 ** (-np.arange(0, 3 * head // 8, 2) / (3 * head // 8))
    cos, _ = rotations(config, (1, 15, 15))
    rows = np.linspace(0, 30 * 14 / 15, 15)  # all rows, the 30 columns in the middle
    columns = np.linspace(8, (8 + 30) * 14 / 15, 15)
    angles = cos.reshape(15, 15, head)
    start = head // 4
    np.testing.assert_allclose(
        angles[:, 3, start : start + 24 : 2], np.cos(rows[:, None] * rates), atol=1e-6
    )
    np.testing.assert_allclose(
        angles[3, :, start + 24 :: 2], np.cos(columns[:, None] * rates), atol=1e-6
    )


@pytest.mark.parametrize(
    ("manifest", "family", "preset"),
    [
        ("cogvideox-2b-transformer", "cogvideox", "2b"),
        ("hunyuanvideo-transformer-diffusers", "hunyuan", "13b"),
    ],
)
def test_names_and_shapes_of_the_published_sizes(manifest, family, preset):
    path = FIXTURES / "vae_keys" / f"{manifest}.json"
    published = json.loads(path.read_text(encoding="utf-8"))
    family = denoiser_family(family)
    config = family.read_config({"preset": preset})
    shapes = family.shapes(config)
    assert shapes == {name: tuple(shape) for name, (shape, _) in published.items()}
    numbers = sum(math.prod(shape) for shape, _ in published.values())
    assert family.num_parameters(config) == numbers


@pytest.mark.parametrize("family", ["cogvideox", "hunyuan"])
def test_configs_are_written_as_they_are_read(family):
    family = denoiser_family(family)
    config = family.read_config({"preset": "tiny"})
    assert family.read_config(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CogVideoXConfig.from_mapping({"num_layer": 2}), "did you mean 'num_layers'"),
        (lambda: CogVideoXConfig.from_mapping({"preset": "3b"}), "unknown preset '3b'"),
        (lambda: CogVideoXConfig.from_mapping({"freq_shift": 1}), "freq_shift=1 is not implem"),
        (lambda: CogVideoXConfig(ofs_embed_dim=8), "differs from time_embed_dim=512"),
        (
            lambda: CogVideoXConfig(attention_head_dim=8, use_rotary_positional_embeddings=True),
            "must be a multiple of 16",
        ),
        (lambda: CogVideoXConfig().token_grid((1, 16, 2, 7, 8)), "height 7 is not a multiple of"),
        (
            lambda: CogVideoXConfig(num_attention_heads=30).tokens_per_rank(8, 4),
            "the num_attention_heads, 30, cannot be shared equally by sequence_parallel=4 ranks",
        ),
        (
            lambda: HunyuanVideoConfig().tokens_per_rank(9, 2),
            "the number of tokens, 9, cannot be shared equally by sequence_parallel=2 ranks",
        ),
        (lambda: HunyuanVideoConfig(rope_axes_dim=(16, 16, 16)), "sums to 48; expected attention"),
        (lambda: HunyuanVideoConfig.from_mapping({"qk_norm": None}), "qk_norm=None is not implem"),
        (
            lambda: HunyuanVideoConfig().check_inputs((1, 16, 1, 2, 2), (1,), (1, 3, 4096), (1, 3)),
            "expected embedding and mask of the text, and of the pooled text, got 2 tensors",
        ),
    ],
)
def test_what_no_network_can_be_built_from_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
