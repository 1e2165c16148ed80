"""Position tables for the next training stage, made from those of the stage before."""

import numpy as np
import pytest

from mg.models.denoiser_config import TextInput
from mg.models.movie_gen.config import MovieGenConfig
from mg.models.movie_gen.parameter_shapes import parameter_shapes
from mg.weights.grow_positions import grow_positions

CONFIG = {
    "num_layers": 1,
    "dim": 8,
    "ffn_dim": 8,
    "num_heads": 2,
    "position_table": [1, 4, 6],
    "text_encoders": [TextInput("bytes", 4, 4)],
}


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    shapes = parameter_shapes(MovieGenConfig.from_mapping(CONFIG))
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def shapes_of(tensors):
    return {name: value.shape for name, value in tensors.items()}


def test_tensors_fit_the_network_with_larger_tables(tensors):
    grown = grow_positions(tensors, spatial_factor=2, num_frames=5)
    config = MovieGenConfig.from_mapping({**CONFIG, "position_table": [5, 8, 12]})
    assert shapes_of(grown) == parameter_shapes(config)
    for name, value in grown.items():
        assert value.dtype == np.float32
        if not name.startswith("positions"):
            assert value is tensors[name]


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_a_linear_table_stays_linear_between_its_ends(tensors, factor):
    places = np.arange(6.0) + 0.5  # centres of the tokens
    tensors["positions.width"] = (places[:, None] * np.ones(8)).astype(np.float32)
    grown = grow_positions(tensors, spatial_factor=factor)["positions.width"]
    centres = (np.arange(6 * factor) + 0.5) / factor
    expected = np.clip(centres, 0.5, 5.5)[:, None] * np.ones(8)
    np.testing.assert_allclose(grown, expected, rtol=1e-6)


def test_threefold_keeps_the_rows_in_the_middle_of_their_three(tensors):
    grown = grow_positions(tensors, spatial_factor=3)
    np.testing.assert_allclose(
        grown["positions.height"][1::3], tensors["positions.height"], rtol=1e-6
    )
    # Twice, then three times, as the stages do: the ends stay in place.
    twice = grow_positions(grow_positions(tensors, spatial_factor=2), spatial_factor=3)
    for name in ("positions.height", "positions.width"):
        assert len(twice[name]) == 6 * len(tensors[name])
        np.testing.assert_allclose(twice[name][[0, -1]], tensors[name][[0, -1]], rtol=1e-6)


def test_temporal_table_keeps_its_rows_and_starts_new_ones_near_the_last(tensors):
    old = tensors["positions.frames"]
    grown = grow_positions(tensors, num_frames=400)["positions.frames"]
    np.testing.assert_array_equal(grown[:1], old)
    difference = grown[1:] - old[-1]
    assert abs(difference.std() / 0.02 - 1) < 0.1
    assert len(np.unique(difference[:, 0])) == 399
    again = grow_positions(tensors, num_frames=400)["positions.frames"]
    np.testing.assert_array_equal(again, grown)
    other = grow_positions(tensors, num_frames=400, seed=1)["positions.frames"]
    assert np.abs(other - grown).max() > 0.01
    still = grow_positions(tensors, num_frames=3, noise=0.0)["positions.frames"]
    np.testing.assert_array_equal(still, np.repeat(old, 3, axis=0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_factor": 0}, "spatial_factor=0; expected a whole number, 1 or more"),
        ({"spatial_factor": 1.5}, "spatial_factor=1.5"),
        ({"num_frames": 0}, "num_frames=0, but the weights have a temporal table of 1 rows"),
    ],
)
def test_what_cannot_grow_is_refused(tensors, options, message):
    with pytest.raises(ValueError, match=message):
        grow_positions(tensors, **options)


def test_other_weights_are_refused(tensors):
    del tensors["positions.width"]
    with pytest.raises(ValueError, match=r"no tensors \['positions.width'\]"):
        grow_positions(tensors, spatial_factor=2)
