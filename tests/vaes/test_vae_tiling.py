"""Tiles that are blended as diffusers does it: exact where tiles can be exact.

Each tile has its own statistics of normalisation and its own borders, so that a tiled result
differs from the untiled one. Here both effects are taken away: of every 3x3 kernel only the centre
(in time the current frame) is kept, so that borders do not matter, and the video repeats a pattern,
so that every tile has the statistics of the whole. Then tiles must be cut, placed and blended
exactly for both results to be equal.
"""

import mindspore as ms
import numpy as np
import pytest

from mg.vaes.blended_tiles import default_tile

pytestmark = pytest.mark.usefixtures("pynative_mode")


def keep_centre_taps(network):
    for parameter in network.get_parameters():
        weight = parameter.asnumpy()
        if weight.ndim >= 4 and weight.shape[-1] == 3:
            centre = (..., -1, 1, 1) if weight.ndim == 5 else (..., 1, 1)
            kept = np.zeros_like(weight)
            kept[centre] = weight[centre]
            parameter.set_data(ms.Tensor(kept))


def relative_error(actual, expected):
    assert actual.shape == expected.shape
    return np.abs(actual - expected).max() / np.abs(expected).max()


def code(vae, video, latent=None):
    """Return the mean latent of a video, and the frames of `latent` or else of that."""
    mean = vae.encode(video).mean.asnumpy()
    return mean, vae.decode(mean if latent is None else latent).asnumpy()


@pytest.mark.parametrize(
    ("family", "frames", "sizes"),
    [
        ("sd", 1, {"height": 32, "overlap_pixels": 8}),
        ("cogvideox", 1, {"height": 32, "width": 32, "overlap_pixels": 8}),
        ("hunyuan", 5, {"height": 32, "width": 32, "overlap_pixels": 8}),
    ],
)
def test_tiles_are_exact_but_for_statistics_and_borders(new_vae, family, frames, sizes):
    vae = new_vae(family)
    pattern = np.random.default_rng(0).uniform(-1, 1, (1, 3, frames, 16, 16)).astype(np.float32)
    video = np.tile(pattern, (1, 1, 1, 4, 4))
    with_borders = vae.encode(video).mean.asnumpy()
    vae.enable_tiling(**sizes)
    assert relative_error(vae.encode(video).mean.asnumpy(), with_borders) > 0.01  # tiles it is
    vae.disable_tiling()
    assert np.array_equal(vae.encode(video).mean.asnumpy(), with_borders)

    keep_centre_taps(vae.network)
    mean, decoded = code(vae, video)
    vae.enable_tiling(**sizes)
    tiled_mean, tiled_decoded = code(vae, video, mean)
    assert relative_error(tiled_mean, mean) < 1e-5
    assert relative_error(tiled_decoded, decoded) < 5e-4  # the tiny networks amplify rounding


@pytest.mark.parametrize("frames", [21, 25])  # 25: the last tile has one frame, and adds none
def test_frame_tiles_of_hunyuanvideo_are_exact_but_for_statistics_and_borders(new_vae, frames):
    vae = new_vae("hunyuan")
    keep_centre_taps(vae.network)
    frame = np.random.default_rng(0).uniform(-1, 1, (1, 3, 1, 8, 40)).astype(np.float32)
    # Each frame is moved on by one latent pixel: 5 different frames of the same statistics.
    video = np.concatenate([np.roll(frame, 8 * t, axis=4) for t in range(frames)], axis=2)
    tiled_mean, tiled_decoded = code(vae, video)  # on from the start, as in diffusers
    vae.disable_frame_tiles()
    mean, decoded = code(vae, video, tiled_mean)
    assert relative_error(tiled_mean, mean) < 1e-5
    assert relative_error(tiled_decoded, decoded) < 1e-4


def test_frame_tiles_of_hunyuanvideo_are_a_switch(new_vae):
    vae = new_vae("hunyuan")
    video = np.random.default_rng(0).uniform(-1, 1, (1, 3, 21, 8, 8)).astype(np.float32)
    tiled = vae.encode(video).mean.asnumpy()
    vae.disable_frame_tiles()
    whole = vae.encode(video).mean.asnumpy()
    assert relative_error(tiled, whole) > 0.01
    vae.enable_frame_tiles(frames=24)
    assert np.array_equal(vae.encode(video).mean.asnumpy(), whole)  # 21 frames: one tile
    vae.enable_frame_tiles()
    assert np.array_equal(vae.encode(video).mean.asnumpy(), tiled)
    with pytest.raises(ValueError, match=r"frames 18 .* use frames 16 or 20$"):
        vae.enable_frame_tiles(frames=18)
    with pytest.raises(ValueError, match=r"frames 15 .* use frames 12 or 16$"):
        vae.enable_tiling(frames=15)
    assert vae.tiles is None
    vae.enable_tiling(frames=24)
    assert np.array_equal(vae.encode(video).mean.asnumpy(), whole)
    vae.disable_frame_tiles()
    vae.enable_tiling()  # which leaves time as it is
    assert vae.frame_tile is None


@pytest.mark.parametrize("family", ["tae", "sd", "cogvideox", "hunyuan"])
def test_tiles_off_the_latents_grid_are_refused(all_vaes, family):
    vae = all_vaes[family]
    with pytest.raises(ValueError, match="33"):
        vae.enable_tiling(height=33, width=33, overlap_pixels=8)
    with pytest.raises(ValueError, match="overlap"):
        vae.enable_tiling(height=32, width=32, overlap_pixels=9)


def test_tiles_of_2d_vaes_are_square(all_vaes):
    with pytest.raises(ValueError, match=r"32x64 pixels: .* square"):
        all_vaes["sd"].enable_tiling(height=32, width=64)


def test_default_tiles_are_the_configs(new_vae):
    vae = new_vae("cogvideox")
    vae.config.update(sample_height=480, sample_width=720)
    vae.enable_tiling()
    assert vae.tiles == ((240, 200), (360, 288))  # overlaps of 5 and 9 latent pixels, as diffusers
    vae.config.update(sample_height=64, sample_width=96)
    vae.enable_tiling()
    assert vae.tiles == ((32, 24), (48, 40))  # 1/6 of 32 pixels is less than a latent pixel


@pytest.mark.parametrize(
    ("size", "parts", "expected"),
    [
        (240, 6, (240, 40)),  # CogVideoX's own sizes are whole latents as they are
        (360, 5, (360, 72)),
        (32, 6, (32, 8)),
        (50, 5, (48, 8)),
        (5, 4, (8, 0)),
    ],
)
def test_default_tiles_are_whole_latents(size, parts, expected):
    assert default_tile(size, parts, 8) == expected


def test_tiling_without_sizes_works_for_small_configs(new_vae):
    """A sixth of a tile of 32 pixels, or a fifth of one of 48, is not a whole number of latents."""
    vae = new_vae("cogvideox")
    vae.config.update(sample_height=64, sample_width=96)
    vae.enable_tiling()
    latent = vae.encode(np.zeros((1, 3, 1, 64, 96), np.float32)).mode()
    assert latent.shape == (1, 4, 1, 8, 12)
    assert vae.decode(latent).shape == (1, 3, 1, 64, 96)


def test_tiles_of_the_tae(all_vaes):
    vae = all_vaes["tae"]
    video = np.random.default_rng(0).uniform(-1, 1, (1, 3, 8, 16, 16)).astype(np.float32)
    whole = vae.encode(video).mean.asnumpy()
    vae.enable_tiling(frames=4, overlap_frames=2, height=8, width=8, overlap_pixels=4)
    tiled = vae.encode(video).mean.asnumpy()
    assert relative_error(tiled, whole) > 0.01
    vae.enable_tiling(frames=8, overlap_frames=4, height=16, width=16, overlap_pixels=4)
    one_tile = vae.encode(video).mean.asnumpy()
    vae.disable_tiling()
    np.testing.assert_allclose(one_tile, whole, rtol=0, atol=1e-6)
    assert np.array_equal(vae.encode(video).mean.asnumpy(), whole)
