"""Video DC-AE as a `VideoVAE`: its tiles against reference numbers, its tensors."""

import json
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor

from mg.latent_spec import LOGVAR_MIN, LatentSpec
from mg.models.dc_ae.network import VideoDCAE as Network
from mg.vaes.dc_ae import VideoDCAE
from mg.weights.safetensors_file import read_safetensors
from tests.networks import network_shapes

FOLDER = Path(__file__).parents[1] / "fixtures" / "dc_ae"
CONFIG = json.loads((FOLDER / "config.json").read_text())
TILES = {"spatial_tile_size": 32, "temporal_tile_size": 16}


@pytest.fixture(scope="module")
def reference():
    with np.load(FOLDER / "tiny.npz", allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files if name[1] == ":" and name[0] != "g"}


@pytest.fixture
def network():
    network = Network(CONFIG)
    network.load_tensors(read_safetensors(FOLDER / "F_AE.safetensors"))
    return network


@pytest.fixture
def vae(network):
    return VideoDCAE(network)


def assert_close(found, right):
    """Compare at the references' tolerance, 1e-4 of the largest value (of at least 1)."""
    assert found.shape == right.shape
    limit = 1e-4 * max(1, np.abs(right).max())
    np.testing.assert_allclose(found.asnumpy(), right, rtol=0, atol=limit)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "o:tile_z"),
        ({"use_temporal_tiling": False}, "o:tile_z_spatial_only"),
        ({"use_spatial_tiling": False}, "o:tile_z_temporal_only"),
    ],
)
def test_tiled_latents_are_the_references(vae, reference, settings, name, pynative_mode):
    vae.enable_tiling(**TILES, **settings)
    posterior = vae.encode(reference["i:tile_x"])
    assert_close(posterior.mean, reference[name])
    assert np.all(posterior.logvar.asnumpy() == LOGVAR_MIN)


def test_tiles_are_off_unless_enabled(vae, reference, pynative_mode):
    video = Tensor(reference["i:tile_x"])
    right = vae.network.moments(video)[0].asnumpy()
    assert_close(vae.encode(video).mean, right)
    vae.enable_tiling(**TILES)
    vae.disable_tiling()
    assert_close(vae.encode(video).mean, right)


def test_tiled_video_is_the_reference_with_a_last_tile_of_one_latent_frame(
    vae, reference, pynative_mode
):
    vae.enable_tiling(**TILES)
    assert_close(vae.decode(reference["i:tile_lat"]), reference["o:tile_y_video"])
    assert_close(vae.decode(reference["i:tile_lat"], 25), reference["o:tile_y_video"][:, :, :25])


def test_tiles_that_cover_everything_change_nothing(vae, reference, pynative_mode):
    vae.enable_tiling(**TILES)
    posterior = vae.encode(reference["i:x"][:, :, :1])
    assert_close(posterior.mean, reference["o:z_T1"])
    assert_close(vae.decode(posterior), reference["o:y_T1"])  # an image


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spatial_tile_size": 40}, "spatial_tile_size=40 .* multiple of 32, .* use 32 or 64"),
        ({"temporal_tile_size": 8}, "temporal_tile_size=8 .* multiple of 16, .* use 16"),
        ({"tile_overlap_factor": 1.0}, "tile_overlap_factor=1.0; expected at least 0 and below 1"),
        ({"temporal_tile_size": 16.5}, "temporal_tile_size=16.5; expected a whole number"),
        ({"use_spatial_tiling": "yes"}, "use_spatial_tiling='yes'; expected true or false"),
    ],
)
def test_tiles_that_do_not_fit_are_refused(vae, settings, message):
    with pytest.raises(ValueError, match=message):
        vae.enable_tiling(**settings)
    assert not vae.tiles.use_spatial_tiling


def test_a_vae_is_built_from_tensors_and_gives_them_back(network):
    tensors = network.tensors()
    vae = VideoDCAE.from_tensors(tensors, CONFIG)
    assert vae.spec == LatentSpec(16, t=4, h=8, w=8)
    assert VideoDCAE.shapes(vae.stored_config()) == network_shapes(network)
    for name, array in vae.tensors().items():
        np.testing.assert_array_equal(array, tensors[name])
    del tensors["decoder.project_in.main.conv.bias"]
    with pytest.raises(ValueError, match=r"decoder\.project_in\.main\.conv\.bias"):
        VideoDCAE.from_tensors(tensors, CONFIG)
