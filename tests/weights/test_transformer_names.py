"""Original names of CogVideoX's and HunyuanVideo's transformers: read, converted, inspected."""

import json
from pathlib import Path

import numpy as np
import pytest

from mg.models.denoiser import Denoiser
from mg.models.families import denoiser_family
from mg.pipelines.generator_folder import load_generator
from mg.weights import inspect_checkpoint
from mg.weights.bfloat16 import narrow_to_bfloat16
from mg.weights.checkpoint_file import list_tensors, write_weights
from mg.weights.conversion import convert_weights
from mg.weights.families import guess_family
from mg.weights.name_rules import shape_of_part
from mg.weights.safetensors_file import read_safetensors, write_safetensors
from mg.weights.transformer_names import find_original, from_original
from tests.models.test_video_transformers import build, read
from tests.original_transformers import (
    join_shapes,
    original_cogvideox,
    original_hunyuan,
    write_under_module,
)
from tests.published_pipelines import folder_of

KEYS = Path(__file__).parents[1] / "fixtures" / "vae_keys"
SAT = "model.diffusion_model."
NAMES = ("cogtr", "cogtr15", "cogtr_rope", "hytr")
FILE = "mp_rank_00_model_states.pt"


def originals(name):
    """Return config, tensors under diffusers' names, and under those of the first publication."""
    config, tensors, _ = read(name)
    if name == "hytr":
        return config, tensors, original_hunyuan(tensors)
    found = original_cogvideox(tensors)
    return config, tensors, {SAT + key: array for key, array in found.items()}


@pytest.fixture
def folder(tmp_path):
    """Return a function that writes a network's original file beside its config.json."""

    def write(name, change=dict, **fields):
        config, _, tensors = originals(name)
        (tmp_path / "config.json").write_text(json.dumps({**config, **fields}))
        write_under_module(tmp_path / FILE, change(tensors))
        return tmp_path

    return write


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_reached_once(name):
    _, tensors, original = originals(name)
    assert len(original) < len(tensors)
    found = from_original(original)
    assert found.keys() == tensors.keys()
    for key, array in tensors.items():
        np.testing.assert_array_equal(found[key], array, err_msg=key)
    assert sum(array.size for array in found.values()) == sum(a.size for a in original.values())
    assert from_original(tensors).keys() == tensors.keys()  # names of diffusers stay


@pytest.mark.parametrize(
    ("manifest", "inverse", "family", "number"),
    [
        ("cogvideox-2b-transformer", original_cogvideox, "cogvideox-transformer", 556),
        ("hunyuanvideo-transformer-diffusers", original_hunyuan, "hunyuanvideo-transformer", 856),
    ],
)
def test_names_and_shapes_of_the_published_sizes(manifest, inverse, family, number):
    published = json.loads((KEYS / f"{manifest}.json").read_text(encoding="utf-8"))
    shapes = {name: tuple(shape) for name, (shape, _) in published.items()}

    def pieces(shape, count):
        return [(shape[0] // count, *shape[1:])] * count

    original = inverse(shapes, join_shapes, pieces)
    assert len(original) == number
    for prefix in ("", SAT, "module."):
        found = find_original({prefix + name: shape for name, shape in original.items()})
        assert found.key == guess_family(original) == f"{family}-original"
        names = {
            name: shape_of_part(original[part.name.removeprefix(prefix)], part)
            for name, part in found.parts.items()
        }
        assert names == shapes


@pytest.mark.parametrize("name", NAMES)
def test_the_network_of_an_original_file_gives_the_recorded_output(name, folder, pynative_mode):
    network = Denoiser.from_pretrained(folder(name))
    _, inputs, recorded = build(name)
    if name == "cogtr_rope":  # recorded with angles of no grid
        expected = build(name)[0](*inputs).asnumpy()
    else:
        expected = recorded["o:y"]
        expected = expected if name == "hytr" else expected.transpose(0, 2, 1, 3, 4)
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(network(*inputs).asnumpy(), expected, atol=1e-4 * scale)


def test_what_sat_keeps_beside_is_left_out(folder, caplog):
    waves = np.ones((1, 6, 32), np.float32)
    waves[:, 0] = 0
    beside = {
        f"{SAT}mixins.pos_embed.pos_embedding": waves,
        f"{SAT}transformer.word_embeddings.weight": np.ones((1, 32), np.float32),
        "conditioner.embedders.0.weight": np.ones((2, 2), np.float32),
    }
    expected = originals("cogtr")[1]
    with caplog.at_level("INFO", logger="mg"):
        network = Denoiser.from_pretrained(folder("cogtr", lambda given: {**given, **beside}))
    assert "left out 3 tensors beside the transformer" in caplog.text
    assert network.tensors().keys() == expected.keys()
    waves[:, 0] = 0.1
    path = folder("cogtr", lambda given: {**given, **beside})
    with pytest.raises(ValueError, match=r"pos_embedding' are positions that were trained"):
        Denoiser.from_pretrained(path)
    with pytest.raises(ValueError, match="positions that were trained"):
        convert_weights(path / FILE, path / "a.safetensors")


def without(name):
    return lambda tensors: {key: a for key, a in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "hytr",
            without("double_blocks.0.img_attn_proj.bias"),
            r"to diffusers'\).* 1 missing \(transformer_blocks\.0\.attn\.to_out\.0\.bias\)",
        ),
        (
            "hytr",
            lambda given: {**given, "double_blocks.0.img_gate.bias": np.ones(2, np.float32)},
            r"1 extra \(double_blocks\.0\.img_gate\.bias\)",
        ),
        (
            "cogtr",
            without(f"{SAT}transformer.layers.1.attention.query_key_value.weight"),
            r"3 missing \(transformer_blocks\.1\.attn1\.to_q\.weight",
        ),
        (
            "cogtr",
            without(f"{SAT}mixins.patch_embed.text_proj.bias"),
            r"'model\.diffusion_model\.mixins\.patch_embed\.text_proj\.bias' is missing",
        ),
        (
            "hytr",
            lambda given: {**given, "single_blocks.0.linear1.bias": np.ones(96, np.float32)},
            r"'single_blocks\.0\.linear1\.bias' is \(96,\); expected more than 3 x 32 rows",
        ),
        (
            "hytr",
            lambda given: {**given, "double_blocks.0.txt_attn_qkv.bias": np.ones(4, np.float32)},
            r"is \(4,\); expected a multiple of 3 rows",
        ),
        (
            "cogtr",
            lambda given: {**given, f"{SAT}norm_final.bias": np.ones(32, np.float32)},
            r"two tensors of the file get the name 'norm_final\.bias'",
        ),
        (
            "hytr",
            lambda given: {**given, **{f"ema.{key}": array for key, array in given.items()}},
            r"the file holds 2 transformers, with the prefixes '', 'ema\.'; say which with key=",
        ),
    ],
)
def test_other_tensors_get_one_clear_line(name, change, message, folder):
    path = folder(name, change)
    with pytest.raises(ValueError, match=message) as caught:
        Denoiser.from_pretrained(path)
    assert str(path / FILE) in str(caught.value) and "\n" not in str(caught.value)


def test_another_class_than_the_weights_is_refused(folder):
    path = folder("hytr")
    config = originals("cogtr")[0]
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="weights of family 'hunyuan', the class is 'cogvideox'"):
        Denoiser.from_pretrained(path)


@pytest.mark.parametrize(
    ("family", "inverse", "fields"),
    [
        ("cogvideox", original_cogvideox, {"ofs_embed_dim": 128, "in_channels": 32}),
        ("hunyuan", original_hunyuan, {"guidance_embeds": True}),
    ],
)
def test_a_file_alone_is_of_the_published_size_with_its_shapes(
    family, inverse, fields, tmp_path, pynative_mode
):
    family = denoiser_family(family)
    config = family.read_config({"preset": "tiny", **fields})
    tensors = {
        name: np.full(shape, number, np.float16)
        for number, (name, shape) in enumerate(family.shapes(config).items())
    }
    write_safetensors(tmp_path / "a.safetensors", inverse(tensors))
    network = Denoiser.from_pretrained(tmp_path / "a.safetensors")
    assert network.config == config
    found = network.tensors()
    assert all((found[name] == array).all() for name, array in tensors.items())
    one_less = inverse(tensors)
    one_less.pop(list(one_less)[3])
    write_safetensors(tmp_path / "a.safetensors", one_less, overwrite=True)
    with pytest.raises(ValueError, match=r"no published size of family .*; put the config\.json"):
        Denoiser.from_pretrained(tmp_path)
    write_safetensors(tmp_path / "a.safetensors", tensors, overwrite=True)
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        Denoiser.from_pretrained(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["cogtr15", "hytr"])
def test_conversion_and_inspection(name, tmp_path):
    _, tensors, original = originals(name)
    halved = {key: narrow_to_bfloat16(array) for key, array in original.items()}
    write_under_module(tmp_path / FILE, halved)
    report = inspect_checkpoint(tmp_path / FILE)
    assert report.family.endswith("-transformer-original")
    assert f"conversion give {len(tensors)} tensors under diffusers' names" in str(report)
    prefix = f"prefix      {SAT} (taken off by loading)"
    assert (prefix in str(report)) == (name != "hytr")

    convert_weights(tmp_path / FILE, tmp_path / "a.safetensors")
    entries = list_tensors(tmp_path / "a.safetensors")
    assert {key: entry.shape for key, entry in entries.items()} == {
        key: array.shape for key, array in tensors.items()
    }
    assert {entry.dtype for entry in entries.values()} == {"bfloat16"}
    for key, array in read_safetensors(tmp_path / "a.safetensors").items():
        np.testing.assert_allclose(array, tensors[key], rtol=2**-8)
    assert inspect_checkpoint(tmp_path / "a.safetensors").family == guess_family(
        {key: array.shape for key, array in tensors.items()}
    )
    convert_weights(tmp_path / FILE, tmp_path / "b.pt", keep_names=True)
    assert list_tensors(tmp_path / "b.pt").keys() == {key.removeprefix(SAT) for key in original}


def test_a_whole_generator_of_sat_is_cut_by_key(tmp_path):
    _, tensors, original = originals("cogtr")
    vae = {"first_stage_model.encoder.conv_in.conv.weight": np.ones((2, 3, 3, 3, 3), np.float32)}
    write_weights(tmp_path / "a.safetensors", {**original, **vae})
    convert_weights(tmp_path / "a.safetensors", tmp_path / "b.pt")
    assert list(list_tensors(tmp_path / "b.pt")) == ["encoder.conv_in.conv.weight"]
    convert_weights(tmp_path / "a.safetensors", tmp_path / "c.pt", key="model")
    assert list_tensors(tmp_path / "c.pt").keys() == tensors.keys()


@pytest.mark.parametrize(
    ("preset", "num_parameters"),
    # 1.5 has two frames in a token: twice the columns that go in, twice the rows that come out.
    [("5b", 5_570_283_072), ("1.5-5b", 5_570_283_072 + 64 * 3072 + 64 * (3072 + 1))],
)
def test_published_sizes_of_cogvideox(preset, num_parameters):
    family = denoiser_family("cogvideox")
    config = family.read_config({"preset": preset})
    assert len(family.shapes(config)) == 1024
    assert family.num_parameters(config) == num_parameters


@pytest.mark.parametrize("name", ["cogvideox_rope_dpm", "hunyuan"])
def test_a_published_pipeline_takes_an_original_file(name, tmp_path):
    folder = folder_of(name, tmp_path)
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    expected = read_safetensors(weights)
    inverse = original_hunyuan if name == "hunyuan" else original_cogvideox
    write_under_module(folder / "transformer" / FILE, inverse(expected))
    expected = {key: array.copy() for key, array in expected.items()}
    weights.unlink()
    parts = load_generator(folder)
    assert f"transformer/{FILE}" in parts.sha256
    assert parts.transformer_tensors.keys() == expected.keys()
    for key, array in expected.items():
        np.testing.assert_array_equal(parts.transformer_tensors[key], array)
