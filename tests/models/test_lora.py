"""LoRA: nothing changes before training, to the last bit; merged and unmerged are the same."""

import json
import math
import re

import numpy as np
import pytest

from mg.models.families import denoiser_family
from mg.models.lora import add_lora, lora_maps
from mg.parameters import set_values
from mg.training.parameter_groups import trainable_names
from mg.weights.lora_file import (
    LORA_FILE,
    LORA_PARAMETERS,
    LowRankMap,
    find_lora,
    merge_lora,
    read_lora,
    write_lora,
)
from mg.weights.safetensors_file import (
    read_safetensors,
    read_safetensors_metadata,
    write_safetensors,
)
from tests.models.test_conditions_beside_latent import inputs
from tests.tiny import DENOISERS

# How many linear maps of each family have attention or feed-forward as their layer.
NUM_MAPS = {
    "movie_gen": 8 + 3,
    "cogvideox": 4 + 2,
    "hunyuan": (4 + 2) + (8 + 4) + (3 + 1),
    "unet": 3 * (12 + 2),
}


def build(name):
    """Return a network with random weights that are not zero."""
    family = denoiser_family(name)
    network = family.build(family.read_config({**DENOISERS[name], "latent_channels": 4}))
    rng = np.random.default_rng(1)
    network.load_tensors(
        {
            key: 0.3 * rng.standard_normal(array.shape, np.float32)
            for key, array in network.tensors().items()
        }
    )
    return network


@pytest.mark.parametrize("name", DENOISERS)
def test_zero_is_the_base_bit_for_bit_and_merged_is_unmerged(name, tmp_path, pynative_mode):
    network = build(name)
    arguments, _ = inputs(name)
    before, base = network(*arguments).asnumpy(), network.tensors()
    names = add_lora(network, rank=3, alpha=6.0)
    assert len(names) == NUM_MAPS[name]
    np.testing.assert_array_equal(network(*arguments).asnumpy(), before)

    parameters = dict(network.parameters_and_names())
    assert all(parameter.name == key for key, parameter in parameters.items())
    trained = trainable_names(list(parameters), LORA_PARAMETERS, [], aliases={})
    assert len(trained) == 2 * len(names)
    rng = np.random.default_rng(2)
    for key in trained:
        shape = parameters[key].shape
        set_values(parameters[key], 0.2 * rng.standard_normal(shape, np.float32))
    unmerged = network(*arguments).asnumpy()
    assert np.abs(unmerged - before).max() > 1e-2

    write_lora(tmp_path / "lora.safetensors", lora_maps(network))
    maps = read_lora(tmp_path / "lora.safetensors")
    assert {m.scale for m in maps.values()} == {2.0} and sorted(maps) == sorted(names)
    merged = build(name)
    merged.load_tensors(merge_lora(base, maps))
    scale = np.abs(unmerged).max()
    np.testing.assert_allclose(merged(*arguments).asnumpy(), unmerged, atol=1e-5 * scale)
    # Taken away again, the base is there but for rounding.
    merged.load_tensors(merge_lora(merged.tensors(), maps, weight=-1.0))
    np.testing.assert_allclose(merged(*arguments).asnumpy(), before, atol=1e-5 * scale)


def test_compiled_networks_have_it_too(graph_mode):
    network = build("movie_gen")
    arguments, _ = inputs("movie_gen")
    before, base = network(*arguments).asnumpy(), network.tensors()
    changed = build("movie_gen")
    changed.load_tensors(base)
    add_lora(changed, rank=2, alpha=2.0, targets=["*.self_attention.value"])
    np.testing.assert_array_equal(changed(*arguments).asnumpy(), before)
    up = dict(changed.parameters_and_names())["blocks.0.self_attention.value.lora_B.weight"]
    set_values(up, np.ones(up.shape, np.float32))
    assert np.abs(changed(*arguments).asnumpy() - before).max() > 1e-3


def test_the_file_has_diffusers_names(tmp_path):
    change = LowRankMap(np.ones((2, 4), np.float32), np.ones((6, 2), np.float32), 0.5)
    write_lora(tmp_path / "a.safetensors", {"transformer_blocks.0.attn1.to_q": change})
    assert set(read_safetensors(tmp_path / "a.safetensors")) == {
        "transformer.transformer_blocks.0.attn1.to_q.lora_A.weight",
        "transformer.transformer_blocks.0.attn1.to_q.lora_B.weight",
    }
    about = read_safetensors_metadata(tmp_path / "a.safetensors")["lora_adapter_metadata"]
    assert json.loads(about)["transformer.r"] == 2
    assert json.loads(about)["transformer.lora_alpha"] == 1.0


@pytest.mark.parametrize(("alpha", "scale"), [(None, 1.0), (4.0, 2.0)])
def test_files_without_metadata_are_read(tmp_path, alpha, scale):
    tensors = {"x.lora_A.weight": np.ones((2, 4), np.float16)}
    tensors["x.lora_B.weight"] = np.ones((6, 2), np.float16)
    if alpha is not None:
        tensors["x.alpha"] = np.array(alpha, np.float32)
    write_safetensors(tmp_path / "a.safetensors", tensors)
    maps = read_lora(tmp_path / "a.safetensors")
    assert maps["x"].scale == scale and maps["x"].down.dtype == np.float32


def write_stated(path, ranks, about, alphas=None):
    """Write a LoRA of maps with these ranks and metadata as PEFT has them."""
    tensors = {}
    for name, rank in ranks.items():
        tensors[f"transformer.{name}.lora_A.weight"] = np.ones((rank, 4), np.float32)
        tensors[f"transformer.{name}.lora_B.weight"] = np.ones((6, rank), np.float32)
    for name, alpha in (alphas or {}).items():
        tensors[f"{name}.alpha"] = np.array(alpha, np.float32)
    about = {f"transformer.{key}": value for key, value in about.items()}
    write_safetensors(path, tensors, metadata={"lora_adapter_metadata": json.dumps(about)})


def test_scales_of_single_maps_are_those_that_the_metadata_state(tmp_path):
    ranks = {
        "blocks.0.attn.to_q": 4,
        "blocks.1.attn.to_q": 4,
        "blocks.0.attn.to_k": 16,
        "blocks.0.proj_to_k": 4,
        "to_k": 4,
        "blocks.0.ff": 2,
    }
    about = {
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {"attn.to_k": 16, "ff": 2},
        # In PEFT the first that fits counts, from a dot to the end of the name.
        "alpha_pattern": {
            "blocks.0.attn.to_q": 1,
            "attn.to_q": 2,
            "to_k": 32,
            "f": 9,
        },
    }
    write_stated(tmp_path / "a.safetensors", ranks, about, {"blocks.0.ff": 3})
    scales = {name: change.scale for name, change in read_lora(tmp_path / "a.safetensors").items()}
    assert scales == {
        "blocks.0.attn.to_q": 1 / 4,
        "blocks.1.attn.to_q": 2 / 4,
        "blocks.0.attn.to_k": 32 / 16,
        "blocks.0.proj_to_k": 8 / 4,
        "to_k": 32 / 4,
        "blocks.0.ff": 3 / 2,  # the tensor's
    }
    write_stated(tmp_path / "b.safetensors", ranks, {**about, "use_rslora": True})
    scales = {name: change.scale for name, change in read_lora(tmp_path / "b.safetensors").items()}
    assert scales == {
        "blocks.0.attn.to_q": 1 / 2,
        "blocks.1.attn.to_q": 2 / 2,
        "blocks.0.attn.to_k": 32 / 4,
        "blocks.0.proj_to_k": 8 / 2,
        "to_k": 32 / 2,
        "blocks.0.ff": 8 / math.sqrt(2),
    }


@pytest.mark.parametrize(
    ("about", "message"),
    [
        (
            {"use_dora": True},
            "transformer.use_dora is set; a DoRA's magnitudes are not applied here, take a LoRA "
            "that was trained without",
        ),
        ({"use_rslora": "yes"}, "transformer.use_rslora='yes'; expected true or false"),
        ({"lora_alpha": "8"}, "transformer.lora_alpha='8'; expected a number"),
        (
            {"alpha_pattern": {"x": None}},
            "transformer.alpha_pattern={'x': None}; expected a number for each pattern",
        ),
        (
            {"alpha_pattern": {"(x+)+y": 4}},
            "transformer.alpha_pattern has '(x+)+y'; expected the name of a map, or its end, of",
        ),
    ],
)
def test_metadata_that_cannot_be_applied_are_refused_by_name(tmp_path, about, message):
    write_stated(tmp_path / "a.safetensors", {"x": 2}, about)
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'a.safetensors'}: {message}")):
        read_lora(tmp_path / "a.safetensors")


def test_a_folder_is_read_by_its_file(tmp_path):
    change = LowRankMap(np.ones((2, 4), np.float32), np.ones((6, 2), np.float32), 0.5)
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        read_lora(tmp_path)
    write_lora(tmp_path / "a.safetensors", {"x": change})
    assert read_lora(tmp_path)["x"].scale == 0.5  # stated in its metadata
    assert find_lora(tmp_path) == find_lora(tmp_path / "a.safetensors")
    write_lora(tmp_path / "b.safetensors", {"x": change})
    with pytest.raises(ValueError, match=r"holds several weight files: a\.safe.*; name one"):
        read_lora(tmp_path)
    write_lora(tmp_path / LORA_FILE, {"y": change})
    assert read_lora(tmp_path).keys() == {"y"}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"x.weight": np.ones((2, 4), np.float32)}, "is not a LoRA of a transformer"),
        ({"x.lora_A.weight": np.ones((2, 4), np.float32)}, "needs lora_A.weight"),
        (
            {
                "x.lora_A.weight": np.ones((2, 4), np.float32),
                "x.lora_B.weight": np.ones((6, 3), np.float32),
            },
            r"got \(2, 4\) and \(6, 3\)",
        ),
    ],
)
def test_other_files_are_refused(tmp_path, tensors, message):
    write_safetensors(tmp_path / "a.safetensors", tensors)
    with pytest.raises(ValueError, match=message):
        read_lora(tmp_path / "a.safetensors")


def test_a_lora_of_another_network_is_refused_with_names():
    change = LowRankMap(np.ones((2, 4), np.float32), np.ones((6, 2), np.float32), 1.0)
    with pytest.raises(ValueError, match=r"1 of its 1 maps are not in this one, such as bl"):
        merge_lora({"blocks.0.q.weight": np.zeros((6, 4))}, {"blocks.9.q": change})
    with pytest.raises(ValueError, match=r"has the shape \(6, 4\) in it and \(6, 5\) here"):
        merge_lora({"q.weight": np.zeros((6, 5))}, {"q": change})
    with pytest.raises(ValueError, match=r"no linear map matches .*; their names are like"):
        add_lora(build("movie_gen"), rank=2, alpha=2.0, targets=["*.to_q"])
