"""The TAE's config: what it derives, what it refuses and with which words."""

import dataclasses

import pytest

from mg.models.tae.config import TAE_CONFIG, TAEConfig


def test_defaults_are_the_published_network():
    assert TAE_CONFIG == {
        "double_z": True,
        "z_channels": 16,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 128,
        "ch_mult": [1, 2, 4, 4],
        "num_res_blocks": 2,
        "attn_resolutions": [],
        "dropout": 0.0,
        "scaling_factor": 1.5305,
        "shift_factor": 0.0609,
        "use_post_quant_conv": False,
        "use_quant_conv": False,
        "attn_type": "vanilla",
        "temporal_downsample_level": [0, 1, 2],
        "temporal_upsample_level": [3, 2, 1],
        "temporal_padding": "published",
        "norm_groups": 32,
        "norm_per_frame": False,
        "patch_size": 1,
        "patch_size_t": 1,
        "linear_path": False,
        "decoder_ch": None,
    }


def test_mapping_and_dataclass_are_the_same():
    config = TAEConfig.from_mapping({"ch": 64, "ch_mult": [1, 1], **levels([0], [1])})
    assert config.ch_mult == (1, 1) and hash(config) == hash(dataclasses.replace(config))
    assert TAEConfig.from_mapping(config) is config
    assert TAEConfig.from_mapping(config.to_dict()) == config
    assert TAEConfig.from_mapping({}) == TAEConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.ch = 32


def levels(down: list[int], up: list[int]) -> dict:
    return {"temporal_downsample_level": down, "temporal_upsample_level": up}


@pytest.mark.parametrize(
    ("change", "temporal", "spatial"),
    [
        ({}, 8, 8),
        ({"ch_mult": [1, 1], **levels([0], [1])}, 2, 2),
        (levels([], []), 1, 8),
        (levels([2, 0], [0, 3]), 4, 8),
        ({"ch_mult": [1], **levels([0], [0])}, 2, 1),
        ({"ch_mult": [1, 1, 1, 1, 1], **levels([0, 1, 2, 3], [4, 3, 2, 1])}, 16, 16),
    ],
)
def test_compression_follows_from_the_levels(change, temporal, spatial):
    config = TAEConfig.from_mapping(change)
    assert (config.temporal_compression, config.spatial_compression) == (temporal, spatial)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z_chanels": 8}, "unknown key 'z_chanels'.*did you mean 'z_channels'"),
        ({"attn_resolution": [8]}, "did you mean 'attn_resolutions'"),
        ({"banana": 1}, "unknown key 'banana'.*known keys: .*'num_res_blocks'"),
        ({"ch": 48}, r"ch=48 .* levels of \[48, 48\] channels.*multiples of norm_groups=32"),
        ({"norm_groups": 24}, r"levels of \[128, 128, 256, 512, 512\].*norm_groups=24"),
        ({"norm_per_frame": "yes"}, "norm_per_frame='yes'; expected true or false"),
        ({"norm_groups": 0}, "norm_groups=0; expected a whole number of 1 or more"),
        ({"ch_mult": [1, 0, 4, 4]}, r"levels of \[0\] channels"),
        ({"ch_mult": []}, "ch_mult is empty.*at least one level"),
        ({"num_res_blocks": 0}, "num_res_blocks=0; expected a whole number of 1 or more"),
        ({"num_res_blocks": 1.5}, "num_res_blocks=1.5; expected a whole number"),
        ({"ch": "128"}, "ch='128'; expected a whole number"),
        ({"ch_mult": 4}, "ch_mult=4; expected a list of whole numbers"),
        ({"dropout": "0.1"}, "dropout='0.1'; expected a finite number"),
        ({"double_z": "no"}, "double_z='no'; expected true or false"),
        ({"attn_resolutions": [7]}, r"no level has the resolution \[7\].*\[256, 128, 64, 32\]"),
        ({"attn_type": "flash"}, "attn_type='flash'; expected 'vanilla' or 'spat_only'"),
        ({"temporal_padding": "zeros"}, "temporal_padding='zeros'; expected 'published' or 'repl"),
        ({"dropout": 1.0}, "dropout=1.0; expected 0 <= dropout < 1"),
        ({"dropout": -0.1}, "dropout=-0.1"),
        ({"scaling_factor": 0}, "scaling_factor=0 would erase the latent"),
        (levels([0, 1, 4], [3, 2, 1]), r"temporal_downsample_level=\(0, 1, 4\).*levels of 0\.\.3"),
        (levels([0, 0, 1], [3, 2, 1]), r"temporal_downsample_level=\(0, 0, 1\).*different"),
        (levels([0, 1, 2], [3, 2, -1]), r"temporal_upsample_level=\(3, 2, -1\)"),
        ({"ch": 32 * 10**9}, "ch=32000000000: no network is that large"),
        ({"ch_mult": [1, 10**9]}, r"ch_mult=\(1, 1000000000\): no network is that large"),
        ({"ch_mult": [1] * 17}, "ch_mult has 17 levels; at most 16"),
        ({"num_res_blocks": 10**9}, "num_res_blocks=1000000000: no network is that large"),
        ({"ch": 1 << 16, "num_res_blocks": 40}, "about .* parameters; at most 1e\\+12"),
        ({"scaling_factor": float("inf")}, "scaling_factor=inf; expected a number within"),
        ({"shift_factor": float("nan")}, "shift_factor=nan; expected a number within"),
        (levels([0, 1], [3, 2, 1]), "differ in length.*as many frames"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ValueError, match=message):
        TAEConfig.from_mapping(change)
