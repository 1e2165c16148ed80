"""Names and shapes: the full-size lists, cleaning published files, reading the config off."""

import math
from pathlib import Path

import numpy as np
import pytest

from mg.weights.tae_layers import image_vae_shapes, tae_shapes
from mg.weights.tae_names import (
    explain_config_mismatch,
    infer_tae_config,
    is_tae,
    tae_from_published,
)
from mg.weights.tensor_check import check_tensors
from tests.image_vae_names import image_vae_to_tae_names

FIXTURES = Path(__file__).parents[1] / "fixtures"
IN_SHAPES = {
    "double_z": True,
    "z_channels": 16,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "use_post_quant_conv": False,
    "use_quant_conv": False,
    "attn_type": "vanilla",
    "temporal_downsample_level": [0, 1, 2],
    "temporal_upsample_level": [3, 2, 1],
}
NOT_IN_SHAPES = {"resolution": 256, "attn_resolutions": []}
FULL_SIZE = IN_SHAPES | NOT_IN_SHAPES
SMALL = FULL_SIZE | {
    "ch": 32,
    "ch_mult": [1, 2, 3],
    "num_res_blocks": 1,
    "z_channels": 4,
    "double_z": False,
    "in_channels": 1,
    "out_ch": 2,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "attn_type": "spat_only",
    "attn_resolutions": [128],
    "temporal_downsample_level": [1, 2],
    "temporal_upsample_level": [1, 0],
}


def listed_shapes(file_name: str) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for line in (FIXTURES / file_name).read_text().splitlines():
        name, sizes = line.split(" ", 1)
        shapes[name] = tuple(int(size) for size in sizes.strip("()").split(",") if size)
    return shapes


def without_memory(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Arrays of these shapes that all share one number."""
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


def published_shapes() -> dict[str, tuple[int, ...]]:
    every = listed_shapes("published_tae_names.txt")
    return {name: shape for name, shape in every.items() if ".temb_proj." not in name}


def test_layer_table_is_the_published_list_at_full_size():
    assert list(tae_shapes(FULL_SIZE).items()) == list(published_shapes().items())
    assert sum(math.prod(shape) for shape in tae_shapes(FULL_SIZE).values()) == 114_472_801


def test_layer_table_has_exactly_the_tensors_of_the_sd35_vae():
    assert image_vae_shapes(FULL_SIZE) == listed_shapes("sd35_vae_names.txt")


def test_sd35_names_map_one_to_one_onto_the_spatial_tensors():
    names = image_vae_to_tae_names(FULL_SIZE)
    published = published_shapes()
    assert names.keys() == listed_shapes("sd35_vae_names.txt").keys()
    assert len(set(names.values())) == len(names)
    temporal = (".conv_temp.", ".attn_1.1.", "sample_temp.")
    spatial = {name for name in published if not any(part in name for part in temporal)}
    assert set(names.values()) == spatial
    for source, target in names.items():
        assert math.prod(image_vae_shapes(FULL_SIZE)[source]) == math.prod(published[target])


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (
            "encoder.down_blocks.2.resnets.0.conv_shortcut.weight",
            "encoder.down.2.block.0.nin_shortcut.conv_spat.weight",
        ),
        (
            "decoder.up_blocks.0.upsamplers.0.conv.bias",
            "decoder.up.3.upsample_spat.conv.bias",
        ),
        ("decoder.up_blocks.3.resnets.2.norm1.weight", "decoder.up.0.block.2.norm1.gamma"),
        ("encoder.mid_block.attentions.0.to_out.0.bias", "encoder.mid.attn_1.0.proj_out.bias"),
        ("decoder.mid_block.resnets.1.norm2.bias", "decoder.mid.block_2.norm2.beta"),
        ("encoder.conv_norm_out.weight", "encoder.norm_out.gamma"),
    ],
)
def test_some_names(source, target):
    assert image_vae_to_tae_names(FULL_SIZE)[source] == target


@pytest.mark.parametrize("prefix", ["", "autoencoder.", "_backbone.", "autoencoder._backbone."])
def test_published_names_are_cleaned(prefix):
    listed = without_memory(listed_shapes("published_tae_names.txt"))
    file = {prefix + name: array for name, array in listed.items()}
    first = "encoder.conv_in.conv_spat.weight"
    file |= {"global_step": np.array(3), "adam_m." + first: listed[first]}
    file |= {f"moment2.{prefix}{first}": listed[first]}
    assert is_tae(file)
    check_tensors(tae_from_published(file), published_shapes())


def test_cleaning_keeps_what_is_not_clearly_a_leftover():
    array = np.zeros(2, np.float32)
    kept = {"a": array, "adam_m.b": array, "something": array, "encoder.autoencoder.x": array}
    assert tae_from_published(kept) == kept
    first = "encoder.conv_in.conv_spat.weight"
    with pytest.raises(ValueError, match="2 VAEs"):
        tae_from_published({first: array, f"_backbone.{first}": array})


def test_check_lists_every_kind_of_fault():
    expected = {f"layer{i}": (2, 3) for i in range(20)}
    tensors = without_memory(expected)
    check_tensors(tensors, expected)
    for i in range(10):
        del tensors[f"layer{i}"]
    tensors["layer15"] = np.zeros((3, 2))
    tensors["other"] = np.zeros(1)
    with pytest.raises(ValueError) as caught:
        check_tensors(tensors, expected)
    message = str(caught.value)
    assert "10 missing (layer0, layer1, " in message
    assert "layer7, and 2 more)" in message
    assert "1 extra (other)" in message
    assert "1 misshapen (layer15 is (3, 2), expected (2, 3))" in message


@pytest.mark.parametrize("config", [FULL_SIZE, SMALL], ids=["full", "small"])
def test_config_is_read_off_the_shapes(config):
    tensors = without_memory(tae_shapes(config))
    assert infer_tae_config(tensors) == {key: config[key] for key in IN_SHAPES}
    assert explain_config_mismatch(tensors, config | {"dropout": 0.5}) == []


def test_attention_in_the_levels():
    """At 256 nominal pixels, level 1 has 128 and attends after each of its blocks."""
    shapes = tae_shapes(FULL_SIZE | {"attn_resolutions": (128,)})
    added = shapes.keys() - published_shapes().keys()
    places = {name.split(".attn.")[0] + name.split(".attn.")[1][:2] for name in added}
    assert places == {f"encoder.down.1{block}." for block in range(2)} | {
        f"decoder.up.1{block}." for block in range(3)
    }
    assert shapes["encoder.down.1.attn.1.0.q.weight"] == (256, 256, 1, 1)
    assert shapes["decoder.up.1.attn.2.1.to_q.weight"] == (256, 256)
    assert len(added) == 5 * 20


def test_quant_convs_are_counted():
    shapes = tae_shapes(FULL_SIZE | {"use_quant_conv": True, "use_post_quant_conv": True})
    assert shapes["quant_conv.weight"] == (32, 32, 1, 1)
    assert shapes["post_quant_conv.weight"] == (16, 16, 1, 1)
    assert len(shapes) == len(published_shapes()) + 4


def test_config_mismatches_are_named():
    tensors = without_memory(tae_shapes(FULL_SIZE))
    other = FULL_SIZE | {"ch": 32, "ch_mult": (1, 1, 2, 2), "temporal_upsample_level": (1, 2, 3)}
    assert explain_config_mismatch(tensors, other) == [
        "ch: the file says 128, the config says 32",
        "ch_mult: the file says [1, 2, 4, 4], the config says [1, 1, 2, 2]",
    ]


def test_impossible_tensors_have_no_config():
    with pytest.raises(ValueError, match=r"encoder\.conv_in\.conv_spat\.weight is missing"):
        infer_tae_config({})
    shapes = tae_shapes(SMALL)
    for name, shape, message in (
        ("encoder.conv_out.conv_spat.weight", (5, 96, 3, 3), "gives 5 channels"),
        ("encoder.conv_in.conv_spat.weight", (32, 3), "expected 4 sizes"),
        ("encoder.conv_in.conv_spat.weight", (31, 3, 3, 3), "not multiples"),
    ):
        with pytest.raises(ValueError, match=message):
            infer_tae_config(without_memory(shapes | {name: shape}))
