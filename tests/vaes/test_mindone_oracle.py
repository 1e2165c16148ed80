"""Our networks and tiles against mindone's, which has those of diffusers, on lengths and sizes
that no stored reference covers."""

import json
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mg.vaes import VideoVAE
from mg.vaes.mindone_networks import build_network, pynative_mode
from tests.networks import load_network

VAES = Path(__file__).parents[1] / "fixtures" / "vaes"
SIZES = {"kl": 2, "cogvae": 8, "hyvae": 8}  # pixels per pixel of latent


@pytest.fixture(scope="module")
def pairs():
    """Return {name: (our VAE, mindone's network)} with the same weights."""
    made = {}
    for name in SIZES:
        vae = VideoVAE.from_pretrained(VAES / name, inflate_method="none")
        config = json.loads((VAES / name / "config.json").read_text())
        network = build_network(config["_class_name"], config, initialize=False)
        load_network(network, vae.tensors())
        made[name] = vae, network
    return made


def video_of(frames, height, width):
    video = np.random.default_rng(frames).uniform(-1, 1, (1, 3, frames, height, width))
    return Tensor(video.astype(np.float32))


def assert_same(vae, network, video, tolerance=1e-5):
    """Compare moments and frames, as parts of the largest value; return the mean's shape."""
    moments = network.encode(video)[0].asnumpy()
    mean, logvar = (tensor.asnumpy() for tensor in vae.moments(video))
    channels = mean.shape[1]
    for found, right in ((mean, moments[:, :channels]), (logvar, moments[:, channels:])):
        assert found.shape == right.shape
        np.testing.assert_allclose(found, right, rtol=0, atol=tolerance * np.abs(right).max())
    latent = Tensor(mean)
    right = network.decode(latent)[0].asnumpy()
    found = vae.frames_from(latent, None).asnumpy()
    assert found.shape == right.shape
    # The tiny networks amplify rounding in decoding.
    np.testing.assert_allclose(found, right, rtol=0, atol=10 * tolerance * np.abs(right).max())
    return mean.shape


# 17 frames: two chunks, of which the second goes on from the first; 16: two without a first frame.
@pytest.mark.parametrize(
    ("name", "frames", "latents"),
    [
        ("cogvae", 1, 1),
        ("cogvae", 5, 2),
        ("cogvae", 13, 4),
        ("cogvae", 16, 4),
        ("cogvae", 17, 5),
        ("hyvae", 1, 1),
        ("hyvae", 5, 2),
        ("hyvae", 21, 6),  # in two tiles of frames
    ],
)
def test_lengths(pairs, name, frames, latents, pynative_mode):
    shape = assert_same(*pairs[name], video_of(frames, 8, 16))
    assert shape[2] == latents


@pytest.mark.parametrize("name", SIZES)
def test_tiles(pairs, name, pynative_mode):
    vae, network = pairs[name]
    if name == "kl":
        vae.enable_tiling(height=16, overlap_pixels=4)
        network.tile_sample_min_size, network.tile_latent_min_size = 16, 8
        network.enable_tiling()
        images = video_of(1, 40, 24)
        moments = network.encode(images[:, :, 0])[0].asnumpy()
        found = np.concatenate([tensor.asnumpy() for tensor in vae.moments(images)], 1)
        np.testing.assert_allclose(found[:, :, 0], moments, rtol=0, atol=1e-5)
        return
    vae.enable_tiling(height=32, width=32, overlap_pixels=8)
    if name == "cogvae":
        network.enable_tiling(32, 32, 0.25, 0.25)
    else:
        network.enable_tiling(32, 32, None, 24, 24)
    try:
        assert_same(vae, network, video_of(1, 64, 40))
    finally:
        vae.disable_tiling()
        network.disable_tiling()


def test_chunks_compile_and_hand_their_past_on(pairs, graph_mode):
    vae, network = pairs["cogvae"]
    video = video_of(17, 8, 8)
    mean = vae.moments(video)[0].asnumpy()
    with pynative_mode():
        expected = network.encode(video)[0].asnumpy()[:, :4]
    np.testing.assert_allclose(mean, expected, rtol=0, atol=1e-5)
    assert ms.get_context("mode") == ms.GRAPH_MODE


def test_unknown_classes_and_impossible_configs_are_refused():
    with pytest.raises(ValueError, match="AutoencoderKLCausal3D"):
        build_network("AutoencoderKLCausal3D", {})
    with pytest.raises(ValueError, match="no AutoencoderKLHunyuanVideo can be built"):
        build_network("AutoencoderKLHunyuanVideo", {"temporal_compression_ratio": 5})
