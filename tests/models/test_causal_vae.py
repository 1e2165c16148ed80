"""CausalVideoVAE: reference numbers and gradients, tiles, names, configs, the samplers by hand."""

import dataclasses
import json
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mg.models.causal_vae.blocks import make_attention
from mg.models.causal_vae.config import CausalVAEConfig
from mg.models.causal_vae.names import completed
from mg.models.causal_vae.network import CausalVideoVAE
from mg.models.causal_vae.samplers import make_sampler
from mg.models.layers.frames import fold_frames, unfold_frames
from mg.vaes.causal_vae import CausalVideoVAE as CausalVideoVAEOfUsers
from mg.weights.own_tensors import read_own_tensors
from mg.weights.vae_names import to_diffusers_names
from tests.networks import network_shapes

FIXTURES = Path(__file__).parents[1] / "fixtures"
FOLDER = FIXTURES / "causal_vae"
# With 32 groups, as published, and v1.2 with the modules of v1.1: of the gradients the small ones.
IN_PART = ("v1.0_32_groups", "v1.2_mixed")
VERSIONS = ("v1.0", "v1.1", "v1.2", *IN_PART)
TILES = {
    "v1.0": {"height": 32, "width": 32, "overlap_pixels": 8, "frames": None},
    "v1.1": {"height": 32, "width": 32, "overlap_pixels": 8, "frames": 8},
    "v1.2": {"height": 64, "width": 64, "overlap_pixels": 8, "frames": 8, "latent_frames": 2},
}
# Two levels with most kinds of modules in them.
MIXED = {
    "hidden_size": 4,
    "hidden_size_mult": [1, 2],
    "num_res_blocks": 1,
    "norm_num_groups": 2,
    "encoder_conv_in": "Conv2d",
    "encoder_resnet_blocks": ["ResnetBlock2D", "ResnetBlock3D"],
    "encoder_attention": "AttnBlock3D",
    "encoder_spatial_downsample": ["Downsample", "SpatialDownsample2x"],
    "encoder_temporal_downsample": ["TimeDownsampleRes2x", ""],
    "decoder_resnet_blocks": ["ResnetBlock3D", "ResnetBlock3D"],
    "decoder_attention": "AttnBlock3DFix",
    "decoder_spatial_upsample": ["", "SpatialUpsample2x"],
    "decoder_temporal_upsample": ["", "TimeUpsampleRes2x"],
}


def config_of(version):
    return json.loads((FOLDER / version / "config.json").read_text())


@pytest.fixture(scope="module")
def networks():
    """Return {version: network with the reference weights}; tests leave them as they are."""
    built = {}
    for version in VERSIONS:
        built[version] = CausalVideoVAE(config_of(version))
        built[version].load_tensors(read_own_tensors(FOLDER / version))
    return built


@pytest.fixture(scope="module")
def references():
    return {v: dict(np.load(FOLDER / f"{v}.npz", allow_pickle=False)) for v in VERSIONS}


def assert_near(found, right, share=1e-4):
    assert found.shape == right.shape
    error = np.abs(found.asnumpy() - right).max()
    assert error <= share * max(1, np.abs(right).max())


def coded(network, video):
    """Return the loss of the references, mean, logvar and video, and all gradients by name."""
    named = dict(network.parameters_and_names())

    def loss(video):
        mean, logvar = network.moments(video)
        frames = network.frames_from(mean)
        error = ops.square(frames - video).mean() + 0.1 * ops.square(logvar).mean()
        return error, mean, logvar, frames

    grad = ms.value_and_grad(loss, None, list(named.values()), has_aux=True)
    outputs, gradients = grad(video)
    return outputs, dict(zip(named, (g.asnumpy() for g in gradients), strict=True))


def check_numbers(network, reference):
    """Compare outputs to 1e-4 of the largest, gradients to 2e-3 of the largest of each."""
    outputs, gradients = coded(network, Tensor(reference["i:x"][:, :, :9]))
    for output, key in zip(outputs, ("loss", "o:mean_T9", "o:logvar_T9", "o:y_T9"), strict=True):
        assert_near(output, reference[key])
    right = {key[2:]: array for key, array in reference.items() if key[:2] == "g:"}
    largest = max(np.abs(array).max() for array in right.values())
    for name, array in right.items():
        tolerance = 2e-3 * np.abs(array).max() + 1e-5 * largest
        np.testing.assert_allclose(gradients[name], array, rtol=0, atol=tolerance, err_msg=name)
    return set(right), set(gradients)


@pytest.mark.parametrize("version", VERSIONS)
def test_numbers_and_every_gradient_are_the_references(
    networks, references, version, pynative_mode
):
    right, gradients = check_numbers(networks[version], references[version])
    if version in IN_PART:
        assert len(right) > len(gradients) / 2 and right < gradients
    else:
        assert right == gradients


def test_the_compiled_network_is_the_reference(networks, references):
    before = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        check_numbers(networks["v1.0_32_groups"], references["v1.0_32_groups"])
    finally:
        ms.set_context(mode=before)


@pytest.mark.parametrize("version", VERSIONS)
def test_clips_of_other_lengths_are_the_references(networks, references, version, pynative_mode):
    network, reference = networks[version], references[version]
    for num_frames in (1, 5) if version in IN_PART else (1, 5, 17):
        mean, logvar = network.moments(Tensor(reference["i:x"][:, :, :num_frames]))
        assert_near(mean, reference[f"o:mean_T{num_frames}"])
        assert_near(logvar, reference[f"o:logvar_T{num_frames}"])
        assert_near(network.frames_from(mean), reference[f"o:y_T{num_frames}"])
    z = reference["i:z"]
    assert_near(network.frames_from(Tensor(z)), reference["o:dec_z"])
    assert_near(network.frames_from(Tensor(z[:, :, :1])), reference["o:dec_z1"])


@pytest.mark.parametrize("version", TILES)
def test_tiles_are_the_references(networks, references, version, pynative_mode):
    reference = references[version]
    vae = CausalVideoVAEOfUsers(networks[version], config_of(version))
    vae.enable_tiling(**TILES[version])
    # The references' tiles are rounded to 13 bits.
    assert_near(vae.encode(reference["i:tile_x"]).mean, reference["o:tile_mean"], 1.7e-4)
    assert_near(vae.decode(reference["i:tile_z"]), reference["o:tile_y"], 1.7e-4)


def test_a_tile_that_is_no_whole_latents_is_refused(networks):
    vae = CausalVideoVAEOfUsers(networks["v1.0"], config_of("v1.0"))
    with pytest.raises(ValueError, match=r"height 32 that overlap by 4: expected multiples of 8"):
        vae.enable_tiling(height=32, width=32, overlap_pixels=4)
    for sizes, legal in (
        ({"height": 33}, "use height 32 or 40"),
        ({"width": 4, "overlap_pixels": 0}, "use width 8"),
        ({"overlap_pixels": 12}, "use an overlap of 8 or 16"),
        ({"height": 36, "overlap_pixels": 4}, "use height 32 or 40 and an overlap of 0 or 8"),
        ({"overlap_pixels": 40}, "use an overlap of at most 24"),
        ({"frames": 9}, r"frames 9 .* multiples of 4, .* use frames 8 or 12"),
        ({"frames": 2}, "use frames 4"),
    ):
        with pytest.raises(ValueError, match=f"{legal}$"):
            vae.enable_tiling(**{"height": 32, "width": 32, "overlap_pixels": 8, **sizes})
    assert vae.tiles is None


def test_graph_mode_gives_what_pynative_gives():
    network = CausalVideoVAE(MIXED)
    rng = np.random.default_rng(0)
    network.load_tensors(
        {
            name: (rng.standard_normal(shape) / np.sqrt(max(np.prod(shape[1:]), 4))).astype("f4")
            for name, shape in network_shapes(network).items()
        }
    )
    video = Tensor(rng.uniform(-1, 1, (2, 3, 3, 4, 6)).astype(np.float32))
    results = []
    before = ms.get_context("mode")
    for mode in (ms.PYNATIVE_MODE, ms.GRAPH_MODE):
        ms.set_context(mode=mode)
        results.append(coded(network, video))
    ms.set_context(mode=before)
    (outputs, gradients), (compiled_outputs, compiled_gradients) = results
    assert compiled_outputs[1].shape == (2, 4, 2, 2, 3)
    for output, compiled in zip(outputs, compiled_outputs, strict=True):
        assert_near(compiled, output.asnumpy(), 1e-5)
    largest = max(np.abs(gradient).max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        np.testing.assert_allclose(
            compiled_gradients[name], gradient, rtol=0, atol=2e-5 * largest, err_msg=name
        )
    # The encoder's last samplers are there, but nothing passes through them.
    assert not gradients["encoder.down.1.downsample.conv.conv.weight"].any()
    assert gradients["encoder.down.0.time_downsample.mix_factor"].all()


# -- weights and configs -----------------------------------------------------------------------


@pytest.mark.parametrize("fields", ["release", "defaults"])
def test_names_and_shapes_at_full_size_are_the_published_ones(fields):
    manifest = json.loads((FIXTURES / "vae_keys" / "causalvae-v1.0.0.json").read_text())
    config = {} if fields == "defaults" else released_config()
    shapes = CausalVideoVAEOfUsers.shapes(config)
    assert {name: list(shape) for name, shape in shapes.items()} == {
        name: shape for name, (shape, _) in manifest.items()
    }


def released_config():
    """Return the config.json of the published network: that of the small one, but for sizes."""
    config = config_of("v1.0")
    del config["norm_num_groups"]
    return {**config, "hidden_size": 128}


def test_attention_stands_where_levels_have_the_resolutions_named():
    shapes = CausalVideoVAEOfUsers.shapes({**MIXED, "resolution": 16, "attn_resolutions": [16]})
    places = {name.rpartition(".q.")[0] for name in shapes if ".q.conv.weight" in name}
    assert places == {
        *("encoder.down.0.attn.0", "encoder.mid.attn_1", "decoder.mid.attn_1"),
        *("decoder.up.0.attn.0", "decoder.up.0.attn.1"),
    }


def test_the_averaged_weights_of_v1_2_are_taken_unless_others_are_asked_for(networks):
    own = networks["v1.2"].tensors()
    plain = read_own_tensors(FOLDER / "v1.2", key="state_dict")
    assert plain.keys() == own.keys()
    assert (
        np.abs(plain["decoder.conv_in.conv.weight"] - own["decoder.conv_in.conv.weight"]).max()
        > 0.1
    )


def test_weights_come_back_as_they_were(networks):
    tensors = networks["v1.1"].tensors()
    vae = CausalVideoVAEOfUsers.from_tensors(tensors, config_of("v1.1"))
    back = vae.tensors()
    assert back.keys() == tensors.keys()
    assert all(np.array_equal(back[name], tensors[name]) for name in tensors)
    assert vae.stored_config()["_class_name"] == "CausalVAEModel"
    # They resemble those of an image VAE in the naming of latent diffusion, but are none.
    assert to_diffusers_names(tensors).keys() == tensors.keys()


def test_the_losses_tensors_stay_behind(networks):
    for version, number in (("v1.0", 248), ("v1.1", 260), ("v1.2", 180)):
        assert read_own_tensors(FOLDER / version).keys() == networks[version].tensors().keys()
        assert len(networks[version].tensors()) == number


def test_weights_of_another_version_name_the_fields_that_disagree(networks):
    tensors = networks["v1.0"].tensors()
    with pytest.raises(ValueError, match="do not fit the config") as caught:
        networks["v1.1"].load_tensors(tensors)
    message = str(caught.value)
    for field in ("encoder_conv_in", "encoder_resnet_blocks", "decoder_temporal_upsample"):
        assert f"{field} is " in message
    assert "decoder_conv_in is" not in message
    wider = networks["v1.0"].explain_mismatch({**tensors, "encoder.norm_out.weight": np.ones(32)})
    assert wider == []  # a norm alone does not tell which field it is


def test_the_config_of_the_release_is_taken_field_by_field(caplog):
    config = CausalVAEConfig.from_mapping(released_config())
    assert caplog.text == ""
    assert config.spec.to_dict() == {
        **{"channels": 4, "t": 4, "h": 8, "w": 8, "factor": 0.18215, "offset": 0.0},
        **{"head": 1, "step": 4, "chunk": None, "video_channels": 3},
    }
    assert (config.lr, config.loss_params["disc_start"]) == (1e-5, 2001)
    stored = released_config()
    assert {k: v for k, v in config.to_dict().items() if k in stored} == {
        k: v for k, v in stored.items() if k[0] != "_"
    }
    assert CausalVAEConfig.from_mapping(config.to_dict()) == config


def test_unknown_fields_and_losses_are_warned_about(caplog):
    CausalVAEConfig.from_mapping({"hidden_sizes": 4, "loss_type": "os.system"})
    assert "without a meaning here: hidden_sizes" in caplog.text
    assert "loss_type=os.system is not known" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_attention": "AttnBlock3DFixed"}, "did you mean 'AttnBlock3DFix'"),
        ({"q_conv": "os.system"}, "unknown module 'os.system' in q_conv"),
        ({"decoder_resnet_blocks": ["ResnetBlock3D"]}, "has 1 entries; expected 4"),
        ({"double_z": False}, "double_z=False; supported is True alone"),
        ({"dropout": 0.5}, "supported is 0.0 alone"),
        ({"hidden_size": 100}, "multiples of norm_num_groups=32"),
        ({"hidden_size": 0}, "expected whole numbers of 1 or more"),
        ({"hidden_size": "128"}, "expected a whole number"),
        ({"encoder_temporal_downsample": [""] * 4}, r"by \(1, 8\), the decoder grows them by \(4,"),
    ],
)
def test_configs_that_no_network_fits_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        CausalVAEConfig.from_mapping(changes)


def test_modules_that_are_computed_again_are_the_same_modules():
    recomputed = {"decoder_mid_resnet": "ResnetBlock3D_GC", "q_conv": "CausalConv3d_GC"}
    assert CausalVAEConfig.from_mapping(recomputed) == CausalVAEConfig()


# -- modules that the references do not have, in numpy: x (B, C, T, H, W) ------------------------

CLIP = np.random.default_rng(1).standard_normal((2, 4, 5, 4, 6)).astype(np.float32)


def made(cell, seed=2):
    """Return the cell with random weights, and these by name."""
    rng, tensors = np.random.default_rng(seed), {}
    for name, parameter in cell.parameters_and_names():
        tensors[name] = rng.normal(0, 0.5, parameter.shape).astype(np.float32)
        parameter.set_data(Tensor(tensors[name]))
    return cell, tensors


def applied(cell: nn.Cell, clip):
    num_frames, y = clip.shape[2], cell(Tensor(fold(clip)), clip.shape[2])
    num_out = y.shape[0] // clip.shape[0]
    assert num_out in (num_frames, 2 * num_frames - 1, (num_frames + 1) // 2)
    return unfold_frames(y, num_out).asnumpy()


def fold(clip):
    return fold_frames(Tensor(clip)).asnumpy()


def convolved(x, weight, bias, stride=(1, 1)):
    """Return the causal 3x3x3 convolution of x, which is padded along H and W already."""
    x = np.concatenate([x[:, :, :1]] * 2 + [x], 2).astype(np.float64)
    num_out = [
        (size - 3) // s + 1
        for size, s in zip(x.shape[2:], (stride[0], *stride[1:] * 2), strict=True)
    ]
    y = np.zeros((x.shape[0], len(weight), *num_out))
    for t, i, j in np.ndindex(3, 3, 3):
        ends = [
            k + (n - 1) * s + 1
            for k, n, s in zip((t, i, j), num_out, (stride[0], *stride[1:] * 2), strict=True)
        ]
        window = x[:, :, t : ends[0] : stride[0], i : ends[1] : stride[1], j : ends[2] : stride[1]]
        y += np.einsum("oc,bcthw->bothw", weight[:, :, t, i, j], window)
    return y + bias[:, None, None, None]


def linear(x, axis):
    """Return x twice as long along an axis, as linear interpolation without aligned corners."""
    x = np.moveaxis(x, axis, -1)
    before = np.concatenate([x[..., :1], x[..., :-1]], -1)
    after = np.concatenate([x[..., 1:], x[..., -1:]], -1)
    y = np.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], -1)
    return np.moveaxis(y.reshape(*x.shape[:-1], -1), -1, axis)


def test_spatial_3d_samplers(pynative_mode):
    down, w = made(make_sampler("Spatial2x3DDownsample", 4, 2))
    padded = np.pad(CLIP, ((0, 0), (0, 0), (0, 0), (0, 1), (0, 1)))
    right = convolved(padded, w["conv.conv.weight"], w["conv.conv.bias"], stride=(1, 2))
    np.testing.assert_allclose(applied(down, CLIP), right, rtol=0, atol=2e-5)

    up, w = made(make_sampler("Spatial2x3DUpsample", 4, 2))
    padded = np.pad(linear(linear(CLIP, 3), 4), ((0, 0), (0, 0), (0, 0), (1, 1), (1, 1)))
    right = convolved(padded, w["conv.conv.weight"], w["conv.conv.bias"])
    np.testing.assert_allclose(applied(up, CLIP), right, rtol=0, atol=2e-5)


def test_image_upsampling(pynative_mode):
    up, w = made(make_sampler("Upsample", 4, 2))
    x = np.pad(CLIP.repeat(2, 3).repeat(2, 4), ((0, 0), (0, 0), (0, 0), (1, 1), (1, 1)))
    weight = np.zeros((4, 4, 3, 3, 3))
    weight[:, :, 2] = w["conv.weight"]  # of this frame alone
    right = convolved(x, weight, w["conv.bias"])
    np.testing.assert_allclose(applied(up, CLIP), right, rtol=0, atol=2e-5)


def normalised(x, weight, bias, num_groups, axes):
    groups = x.reshape(x.shape[0], num_groups, -1, *x.shape[2:]).astype(np.float64)
    groups = groups - groups.mean(axes, keepdims=True)
    groups = groups / np.sqrt(np.square(groups).mean(axes, keepdims=True) + 1e-6)
    return groups.reshape(x.shape) * weight[:, None, None, None] + bias[:, None, None, None]


@pytest.mark.parametrize(
    ("name", "inner", "axes", "sees"),
    [
        ("TemporalAttnBlock", "", (2, 3, 4, 5), "bctn,bcsn->bnts"),
        ("AttnBlock", "", (2, 4, 5), "bctn,bctm->btnm"),
        ("AttnBlock3DFix", ".conv", (2, 3, 4, 5), "bctn,bctm->btnm"),
    ],
)
def test_attention(name, inner, axes, sees, pynative_mode):
    cell, w = made(make_attention(name, 4, 2))
    h = normalised(CLIP, w["norm.weight"], w["norm.bias"], 2, axes).reshape(2, 4, 5, 24)

    def pointwise(part, h):
        weight = w[f"{part}{inner}.weight"].reshape(4, 4)
        return np.einsum("oc,bctn->botn", weight, h) + w[f"{part}{inner}.bias"][:, None, None]

    logits = np.einsum(sees, pointwise("q", h), pointwise("k", h)) / 2  # sqrt(4)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights = weights / weights.sum(-1, keepdims=True)
    queries, keys = sees.split("->")[0].split(",")
    h = np.einsum(f"{sees[-4:]},{keys}->{queries}", weights, pointwise("v", h))
    right = CLIP + pointwise("proj_out", h).reshape(CLIP.shape)
    np.testing.assert_allclose(applied(cell, CLIP), right, rtol=0, atol=2e-5)


@pytest.mark.parametrize("way", ["Down", "Up"])
def test_advanced_samplers_mix_what_the_plain_ones_give(way, pynative_mode):
    cell, w = made(make_sampler(f"Time{way}sampleResAdv2x", 4, 2))
    plain = applied(make_sampler(f"Time{way}sample2x", 4, 2), CLIP)

    def with_mix(value):
        cell.mix_factor.set_data(Tensor(np.full(1, value, np.float32)))
        return applied(cell, CLIP)

    nothing, all_of_it, half = with_mix(100.0), with_mix(-100.0), with_mix(0.0)
    np.testing.assert_array_equal(nothing, plain)
    np.testing.assert_allclose(half, (plain + all_of_it) / 2, rtol=0, atol=1e-5)
    # What is mixed in: a residual block, then attention, then the convolution.
    x = CLIP
    if way == "Down":
        h = np.concatenate([x[:, :, :1]] * 2 + [x], 2)
    else:
        h = np.concatenate([x[:, :, :1], linear(x[:, :, 1:], 2)], 2).astype(np.float32)
    h = applied_at(cell.attn, applied_at(cell.res, h))
    h = np.pad(h, ((0, 0), (0, 0), (0, 0), (1, 1), (1, 1)))
    if way == "Down":
        right = convolved(h, w["conv.weight"], w["conv.bias"])[:, :, 2::2]
    else:
        right = convolved(h, w["conv.conv.weight"], w["conv.conv.bias"])
    np.testing.assert_allclose(all_of_it, right, rtol=0, atol=1e-4)


def applied_at(cell, clip):
    num_frames = clip.shape[2]
    return unfold_frames(cell(Tensor(fold(clip)), num_frames), num_frames).asnumpy()


def test_advanced_samplers_of_v1_0_have_no_mixing():
    config = dataclasses.replace(
        CausalVAEConfig(),
        encoder_temporal_downsample=("", "TimeDownsample2x", "TimeDownsampleResAdv2x", ""),
    )
    assert list(completed({}, config)) == ["encoder.down.2.time_downsample.mix_factor"]
    given = {"encoder.down.2.time_downsample.mix_factor": np.ones(1)}
    assert completed(given, config) == given
