"""The whole TAE: shapes, modes, options, precision, weights; with tiny configs."""

import re
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mg.models.tae.tae import TAE_CONFIG, TemporalAutoencoder
from mg.weights.checkpoint_file import write_weights

FIXTURES = Path(__file__).parents[1] / "fixtures"
# As the full size, 8 times smaller along each axis, but narrow.
FOUR_LEVELS = {"ch": 32, "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1}

pynative = pytest.mark.usefixtures("pynative_mode")


def reconstruct(tae, video):
    z, _, _ = tae.encode(video, seed=0)
    return tae.decode(z, video.shape[2]).asnumpy()


def assert_close(actual, expected, tolerance):
    """Within `tolerance` of the largest value."""
    assert actual.shape == expected.shape and np.isfinite(actual).all()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


# -- shapes --------------------------------------------------------------------------------------


@pynative
def test_shape_law(make_tae, make_video):
    tae = make_tae(base=FOUR_LEVELS)
    for batch, frames in ((1, 1), (1, 2), (2, 5), (1, 8), (1, 9)):
        video = make_video(frames, 8, 16, batch=batch)
        z, mean, logvar = tae.encode(video, seed=0)
        num_latents = -(-frames // 8)
        assert z.shape == mean.shape == logvar.shape == (batch, 16, num_latents, 1, 2)
        assert z.dtype == mean.dtype == logvar.dtype == ms.float32
        decoded = tae.decode(z)
        assert decoded.shape == (batch, 3, 8 * num_latents, 8, 16) and decoded.dtype == ms.float32
        assert tae(video).shape == video.shape
        assert np.isfinite(decoded.asnumpy()).all()


@pynative
@pytest.mark.parametrize(
    ("changes", "frames", "latent"),
    [
        ({"temporal_downsample_level": [], "temporal_upsample_level": []}, 3, (3, 4, 6)),
        ({"temporal_downsample_level": [1, 0], "temporal_upsample_level": [0, 1]}, 5, (2, 4, 6)),
        ({"temporal_downsample_level": [1], "temporal_upsample_level": [0]}, 5, (3, 4, 6)),
        ({"ch_mult": [1], "temporal_upsample_level": [0]}, 3, (2, 8, 12)),
        ({"ch_mult": [1, 2, 1], "temporal_upsample_level": [2]}, 4, (2, 2, 3)),
    ],
)
def test_other_levels(make_tae, make_video, changes, frames, latent):
    tae, video = make_tae(changes), make_video(frames)
    assert tae.encode(video, seed=0)[0].shape == (1, 4, *latent)
    assert reconstruct(tae, video).shape == video.shape


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 4, 100, 64), "height 100 is not a multiple of 8; resize or crop to 96 or 104"),
        ((1, 3, 4, 64, 63), "width 63 is not a multiple of 8; resize or crop to 56 or 64"),
        ((1, 3, 4, 64, 5), "width 5 is not a multiple of 8; resize or crop to 8"),
        ((3, 4, 64, 64), r"expected a video \(batch, 3, frames, .*got \(3, 4, 64, 64\)"),
        ((1, 4, 64, 64, 3), r"expected a video \(batch, 3, frames, height, width\), got"),
        ((1, 3, 0, 64, 64), "expected a video"),
    ],
)
def test_illegal_videos(shape, message):
    tae = TemporalAutoencoder(FOUR_LEVELS)
    video = ms.ops.zeros(shape)
    for call in (tae, tae.encode):
        with pytest.raises(ValueError, match=message):
            call(video)


@pynative
def test_decode_keeps_the_frames_that_are_asked_for(make_tae):
    tae = make_tae()
    z = Tensor(np.random.default_rng(0).standard_normal((1, 4, 3, 4, 4)).astype(np.float32))
    every = tae.decode(z).asnumpy()
    assert every.shape == (1, 3, 6, 8, 8)
    for num_frames in (1, 5, 6):
        video = tae.decode(z, num_target_frames=num_frames).asnumpy()
        np.testing.assert_array_equal(video, every[:, :, :num_frames])
    np.testing.assert_array_equal(tae.decode(z, num_frames=5).asnumpy(), every[:, :, :5])
    with pytest.raises(ValueError, match="num_frames and num_target_frames are the same; give one"):
        tae.decode(z, 5, num_frames=5)
    for wrong in (0, 7, -1):
        message = f"num_target_frames={wrong}, but a latent of 3 frames decodes to 1..6 frames"
        with pytest.raises(ValueError, match=message):
            tae.decode(z, wrong)
    with pytest.raises(ValueError, match=r"expected a latent \(batch, 4, .*got \(1, 16, 3, 4, 4\)"):
        tae.decode(ms.ops.zeros((1, 16, 3, 4, 4)))


# -- sampling ------------------------------------------------------------------------------------


@pynative
def test_sampling(make_tae, make_video):
    tae, video = make_tae(), make_video(4)
    z, mean, logvar = (part.asnumpy() for part in tae.encode(video, seed=7))
    again, other, fresh = (tae.encode(video, seed=seed)[0].asnumpy() for seed in (7, 8, None))
    np.testing.assert_array_equal(z, again)
    assert np.abs(z - other).max() > 0.1 and np.abs(z - fresh).max() > 0.1
    noise = np.random.default_rng(7).standard_normal(mean.shape, np.float32)
    drawn = np.exp(0.5 * logvar) * noise
    np.testing.assert_allclose(z, mean + drawn, atol=1e-5 * np.abs(drawn).max())
    tae.sample_deterministic = True
    np.testing.assert_array_equal(tae.encode(video)[0].asnumpy(), mean)
    # Calling the network decodes the mean, or a sample with the noise that it is given.
    np.testing.assert_allclose(
        tae(video).asnumpy(), tae.decode(Tensor(mean), 4).asnumpy(), atol=1e-6
    )
    sampled = tae(video, Tensor(noise)).asnumpy()
    np.testing.assert_allclose(sampled, tae.decode(Tensor(z), 4).asnumpy(), atol=1e-4)


@pynative
def test_logvar_is_clamped(make_tae, make_video):
    tae, video = make_tae(), make_video(2)
    bias = tae.encoder.conv_out.conv_temp.bias
    bias.set_data(Tensor(np.array([0] * 4 + [-1e6, 1e6, 0, 0], np.float32)))
    _, mean, logvar = (part.asnumpy() for part in tae.encode(video, seed=0))
    assert np.abs(mean).max() < 100
    assert (logvar[:, 0] == -30).all() and (logvar[:, 1] == 20).all()
    assert (np.abs(logvar[:, 2:]) < 20).all()


# -- options of the config -----------------------------------------------------------------------


@pynative
def test_without_double_z_there_is_no_variance(make_tae, make_video):
    tae = make_tae({"double_z": False})
    assert tae.encoder.conv_out.conv_spat.weight.shape[0] == 4
    z, mean, logvar = (part.asnumpy() for part in tae.encode(make_video(3), seed=0))
    assert mean.shape == (1, 4, 2, 4, 6) and (logvar == -30).all()
    np.testing.assert_allclose(z, mean, atol=1e-5)


@pynative
def test_quant_convs(make_tae, make_video, tiny_config):
    video, plain = make_video(3, batch=2), make_tae()
    tae = TemporalAutoencoder({**tiny_config, "use_quant_conv": True, "use_post_quant_conv": True})
    assert tae.quant_conv.weight.shape == (8, 8, 1, 1)
    assert tae.post_quant_conv.weight.shape == (4, 4, 1, 1)
    added = {
        f"{name}.{part}": np.eye(size, dtype=np.float32).reshape(size, size, 1, 1)
        if part == "weight"
        else np.zeros(size, np.float32)
        for name, size in (("quant_conv", 8), ("post_quant_conv", 4))
        for part in ("weight", "bias")
    }
    tae.load_tensors({**plain.tensors(), **added})
    expected_z, expected = plain.encode(video, seed=0)[0].asnumpy(), reconstruct(plain, video)
    assert_close(tae.encode(video, seed=0)[0].asnumpy(), expected_z, 1e-6)
    assert_close(reconstruct(tae, video), expected, 1e-5)
    # Between the moments and the encoder: a bias of the first four moves the mean alone.
    bias = np.array([1, 2, 3, 4, 0, 0, 0, 0], np.float32)
    tae.load_tensors({**plain.tensors(), **added, "quant_conv.bias": bias})
    moved = tae.encode(video, seed=0)[0].asnumpy() - expected_z
    np.testing.assert_allclose(moved - bias[:4].reshape(4, 1, 1, 1), 0, atol=1e-5)
    # Before the decoder: swapped latent channels are swapped back.
    swap = added["post_quant_conv.weight"][::-1].copy()
    tae.load_tensors({**plain.tensors(), **added, "post_quant_conv.weight": swap})
    z = Tensor(expected_z)
    swapped = Tensor(np.ascontiguousarray(expected_z[:, ::-1]))
    assert_close(tae.decode(swapped).asnumpy(), plain.decode(z).asnumpy(), 1e-5)


@pynative
def test_attention_in_the_levels(make_tae, make_video):
    changes = {"resolution": 32, "attn_resolutions": [16]}
    tae, plain, video = make_tae(changes), make_tae(), make_video(3)
    added = {name for name in tae.tensors() if name not in plain.tensors()}
    places = {re.match(r"(.*\.attn\.\d+\.[01])\.", name)[1] for name in added}
    assert places == {
        f"{place}.attn.{block}.{kind}"
        for place, blocks in (("encoder.down.1", 1), ("decoder.up.1", 2))
        for block in range(blocks)
        for kind in (0, 1)
    }
    with_attention = reconstruct(tae, video)
    silent = {
        name: np.zeros_like(tensor) if ".attn." in name and ".proj_out." in name else tensor
        for name, tensor in tae.tensors().items()
    }
    tae.load_tensors(silent)
    plain.load_tensors({name: silent[name] for name in plain.tensors()})
    without = reconstruct(tae, video)
    np.testing.assert_array_equal(without, reconstruct(plain, video))
    assert np.abs(with_attention - without).max() > 1e-2


@pynative
def test_spatial_attention_only(make_tae, make_video, tiny_config):
    """Frames meet only in the temporal convolutions: here, made centric, nowhere."""
    levels = {"temporal_downsample_level": [], "temporal_upsample_level": []}
    tae = make_tae({"attn_type": "spat_only", **levels})
    names = tae.tensors()
    assert not [name for name in names if "attn_1.1." in name]
    assert [name for name in names if "attn_1.0." in name]
    assert reconstruct(tae, make_video(3)).shape == (1, 3, 3, 8, 12)
    assert len(names) == len(TemporalAutoencoder({**tiny_config, **levels}).tensors()) - 2 * 10


@pynative
def test_dropout_acts_in_training_only(make_tae, make_video):
    tae, plain, video = make_tae({"dropout": 0.5}), make_tae(), make_video(2)
    assert tae.tensors().keys() == plain.tensors().keys()
    tae.set_train(False)
    np.testing.assert_array_equal(tae(video).asnumpy(), plain(video).asnumpy())
    tae.set_train()
    first, second = tae(video).asnumpy(), tae(video).asnumpy()
    assert np.abs(first - second).max() > 1e-2


@pynative
def test_number_of_channels(make_tae, make_video):
    tae = make_tae({"in_channels": 5, "out_ch": 2})
    video = ms.ops.ones((1, 5, 2, 4, 4))
    assert tae.decode(tae.encode(video)[0]).shape == (1, 2, 2, 4, 4)
    with pytest.raises(ValueError, match=r"expected a video \(batch, 5,"):
        tae.encode(make_video(2))


def test_config_of_the_network(tiny_config):
    assert TemporalAutoencoder(tiny_config).config.num_res_blocks == 1
    with pytest.raises(ValueError, match="did you mean 'num_res_blocks'"):
        TemporalAutoencoder({**tiny_config, "num_resblocks": 1})
    with pytest.raises(ValueError, match=r"ch=40 .*multiples of"):
        TemporalAutoencoder({**tiny_config, "ch": 40})


# -- precision -----------------------------------------------------------------------------------


@pynative
def test_half_precision(make_tae, make_video):
    """float16 has 11 bits: 5e-4 per operation. Measured: 3e-3 of the largest value."""
    tae, video = make_tae(sample_deterministic=True), make_video(4)
    z, _, logvar = tae.encode(video)
    frames = tae.decode(z).asnumpy()
    half = make_tae(sample_deterministic=True, encode_dtype="float16", decode_dtype="float16")
    half_z, _, half_logvar = half.encode(video)
    half_frames = half.decode(z)
    assert half_z.dtype == half_logvar.dtype == half_frames.dtype == ms.float32
    for actual, expected in (
        (half_z.asnumpy(), z.asnumpy()),
        (half_logvar.asnumpy(), logvar.asnumpy()),
        (half_frames.asnumpy(), frames),
    ):
        assert_close(actual, expected, 1e-2)
        assert np.abs(actual - expected).max() > 1e-5  # it did compute in half precision
    # The two halves are set apart.
    mixed = make_tae(sample_deterministic=True, decode_dtype="float16")
    np.testing.assert_array_equal(mixed.encode(video)[0].asnumpy(), z.asnumpy())
    np.testing.assert_array_equal(mixed.decode(z).asnumpy(), half_frames.asnumpy())


@pytest.mark.parametrize("argument", ["encode_dtype", "decode_dtype"])
def test_refused_precisions(tiny_config, argument):
    with pytest.raises(ValueError, match=f"{argument}=bfloat16.*CPU.*float32 or float16"):
        TemporalAutoencoder(tiny_config, **{argument: "bfloat16"})
    with pytest.raises(ValueError, match=f"{argument}='fp8'; expected one of .*'float16'"):
        TemporalAutoencoder(tiny_config, **{argument: "fp8"})


# -- parameters and weight files -----------------------------------------------------------------


def test_parameters_at_full_size_are_the_published_ones():
    lines = (FIXTURES / "published_tae_names.txt").read_text().splitlines()
    published = dict(line.split(" ", 1) for line in lines if ".temb_proj." not in line)
    tae = TemporalAutoencoder(TAE_CONFIG)
    shapes = {p.name: str(tuple(p.shape)) for p in tae.get_parameters()}
    assert shapes == published
    assert [name for name, _ in tae.parameters_and_names()] == [
        p.name for p in tae.get_parameters()
    ]
    assert sum(p.size for p in tae.get_parameters()) == 114_472_801


@pynative
@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_published_weight_files(make_tae, make_video, tiny_config, tmp_path, suffix):
    """Names carry prefixes, and projections of a time embedding that no layer uses."""
    tae, video = make_tae(), make_video(3)
    tensors = {f"autoencoder._backbone.{name}": array for name, array in tae.tensors().items()}
    for place in ("encoder.down.0.block.0", "decoder.mid.block_1"):
        name = f"autoencoder._backbone.{place}.temb_proj"
        tensors |= {
            f"{name}.weight": np.ones((32, 512), np.float32),
            f"{name}.bias": np.ones(32, "f4"),
        }
    path = tmp_path / f"tae.{suffix}"
    write_weights(path, tensors)
    loaded = TemporalAutoencoder(tiny_config, pretrained=path)
    assert loaded.tensors().keys() == tae.tensors().keys()
    for part, expected in zip(loaded.encode(video, seed=0), tae.encode(video, seed=0), strict=True):
        np.testing.assert_array_equal(part.asnumpy(), expected.asnumpy())
    np.testing.assert_array_equal(loaded(video).asnumpy(), tae(video).asnumpy())


def test_tensors_of_another_network_are_refused(make_tae, tiny_config):
    tensors = make_tae().tensors()
    with pytest.raises(ValueError, match=r"do not fit the config: .*z_channels"):
        TemporalAutoencoder({**tiny_config, "z_channels": 8}).load_tensors(tensors)
    missing = tensors.pop("decoder.conv_out.conv_temp.bias")
    with pytest.raises(ValueError, match=r"decoder\.conv_out\.conv_temp\.bias"):
        make_tae().load_tensors(tensors)
    extra = {**tensors, "decoder.conv_out.conv_temp.bias": missing, "banana": missing}
    with pytest.raises(ValueError, match="banana"):
        make_tae().load_tensors(extra)
