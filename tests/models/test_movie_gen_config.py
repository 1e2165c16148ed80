"""The transformer's config, its presets and the size of each."""

import dataclasses
import math

import pytest

from mg.models.movie_gen.config import PRESETS, MovieGenConfig, TextInput
from mg.models.movie_gen.parameter_shapes import num_parameters, parameter_shapes

# preset: layers, width, inner width, heads, width of a head, parameters
SIZES = {
    "tiny": (6, 256, 512, 4, 64, 6_283_520),
    "100m": (10, 768, 2048, 12, 64, 100_316_928),
    "1b": (24, 1536, 4096, 16, 96, 938_998_272),
    "5b": (32, 3072, 8192, 24, 128, 4_940_583_936),
    "30b": (48, 6144, 16384, 48, 128, 29_379_274_752),
}
PUBLISHED = {"1b": 1e9, "5b": 5e9, "30b": 30e9}


@pytest.mark.parametrize("name", SIZES)
def test_presets_have_the_published_sizes(name):
    config = PRESETS[name]
    sizes = (config.num_layers, config.dim, config.ffn_dim, config.num_heads, config.head_dim)
    assert (*sizes, num_parameters(config)) == SIZES[name]
    if name in PUBLISHED:
        assert abs(num_parameters(config) / PUBLISHED[name] - 1) < 0.07


def test_count_by_hand():
    """The 30B preset: what the parts hold, added up by hand."""
    d, inner = 6144, 16384
    layer = 2 * 4 * d * d + 3 * d * inner + 6 * d + 3 * d  # two attentions, SwiGLU, table, norms
    text = (4096 + 1280 + 1472) * d + 3 * 2 * d
    time = 256 * d + d * d + 6 * d * d + 2 * d * d
    ends = 64 * d + (32 + 96 + 96) * d + d + 64 * d
    assert num_parameters(PRESETS["30b"]) == 48 * layer + text + time + ends


def test_every_preset_takes_what_its_encoders_give():
    for config in PRESETS.values():
        shapes = parameter_shapes(config)
        for number, encoder in enumerate(config.text_encoders):
            name = f"text_inputs.inputs.{number}.linear.weight"
            assert shapes[name] == (config.dim, encoder.width)
    # 256 frames of 768x768 pixels, of which the TAE keeps an eighth along each axis
    grid = PRESETS["30b"].token_grid((1, 16, 32, 96, 96))
    assert grid == (32, 48, 48) and math.prod(grid) == 73_728


def test_config_survives_a_round_trip():
    config = dataclasses.replace(PRESETS["tiny"], rope=True)
    plain = config.to_dict()
    assert plain["patch_size"] == [1, 2, 2]
    assert plain["text_encoders"] == [{"name": "word", "width": 256, "max_tokens": 16}]
    assert MovieGenConfig.from_mapping(plain) == config
    assert MovieGenConfig.from_mapping(config) is config


def test_a_preset_can_be_changed():
    config = MovieGenConfig.from_mapping({"preset": "1B", "num_layers": 3})
    assert config == dataclasses.replace(PRESETS["1b"], num_layers=3)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"layers": 2}, "unknown key 'layers'.*did you mean 'num_layers'"),
        ({"preset": "50b"}, "unknown preset '50b'.*did you mean '5b'"),
        ({"num_layers": 0}, "num_layers=0; expected a whole number of 1 or more"),
        ({"dim": True}, "dim=True"),
        ({"dim": 100}, "dim=100 is not a multiple of num_heads=48"),
        ({"patch_size": [2, 2]}, r"patch_size=\[2, 2\]; expected three whole numbers"),
        ({"position_table": [1, 0, 1]}, r"position_table=\[1, 0, 1\]"),
        ({"text_encoders": []}, "expected a list of at least one"),
        ({"text_encoders": ["ul2"]}, "a text encoder is 'ul2'; expected a mapping"),
        ({"text_encoders": [TextInput("a", 1, 1)] * 2}, r"a name twice: \['a', 'a'\]"),
        ({"timestep_width": 7}, "timestep_width=7; expected an even number"),
        ({"norm_eps": 0}, "norm_eps=0"),
        ({"rope": 1}, "rope=1; expected true or false"),
        ({"rope": True, "dim": 96}, "rope needs heads .* gives 2"),
        ({"num_layers": 10**9}, "num_layers=1000000000: no network is that large"),
        ({"dim": 48 * 10**9}, "dim=48000000000: no network is that large"),
        ({"patch_size": [1, 10**9, 1]}, "no network is that large; at most 131072"),
        ({"position_table": [1, 1, 10**9]}, "no network is that large; at most 65536"),
        ({"num_layers": 4096, "dim": 98304}, "about 3.4.* parameters; at most 1e\\+12"),
    ],
)
def test_configs_that_cannot_be_are_refused(mapping, message):
    with pytest.raises(ValueError, match=message):
        MovieGenConfig.from_mapping(mapping)


def test_text_inputs_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="text encoder ul2: width=0"):
        TextInput("ul2", 0, 4)
    with pytest.raises(ValueError, match="a text encoder's name is ''"):
        TextInput("", 4, 4)
