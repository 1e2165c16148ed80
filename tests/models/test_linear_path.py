"""The linear path: principal components, the best linear autoencoder, as a network's start."""

import dataclasses

import numpy as np
import pytest
from mindspore import Tensor

from mg.models.tae.linear_path import blocks_of, linear_path_tensors, principal_components
from mg.models.tae.tae import TemporalAutoencoder
from mg.weights.safetensors_file import write_safetensors
from mg.weights.stored_config import config_metadata
from mg.weights.tae_layers import tae_shapes
from tests.tae_files import read_tae
from tests.tiny import TAE_WITH_LINEAR_PATH as CONFIG

pytestmark = pytest.mark.usefixtures("pynative_mode")


def videos_of_rank(rank, *, num_videos, seed=0):
    """Return videos whose blocks are mixtures of `rank` patterns around a mean, (N, 3, 8, 8, 8)."""
    rng = np.random.default_rng(seed)
    patterns = rng.standard_normal((rank, 3, 4, 4, 4)) * 0.1
    amounts = rng.standard_normal((num_videos, 2, 2, 2, rank)) * np.linspace(2, 1, rank)
    blocks = 0.2 + np.einsum("nthwr,rcxyz->nctxhywz", amounts, patterns)
    return blocks.reshape(num_videos, 3, 8, 8, 8).astype(np.float32)


@pytest.fixture(scope="module")
def patterned():
    return videos_of_rank(6, num_videos=600)


def begun(patterned, config=CONFIG):
    """Return a network that begins as the principal components of videos."""
    tae = TemporalAutoencoder(config, sample_deterministic=True)
    tensors = linear_path_tensors(principal_components([patterned], config), config)
    tae.load_tensors({**tae.tensors(), **tensors})
    return tae


def test_blocks_are_rows_of_channel_frame_row_and_column():
    video = np.zeros((1, 3, 5, 4, 8), np.float32)
    video[0, 1, 4, 2, 7] = 1  # the last frame, which fills its block of 4 up
    rows = blocks_of(video, 4, 4)
    assert rows.shape == (2 * 1 * 2, 3 * 4 * 4 * 4)
    expected = [(3, ((1 * 4 + frame) * 4 + 2) * 4 + 3) for frame in range(4)]
    assert [tuple(place) for place in np.argwhere(rows)] == expected


def test_components_are_those_of_a_singular_value_decomposition(patterned):
    found = principal_components([patterned[:100], patterned[100:]], CONFIG)
    rows = blocks_of(patterned, 4, 4)
    mean = rows.mean(axis=0)
    _, values, directions = np.linalg.svd(rows - mean, full_matrices=False)
    np.testing.assert_allclose(found.mean, mean, atol=1e-6)
    np.testing.assert_allclose(found.deviations, values[:6] / np.sqrt(len(rows)), rtol=1e-4)
    overlap = np.abs((found.directions * directions[:6]).sum(axis=1))
    np.testing.assert_allclose(overlap, 1, atol=1e-4)
    assert found.lost < 1e-6


def test_videos_of_few_patterns_come_back_from_as_many_channels(patterned):
    tae = begun(patterned)
    others = patterned[:20]
    z, _, logvar = tae.encode(Tensor(others))
    assert z.shape == (20, 6, 2, 2, 2)
    np.testing.assert_allclose(logvar.asnumpy(), -8.0)
    np.testing.assert_allclose(tae.decode(z).asnumpy(), others, atol=1e-4)
    latents = tae.encode(Tensor(patterned))[1].asnumpy()
    np.testing.assert_allclose(latents.mean(axis=(0, 2, 3, 4)), 0, atol=1e-3)
    np.testing.assert_allclose(latents.std(axis=(0, 2, 3, 4)), 1, atol=1e-3)


def test_no_other_map_to_as_many_channels_leaves_less():
    patterned = videos_of_rank(12, num_videos=600)
    components = principal_components([patterned], CONFIG)
    rows = blocks_of(patterned, 4, 4)
    rest = rows - components.mean
    rest = rest - (rest @ components.directions.T) @ components.directions
    assert components.lost == pytest.approx((rest**2).mean(), rel=1e-3)
    back = begun(patterned)(Tensor(patterned)).asnumpy()
    assert ((back - patterned) ** 2).mean() == pytest.approx(components.lost, rel=1e-3)
    random, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((192, 6)))
    other = rows - components.mean
    other = other - (other @ random) @ random.T
    assert (other**2).mean() > 2 * components.lost


def test_an_image_is_a_block_of_equal_frames(patterned):
    tae = begun(patterned)
    image = np.full((1, 3, 1, 8, 8), 0.2, np.float32)
    z, _, _ = tae.encode(Tensor(image))
    still = tae.encode(Tensor(image.repeat(4, axis=2)))[0]
    np.testing.assert_array_equal(z.asnumpy(), still.asnumpy())
    assert tae.decode(z, 1).shape == image.shape


def test_shapes_and_files_with_a_linear_path(tmp_path):
    tae = TemporalAutoencoder(CONFIG, sample_deterministic=True)
    config = CONFIG.to_dict()
    assert {n: a.shape for n, a in tae.tensors().items()} == tae_shapes(config)
    path = tmp_path / "tae.safetensors"
    write_safetensors(path, tae.tensors(), metadata=config_metadata(config))
    assert TemporalAutoencoder(pretrained=path).config == CONFIG
    with pytest.raises(ValueError, match="linear_path: the file says True, the config says False"):
        read_tae(path, config={**config, "linear_path": False})
    plain = dataclasses.replace(CONFIG, linear_path=False)
    assert "encoder.linear.weight" not in TemporalAutoencoder(plain).tensors()


def test_blocks_that_are_too_large_are_refused():
    large = dataclasses.replace(CONFIG, patch_size=32, patch_size_t=2)
    with pytest.raises(ValueError, match="stands for 49152 values; principal components are"):
        principal_components([], large)
