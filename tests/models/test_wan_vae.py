"""Wan's VAEs: numbers, gradients and tiles of diffusers, clips in pieces, names, configs."""

import dataclasses
import json
from fractions import Fraction
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops
from mindspore.nn.utils import no_init_parameters

from mg.models.layers.frames import fold_frames, unfold_frames
from mg.models.wan_vae.config import WAN22_STATISTICS, WanVAEConfig
from mg.models.wan_vae.network import WanVAE
from mg.models.wan_vae.rearranging import patchify, unpatchify
from mg.vaes.blended_tiles import Tile, coded_in_tiles
from mg.vaes.wan import WanVAE as WanVAEOfUsers
from mg.weights.safetensors_file import read_safetensors

FIXTURES = Path(__file__).parents[1] / "fixtures" / "wan"
VERSIONS = ["wan21", "wan22"]
WAN22 = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    **WAN22_STATISTICS,
}


def read_config(version):
    return json.loads((FIXTURES / version / "config.json").read_text(encoding="utf-8"))


def read_tensors(version):
    tensors = read_safetensors(FIXTURES / version / "diffusion_pytorch_model.safetensors")
    return {name: np.float32(array) for name, array in tensors.items()}


def loaded(version, **options):
    network = WanVAE(WanVAEConfig.from_mapping(read_config(version)), **options)
    network.load_tensors(read_tensors(version))
    return network


@pytest.fixture(scope="module")
def recorded():
    """Return what diffusers made of each version."""
    arrays = {}
    for version in VERSIONS:
        with np.load(FIXTURES / f"{version}.npz", allow_pickle=False) as file:
            arrays[version] = {key: file[key] for key in file.files}
    return arrays


@pytest.fixture(scope="module")
def networks():
    """Return the networks, which code clips in one piece."""
    return {version: loaded(version, framewise=False) for version in VERSIONS}


def assert_near(found, right, share=2e-5):
    """Assert an error of at most a share of the largest number (or of 1)."""
    found = found.asnumpy() if isinstance(found, Tensor) else found
    np.testing.assert_allclose(found, right, rtol=0, atol=share * max(1, np.abs(right).max()))


@pytest.mark.parametrize("version", VERSIONS)
def test_clips_have_the_recorded_latents_and_frames(version, recorded, networks, pynative_mode):
    reference, network = recorded[version], networks[version]
    for num_frames in (1, 17):
        mean, logvar = network.moments(Tensor(reference["i:x"][:, :, :num_frames]))
        frames = network.frames_from(mean)
        # What follows a clip does not matter for it.
        for length in [n for n in (1, 5, 9, 17) if n <= num_frames]:
            num_latents = 1 + length // 4
            assert_near(mean[:, :, :num_latents], reference[f"o:mean_T{length}"])
            assert_near(logvar[:, :, :num_latents], reference[f"o:logvar_T{length}"])
            assert_near(frames[:, :, :length], reference[f"o:y_T{length}"])


@pytest.mark.parametrize("version", VERSIONS)
def test_latents_decode_clipped_and_not(version, recorded, networks, pynative_mode):
    reference, network = recorded[version], networks[version]
    z = Tensor(reference["i:z"])
    assert_near(network.frames_from(z), reference["o:dec_z"])
    assert_near(network.frames_from(z[:, :, :1]), reference["o:dec_z1"])
    assert_near(network.scale(reference["i:z"]), reference["o:scaled_z"])
    assert_near(network.unscale(reference["i:z"]), reference["o:unscaled_z"])
    louder = read_tensors(version)
    for name in ("decoder.conv_out.weight", "decoder.conv_out.bias"):
        louder[name] = louder[name] * 8
    clipping = WanVAE(network.config, clip_output=True)
    clipping.load_tensors(louder)
    frames = clipping.decode(z[:, :, :1]).asnumpy()
    assert_near(frames, reference["o:dec_z1_x8"])
    assert np.mean(np.abs(frames) == 1) > 0.05
    by_config = dataclasses.replace(network.config, clip_output=True)
    vae = WanVAEOfUsers(WanVAE(by_config), {})
    assert vae.clip_output and not WanVAE(by_config, clip_output=False).clip_output
    vae.network.load_tensors(louder)
    np.testing.assert_array_equal(vae.decode(z[:, :, :1]).asnumpy(), frames)
    vae.clip_output = False
    assert np.abs(vae.decode(z[:, :, :1]).asnumpy()).max() > 1
    clipping.set_train(True)  # clipped frames would have no gradient
    assert np.abs(clipping.decode(z[:, :, :1]).asnumpy()).max() > 1
    clipping.set_train(False)
    clipping.clip_output = False
    unclipped = clipping.decode(z[:, :, :1]).asnumpy()
    np.testing.assert_array_equal(np.clip(unclipped, -1, 1), frames)
    assert np.abs(unclipped).max() > 1


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("mode", ["pynative_mode", "graph_mode"])
def test_the_loss_and_every_gradient_are_the_recorded_ones(
    version, mode, recorded, networks, request
):
    request.getfixturevalue(mode)
    reference, network = recorded[version], networks[version]
    num_frames = int(reference["loss_T"])
    parameters = network.trainable_params()
    names = [parameter.name for parameter in parameters]

    def loss(video):
        mean, logvar = network.moments(video)
        frames = network.frames_from(mean, video.shape[2])
        value = ops.square(frames - video).mean() + 0.1 * ops.square(logvar).mean()
        return value, mean, logvar, frames

    function = ms.value_and_grad(loss, None, ms.ParameterTuple(parameters), has_aux=True)
    video = Tensor(reference["i:x"][:, :, :num_frames])
    (value, *outputs), gradients = function(video)
    assert float(value.asnumpy()) == pytest.approx(float(reference["loss"]), rel=1e-5)
    for name, output in zip(("mean", "logvar", "y"), outputs, strict=True):
        assert_near(output, reference[f"o:{name}_T{num_frames}"])
    assert {f"g:{name}" for name in names} == {key for key in reference if key[:2] == "g:"}
    largest = max(np.abs(reference[f"g:{name}"]).max() for name in names)
    for name, gradient in zip(names, gradients, strict=True):
        right = reference[f"g:{name}"]
        tolerance = 2e-3 * np.abs(right).max() + 1e-5 * largest
        np.testing.assert_allclose(gradient.asnumpy(), right, rtol=0, atol=tolerance, err_msg=name)
    assert [parameter.name for parameter in network.trainable_params()] == names


@pytest.mark.parametrize("version", VERSIONS)
def test_tiles_are_those_of_diffusers(version, recorded, networks, pynative_mode):
    reference, network = recorded[version], networks[version]
    sizes = json.loads(str(reference["tile"]))
    factor, patch = network.spec.h, network.config.patch
    tiles = Tile(sizes["min_h"], sizes["stride_h"]), Tile(sizes["min_w"], sizes["stride_w"])

    def moments(video):
        return ops.concat(network.moments(video), 1)

    found = coded_in_tiles(moments, Tensor(reference["i:tile_x"]), tiles, Fraction(1, factor))
    expected = np.concatenate([reference["o:tile_mean"], reference["o:tile_logvar"]], 1)
    assert_near(found, expected, 1e-4)  # recorded with 13 bits
    tiles = tuple(tile.times(Fraction(1, factor)) for tile in tiles)
    z = Tensor(reference["i:tile_z"])
    found = coded_in_tiles(network.frames_from, z, tiles, Fraction(factor))
    assert_near(found, reference.get("o:tile_y_px", reference["o:tile_y"]), 1e-4)
    if patch == 1:
        return

    def patches(z):
        frames = network.frames_from(z)
        return unfold_frames(patchify(fold_frames(frames), patch), frames.shape[2])

    # diffusers blends patches, with one weight for all pixels of each.
    found = coded_in_tiles(patches, z, tiles, Fraction(factor // patch))
    found = unfold_frames(unpatchify(fold_frames(found), patch), found.shape[2])
    assert_near(found, reference["o:tile_y"], 1e-4)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_clip_in_pieces_is_the_clip_in_one(version, recorded, networks, pynative_mode):
    reference, network = recorded[version], networks[version]
    clip = reference["i:x"][:, :, :13]
    video = Tensor(np.concatenate([clip, clip[:, :, ::-1]]))  # of two clips, neither sees the other
    mean, logvar = network.moments(video)
    frames = network.frames_from(mean)
    found, past, sizes = [], (), []
    for start, stop in ((0, 1), (1, 5), (5, 13)):
        *moments, past = network.encode_piece(video[:, :, start:stop], past)
        found.append(moments)
        sizes.append([kept.shape for kept in past])
    assert_near(ops.concat([piece[0] for piece in found], 2), mean.asnumpy())
    assert_near(ops.concat([piece[1] for piece in found], 2), logvar.asnumpy())
    assert sizes[0] == sizes[1] == sizes[2]  # what is kept does not grow
    found, past, sizes = [], (), []
    for start, stop in ((0, 2), (2, 3), (3, 4)):
        piece, past = network.decode_piece(mean[:, :, start:stop], past)
        found.append(piece)
        sizes.append([kept.shape for kept in past])
    assert_near(ops.concat(found, 2), frames.asnumpy())
    assert sizes[0] == sizes[1] == sizes[2]


def test_coding_takes_pieces_unless_in_training(recorded, monkeypatch, pynative_mode):
    reference, network = recorded["wan21"], loaded("wan21")
    seen = []
    encode_piece, decode_piece = network.encode_piece, network.decode_piece

    def encode(video, *past, **options):
        seen.append(video.shape[2])
        return encode_piece(video, *past, **options)

    def decode(z, *past, **options):
        seen.append(z.shape[2])
        return decode_piece(z, *past, **options)

    monkeypatch.setattr(network, "encode_piece", encode)
    monkeypatch.setattr(network, "decode_piece", decode)
    video = Tensor(reference["i:x"][:, :, :9])
    _, mean, logvar = network.encode(video)
    assert_near(mean, reference["o:mean_T9"])
    assert_near(logvar, reference["o:logvar_T9"])
    assert_near(network.decode(mean), reference["o:y_T9"])
    assert seen == [1, 4, 4, 1, 1, 1]
    network.set_train()
    network.frames_from(network.moments(video)[0])
    assert seen[6:] == [9, 3]


def test_the_last_convolution_stands_apart(recorded, networks, pynative_mode):
    reference, network = recorded["wan22"], networks["wan22"]
    features, num_frames = network.features(Tensor(reference["i:z"]))
    frames = network.frames_of_features(features, num_frames, network.last_weight)
    assert num_frames == 5
    assert_near(frames, reference["o:dec_z"])
    zeros = ops.zeros_like(network.last_weight)
    frames = network.frames_of_features(features, num_frames, zeros).asnumpy()
    bias = network.decoder.conv_out.bias.asnumpy()[[0, 4, 8]]  # of each patch's first pixel
    np.testing.assert_allclose(frames[0, :, 3, 0, 0], bias, atol=1e-6)


def test_patches_are_ordered_by_channel_column_and_row():
    pixels = np.arange(2 * 4 * 6, dtype=np.float32).reshape(1, 2, 4, 6)
    patches = patchify(Tensor(pixels), 2)
    assert patches.shape == (1, 8, 2, 3)
    assert patches.asnumpy()[0, :4, 0, 0].tolist() == [0, 6, 1, 7]
    np.testing.assert_array_equal(unpatchify(patches, 2).asnumpy(), pixels)


@pytest.mark.parametrize(("version", "config"), [("wan21", {}), ("wan22", WAN22)])
def test_names_and_shapes_are_those_of_the_published_weights(version, config):
    published = json.loads((FIXTURES / f"{version}_names.json").read_text(encoding="utf-8"))
    published = {name: tuple(shape) for name, shape in published.values()}
    config = WanVAEConfig.from_mapping(config)
    with no_init_parameters():
        network = WanVAE(config)
    found = {name: tuple(p.shape) for name, p in network.parameters_and_names()}
    assert found == published
    assert WanVAEConfig.from_shapes(published) == config
    assert config.spec.latent_shape(81, 480, 832) == (
        (16, 21, 60, 104) if version == "wan21" else (48, 21, 30, 52)
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_configs_are_written_as_they_are_read(version):
    stored = read_config(version)
    config = WanVAEConfig.from_mapping(stored)
    written = json.loads(json.dumps(config.to_dict()))
    assert written == {name: value for name, value in stored.items() if name[0] != "_"}
    assert WanVAEConfig.from_mapping(written) == config


def test_configs_before_wan_22_and_with_channels_of_pixels_are_read():
    stored = read_config("wan21")
    later = ("is_residual", "in_channels", "out_channels", "patch_size", "decoder_base_dim")
    former = {name: value for name, value in stored.items() if name not in later}
    assert WanVAEConfig.from_mapping(former) == WanVAEConfig.from_mapping(stored)
    stored = read_config("wan22")
    of_pixels = {**stored, "in_channels": 3, "out_channels": 3, "clip_output": False}
    assert WanVAEConfig.from_mapping(of_pixels) == WanVAEConfig.from_mapping(stored)


def test_a_config_may_ask_for_clipped_frames():
    config = WanVAEConfig.from_mapping({**read_config("wan22"), "clip_output": True})
    assert config.clip_output and config.to_dict()["clip_output"] is True
    assert WanVAEConfig.from_mapping(config.to_dict()) == config
    assert "clip_output" not in WanVAEConfig().to_dict()
    with pytest.raises(ValueError, match="clip_output=1; expected true or false"):
        WanVAEConfig(clip_output=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_dim": 0}, "base_dim=0; expected a whole number of 1 or more"),
        ({"dim_mult": 4}, "dim_mult=4; expected a list of whole numbers"),
        ({"is_residual": 1}, "is_residual=1; expected true or false"),
        ({"patch_size": 2, "in_channels": 6}, "in_channels=6; .* patch_size=2 have 12"),
        ({"temperal_downsample": [True]}, "expected 3 values, one between each two levels"),
        ({"temperal_downsample": [True] * 3}, "at most two are true"),
        ({"z_dim": 8}, "latents_mean has 16 values; expected one for each of the z_dim=8"),
        ({"latents_std": [0.0] * 16}, "no standard deviation of 0"),
        ({"attn_scales": [1.0]}, r"attn_scales=\[1.0\]; supported is \[\] alone"),
        (
            {"base_dim": 1, "dim_mult": [1] * 4},
            "each level halves its channels, and must have 2 or more",
        ),
        ({"is_residual": True, "dim_mult": [1, 3, 4, 4]}, "cannot take whole channels together"),
    ],
)
def test_what_no_network_can_be_built_from_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        WanVAEConfig.from_mapping(changes)


def test_weights_of_another_structure_are_refused_with_the_fields_that_differ():
    network = loaded("wan21")
    with pytest.raises(ValueError, match="z_dim: the weights say 8, the config says 16"):
        network.load_tensors(read_tensors("wan22"))
    tensors = read_tensors("wan21")
    del tensors["encoder.conv_in.bias"]
    with pytest.raises(ValueError, match=r"1 missing \(encoder.conv_in.bias\)"):
        network.load_tensors(tensors)
