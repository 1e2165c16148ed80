"""Image VAEs as sources of a TAE: names and shapes at full size, and what config.json states."""

import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest

from mg.weights.checkpoint_file import read_weights
from mg.weights.image_vae import (
    assumed_scaling,
    fields_of_vae_config,
    image_vae_config,
    temporal_levels,
)
from mg.weights.inflation import inflate_image_vae
from mg.weights.tae_layers import tae_shapes
from mg.weights.vae_names import to_diffusers_names
from tests.image_vae_names import image_vae_to_tae_names

FIXTURES = Path(__file__).parents[1] / "fixtures"
KL_FOLDER = FIXTURES / "vaes" / "kl"


def full_size(name: str) -> dict[str, np.ndarray]:
    """Return a full-size file's tensors, all of which share one number: no memory is taken."""
    manifest = json.loads((FIXTURES / "vae_keys" / f"{name}.json").read_text())
    return {key: np.broadcast_to(np.float32(0), shape) for key, (shape, _) in manifest.items()}


@pytest.mark.parametrize(
    ("name", "num_tensors", "num_millions", "latent_channels", "has_quant_convs"),
    [("sd-vae-ft-mse", 248, 83.653863, 4, True), ("sd35-vae", 244, 83.819683, 16, False)],
)
def test_full_size_files_map_completely(
    name, num_tensors, num_millions, latent_channels, has_quant_convs
):
    """Every tensor is used, once, and every spatial tensor of the TAE has its source."""
    source = full_size(name)
    assert len(source) == num_tensors
    assert sum(array.size for array in source.values()) == round(num_millions * 1e6)
    tensors = to_diffusers_names(source)
    assert len(tensors) == num_tensors
    config = image_vae_config(tensors)
    assert (config["ch"], config["ch_mult"], config["num_res_blocks"]) == (128, [1, 2, 4, 4], 2)
    assert config["z_channels"] == latent_channels
    assert config["use_quant_conv"] is config["use_post_quant_conv"] is has_quant_convs
    names, targets = image_vae_to_tae_names(config), tae_shapes(config)
    assert names.keys() == tensors.keys()
    assert len(set(names.values())) == num_tensors
    for old, new in names.items():
        assert math.prod(targets[new]) == tensors[old].size
    temporal = (".conv_temp.", ".attn_1.1.", "sample_temp.")
    assert {name for name in targets if not any(part in name for part in temporal)} == set(
        names.values()
    )


def test_former_attention_names_are_the_same_weights():
    former = read_weights(FIXTURES / "vaes" / "kl_old")
    assert "encoder.mid_block.attentions.0.query.weight" in former
    groups = {"norm_groups": 8}
    inflated, config = inflate_image_vae(former, structure=groups)
    expected, expected_config = inflate_image_vae(read_weights(KL_FOLDER), structure=groups)
    assert config == expected_config and inflated.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(inflated[name], array)


def test_structure_decides_what_the_shapes_leave_open():
    structure = {
        "attn_type": "spat_only",
        "norm_groups": 4,
        "norm_per_frame": True,
        "scaling_factor": 0.13025,
        "shift_factor": 0.0,
        **temporal_levels(2, 1),
    }
    inflated, config = inflate_image_vae(read_weights(KL_FOLDER), structure=structure)
    assert {key: config[key] for key in structure} == structure
    assert not [name for name in inflated if "attn_1.1" in name or "sample_temp" in name]


def test_groups_that_do_not_fit():
    with pytest.raises(ValueError, match="16 channels are not a multiple of norm_groups=32; the c"):
        inflate_image_vae(read_weights(KL_FOLDER))
    with pytest.raises(ValueError, match="not a multiple of norm_groups=0"):
        inflate_image_vae(read_weights(KL_FOLDER), structure={"norm_groups": 0})


@pytest.mark.parametrize(
    ("vae_config", "expected"),
    [
        ({}, (0.18215, 0.0, 32)),
        ({"scaling_factor": 0.13025, "shift_factor": None, "norm_num_groups": 8}, (0.13025, 0, 8)),
        (
            {"scaling_factor": 1.5305, "shift_factor": 0.0609, "act_fn": "swish"},
            (1.5305, 0.0609, 32),
        ),
    ],
)
def test_fields_of_a_vae_config(vae_config, expected):
    keys = ("scaling_factor", "shift_factor", "norm_groups")
    assert fields_of_vae_config(vae_config) == dict(zip(keys, expected, strict=True))


def test_vae_configs_that_a_tae_cannot_have(caplog):
    with pytest.raises(ValueError, match="activation is 'gelu'"):
        fields_of_vae_config({"act_fn": "gelu"})
    with pytest.raises(ValueError, match="not a number"):
        fields_of_vae_config({"norm_num_groups": [32]})
    with pytest.raises(ValueError, match="not finite"):
        fields_of_vae_config({"scaling_factor": float("nan")})
    with caplog.at_level(logging.WARNING, logger="mg"):
        assert fields_of_vae_config({"latents_mean": [0.1] * 4})["scaling_factor"] == 0.18215
    assert "latents_mean or latents_std" in caplog.text


def test_scaling_without_a_config_depends_on_the_channels():
    assert assumed_scaling(16) == {"scaling_factor": 1.5305, "shift_factor": 0.0609}
    assert assumed_scaling(4) == {"scaling_factor": 0.18215, "shift_factor": 0.0}


@pytest.mark.parametrize(
    ("compression", "down", "up"),
    [(None, [0, 1, 2], [3, 2, 1]), (8, [0, 1, 2], [3, 2, 1]), (2, [0], [1]), (1, [], [])],
)
def test_temporal_levels(compression, down, up):
    levels = temporal_levels(4, compression)
    assert levels == {"temporal_downsample_level": down, "temporal_upsample_level": up}


@pytest.mark.parametrize("compression", [0, 3, 16, -1])
def test_other_temporal_compressions_are_refused(compression):
    with pytest.raises(ValueError, match=rf"={compression}; 4 levels can have one of .1, 2, 4, 8."):
        temporal_levels(4, compression)
