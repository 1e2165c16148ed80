"""Original names of Wan's VAEs, and what shapes tell of a network."""

import json
from pathlib import Path

import numpy as np
import pytest

from mg.weights.wan_names import (
    is_original_wan,
    wan_config_fields,
    wan_diffusers_names,
    wan_from_original,
)

FIXTURES = Path(__file__).parents[1] / "fixtures" / "wan"


def read_names(version):
    """Return {original name: (diffusers' name, shape)} of a published file."""
    names = json.loads((FIXTURES / f"{version}_names.json").read_text(encoding="utf-8"))
    return {name: (new, tuple(shape)) for name, (new, shape) in names.items()}


@pytest.mark.parametrize(("version", "number"), [("wan21", 194), ("wan22", 196)])
def test_every_original_name_has_its_name_in_diffusers(version, number):
    names = read_names(version)
    assert len(names) == number
    assert wan_diffusers_names(names) == {name: new for name, (new, _) in names.items()}


@pytest.mark.parametrize("version", ["wan21", "wan22"])
def test_tensors_move_unchanged_behind_prefixes_too(version):
    names = read_names(version)
    tensors = {name: np.full(1, number) for number, name in enumerate(names)}
    renamed = wan_from_original({f"model.{name}": array for name, array in tensors.items()})
    assert renamed == {new: tensors[name] for name, (new, _) in names.items()}
    assert is_original_wan(tensors)
    assert not is_original_wan(renamed)
    assert wan_from_original(renamed) == renamed


def test_other_numbers_of_blocks_change_where_levels_end():
    names = read_names("wan21")
    block = "decoder.upsamples.0.residual.2.weight"
    fewer = {
        name: shape
        for name, (_, shape) in names.items()
        if not name.startswith("decoder.upsamples.")
    } | {
        "decoder.upsamples.2.resample.1.weight": (1,),
        "decoder.upsamples.3.residual.2.weight": (1,),
        "decoder.upsamples.5.time_conv.weight": (1,),
        block: (1,),
    }
    renamed = wan_diffusers_names(fewer)
    assert renamed[block] == "decoder.up_blocks.0.resnets.0.conv1.weight"
    assert (
        renamed["decoder.upsamples.2.resample.1.weight"]
        == "decoder.up_blocks.0.upsamplers.0.resample.1.weight"
    )
    assert (
        renamed["decoder.upsamples.3.residual.2.weight"]
        == "decoder.up_blocks.1.resnets.0.conv1.weight"
    )
    assert (
        renamed["decoder.upsamples.5.time_conv.weight"]
        == "decoder.up_blocks.1.upsamplers.0.time_conv.weight"
    )


def test_two_tensors_of_one_name_are_refused():
    tensors = {name: np.zeros(1) for name in read_names("wan21")}
    tensors["encoder.conv_in.weight"] = np.zeros(1)
    with pytest.raises(ValueError, match="two tensors of the file get the name"):
        wan_from_original(tensors)


def test_shapes_tell_the_structure():
    shapes = dict(read_names("wan22").values())
    assert wan_config_fields(shapes) == {
        "base_dim": 160,
        "decoder_base_dim": 256,
        "z_dim": 48,
        "dim_mult": [1, 2, 4, 4],
        "num_res_blocks": 2,
        "temperal_downsample": [False, True, True],
        "is_residual": True,
        "in_channels": 12,
        "out_channels": 12,
        "patch_size": 2,
    }
    del shapes["post_quant_conv.weight"]
    with pytest.raises(ValueError, match="not those of a whole Wan VAE: 'post_quant"):
        wan_config_fields(shapes)
