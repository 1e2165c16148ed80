"""Blocks of pixels and frames as channels, around the layers of the TAE."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mg.data.transforms import from_model_range, to_model_range
from mg.models.layers.convolution import Conv2_5d
from mg.models.layers.frames import fold_frames
from mg.models.layers.patches import fold_patches, unfold_patches
from mg.models.tae.config import TAEConfig
from mg.models.tae.layers import ResnetBlock
from mg.models.tae.memory import estimated_memory_gb
from mg.models.tae.tae import TemporalAutoencoder
from mg.pipelines.streaming import decode_latents, encode_frames
from mg.tiling.sizes import Tiling
from mg.training.autoencoder.autoencoder_config import LossSettings
from mg.training.autoencoder.autoencoder_loss import AutoencoderLoss
from mg.weights.safetensors_file import write_safetensors
from mg.weights.stored_config import config_metadata
from mg.weights.tae_layers import tae_shapes
from tests.tae_files import read_tae

pytestmark = pytest.mark.usefixtures("pynative_mode")

# As the full size, 8 times smaller along each axis, but with two levels.
PATCHED = {
    "ch": 8,
    "ch_mult": [1, 1],
    "num_res_blocks": 1,
    "norm_groups": 4,
    "attn_type": "spat_only",
    "patch_size": 4,
    "patch_size_t": 4,
    "temporal_downsample_level": [0],
    "temporal_upsample_level": [1],
    "temporal_padding": "replicate",
}


@pytest.fixture
def tae(make_tae):
    return make_tae(base=PATCHED)


def video_of(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5])
def test_unfolding_is_the_inverse_and_the_last_frame_fills_up(frames):
    video = video_of(2, 3, frames, 8, 12)
    x, num_patches = fold_patches(Tensor(video), 2, 4)
    assert num_patches == -(-frames // 2) and x.shape == (2 * num_patches, 96, 2, 3)
    back = unfold_patches(x, num_patches, 2, 4).asnumpy()
    np.testing.assert_array_equal(back[:, :, :frames], video)
    np.testing.assert_array_equal(back[:, :, frames:], video[:, :, -1:][:, :, : frames % 2])


def test_a_pixel_keeps_its_channel_frame_row_and_column():
    video = np.zeros((1, 3, 4, 8, 8), np.float32)
    video[0, 1, 3, 6, 5] = 1  # in the second patch in time, the second row, the second column
    x, _ = fold_patches(Tensor(video), 2, 4)
    channel = ((1 * 2 + 1) * 4 + 2) * 4 + 1
    assert np.argwhere(x.asnumpy()).tolist() == [[1, channel, 1, 1]]


def test_patches_of_one_pixel_are_the_folded_video():
    video = Tensor(video_of(2, 3, 3, 4, 4))
    x, num_frames = fold_patches(video, 1, 1)
    assert num_frames == 3
    np.testing.assert_array_equal(x.asnumpy(), fold_frames(video).asnumpy())
    np.testing.assert_array_equal(unfold_patches(x, 3, 1, 1).asnumpy(), video.asnumpy())


def test_by_default_the_network_has_no_patches(make_tae, make_video, tiny_config):
    assert (TAEConfig().patch_size, TAEConfig().patch_size_t) == (1, 1)
    plain, stated = make_tae(), make_tae({"patch_size": 1, "patch_size_t": 1})
    assert set(plain.tensors()) == set(tae_shapes({**TAEConfig().to_dict(), **tiny_config}))
    video = make_video(3)
    np.testing.assert_array_equal(plain(video).asnumpy(), stated(video).asnumpy())


def test_shape_law(tae):
    assert tae.config.temporal_compression == tae.config.spatial_compression == 8
    for frames in (1, 4, 5, 8, 9, 17):
        video = Tensor(video_of(1, 3, frames, 8, 16))
        z, mean, _ = tae.encode(video, seed=0)
        num_latents = -(-frames // 8)
        assert z.shape == mean.shape == (1, 16, num_latents, 1, 2)
        assert tae.decode(z).shape == (1, 3, 8 * num_latents, 8, 16)
        assert tae.decode(z, frames).shape == tae(video).shape == video.shape


def test_an_image_is_one_frame_to_the_layers(tae, monkeypatch):
    seen = []
    layers = {"conv_in": Conv2_5d, "block": ResnetBlock}
    for name, cell in layers.items():
        construct = cell.construct

        def noted(self, x, num_frames, name=name, construct=construct):
            seen.append((name, x.shape[0], num_frames))
            return construct(self, x, num_frames)

        monkeypatch.setattr(cell, "construct", noted)
    tae.moments(Tensor(video_of(2, 3, 1, 8, 8)))
    assert {name for name, _, _ in seen} == set(layers)
    assert {(images, frames) for _, images, frames in seen} == {(2, 1)}


def test_sizes_between_the_patches_are_refused(tae):
    with pytest.raises(ValueError, match="height 12 is not a multiple of 8; resize or crop to 8"):
        tae.encode(Tensor(video_of(1, 3, 4, 12, 8)))
    with pytest.raises(ValueError, match="patch_size=0; expected a whole number of 1 or more"):
        TAEConfig(patch_size=0)


def test_gradients_go_back_where_the_pixels_came_from():
    video = Tensor(video_of(2, 3, 3, 8, 8))
    weight = video_of(4, 96, 2, 2, seed=1)  # of two patches in time: the last frame counts twice
    gradient = ms.grad(lambda v: (fold_patches(v, 2, 4)[0] * Tensor(weight)).sum())(video).asnumpy()
    frames = unfold_patches(Tensor(weight), 2, 2, 4).asnumpy()
    np.testing.assert_array_equal(gradient[:, :, :2], frames[:, :, :2])
    np.testing.assert_allclose(gradient[:, :, 2], frames[:, :, 2] + frames[:, :, 3], rtol=1e-6)
    x, back = Tensor(weight), Tensor(video_of(2, 3, 4, 8, 8, seed=2))
    gradient = ms.grad(lambda x: (unfold_patches(x, 2, 2, 4) * back).sum())(x).asnumpy()
    np.testing.assert_array_equal(gradient, fold_patches(back, 2, 4)[0].asnumpy())


def test_the_training_loss_leaves_out_the_frames_that_fill_up(tae):
    video = Tensor(video_of(1, 3, 5, 8, 8))
    loss = AutoencoderLoss(tae, LossSettings(perceptual_loss_weight=0.0, kl_loss_weight=0.0))
    noise = Tensor(np.zeros((1, 16, 1, 1, 1), np.float32))
    value, _, frames = loss(video, noise, Tensor(np.zeros(1, np.int32)))
    expected = tae(video).asnumpy()
    np.testing.assert_allclose(frames.asnumpy(), expected, atol=1e-5)
    assert float(value.asnumpy()) == pytest.approx(
        np.abs(expected - video.asnumpy()).mean(), rel=1e-4
    )


def test_one_tile_is_untiled_and_streams_are_tiles(make_tae):
    tiling = Tiling(frames=16, overlap_frames=8, height=0, width=0, overlap_pixels=0)
    tiled = make_tae(base=PATCHED, use_tile=True, tiling=tiling, sample_deterministic=True)
    whole = make_tae(base=PATCHED, sample_deterministic=True)
    short, long = video_of(1, 3, 13, 8, 8), video_of(1, 3, 19, 8, 8)
    np.testing.assert_array_equal(
        tiled.encode(Tensor(short))[0].asnumpy(), whole.encode(Tensor(short))[0].asnumpy()
    )
    latent = tiled.encode(Tensor(long))[0].asnumpy()  # tiles of 16 and 3 frames
    assert latent.shape[2] == 3
    frames = from_model_range(long[0])
    _, mean, _ = tiled.encode(Tensor(to_model_range(frames)[np.newaxis]))
    pieces = [piece for piece, _ in encode_frames(tiled, iter(frames))]
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), mean.asnumpy()[0])
    decoded = tiled.decode(Tensor(latent), 19).asnumpy()
    pieces = decode_latents(tiled, [latent[0, :, :2], latent[0, :, 2:]], 19)
    streamed = np.concatenate(list(pieces), axis=1)
    np.testing.assert_allclose(streamed, decoded[0], atol=1e-6)


def test_weights_and_config_come_back_from_a_file(tae, tmp_path):
    path = tmp_path / "tae.safetensors"
    config = tae.config.to_dict()
    write_safetensors(path, tae.tensors(), metadata=config_metadata(config))
    again = TemporalAutoencoder(pretrained=path, sample_deterministic=True)
    assert again.config == tae.config
    assert {n: a.shape for n, a in tae.tensors().items()} == tae_shapes(config)
    video = Tensor(video_of(1, 3, 4, 8, 8))
    np.testing.assert_array_equal(again.encode(video)[1].asnumpy(), tae.encode(video)[1].asnumpy())
    with pytest.raises(ValueError, match="patch_size_t: the file says 4, the config says 16"):
        read_tae(path, config={**config, "patch_size": 2, "patch_size_t": 16})
    with pytest.raises(ValueError, match="in_channels: the file says 192, the config says 48"):
        read_tae(path, config={**config, "patch_size_t": 1})


def test_tiles_are_chosen_for_what_patches_take():
    patched, plain = (
        TAEConfig(
            ch=128,
            ch_mult=(1, 2),
            patch_size=patch,
            temporal_upsample_level=(),
            temporal_downsample_level=(),
        )
        for patch in (4, 1)
    )
    more = [estimated_memory_gb(config, 32, 256, 256) - 0.9 for config in (patched, plain)]
    assert more[1] == pytest.approx(16 * more[0])
