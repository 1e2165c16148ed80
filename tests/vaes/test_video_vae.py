"""The common interface, for each family: reference numbers, lengths, scaling, wrong shapes."""

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from mg.models.families import autoencoder_family
from mg.vaes import CausalVAEModel, Compression, VideoVAE
from mg.vaes.causal_vae import CausalVideoVAE
from tests.tiny import AUTOENCODERS as TINY

pytestmark = pytest.mark.usefixtures("pynative_mode")
VAES = Path(__file__).parents[1] / "fixtures" / "vaes"
REFERENCES = {"sd": "kl", "cogvideox": "cogvae", "hunyuan": "hyvae"}
FAMILIES = ["tae", *REFERENCES]

COMPRESSIONS = {
    "tae": Compression(2, 2, 2),
    "sd": Compression(1, 2, 2),
    "cogvideox": Compression(4, 8, 8),
    "hunyuan": Compression(4, 8, 8),
}
# Frames of video -> frames that the network gets, frames of latent.
LENGTHS = {
    "tae": {1: (1, 1), 2: (2, 1), 3: (3, 2), 4: (4, 2)},
    "sd": {1: (1, 1), 3: (3, 3)},
    "cogvideox": {1: (1, 1), 2: (9, 3), 5: (9, 3), 9: (9, 3), 10: (17, 5), 49: (49, 13)},
    "hunyuan": {1: (1, 1), 2: (5, 2), 5: (5, 2), 6: (9, 3), 129: (129, 33)},
}


def reference(family):
    """Return the arrays of a reference network, images as videos of one frame."""
    arrays = np.load(VAES / f"{REFERENCES[family]}.npz", allow_pickle=False)
    return {
        name: arrays[name][:, :, None]
        if name[:2] in ("i:", "o:") and arrays[name].ndim == 4
        else arrays[name]
        for name in arrays.files
    }


def video_of(vae, frames, seed=0):
    shape = (1, 3, frames, 2 * vae.compression.h, 2 * vae.compression.w)
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize("family", REFERENCES)
def test_encode_and_decode_give_the_references_numbers(all_vaes, family):
    vae, arrays = all_vaes[family], reference(family)
    posterior = vae.encode(arrays["i:x"])
    np.testing.assert_allclose(posterior.mean.asnumpy(), arrays["o:z"], rtol=0, atol=1e-4)
    logvar = np.clip(arrays["o:logvar"], -30, 20)
    np.testing.assert_allclose(posterior.logvar.asnumpy(), logvar, rtol=0, atol=1e-4)
    for latent in (posterior, arrays["o:z"], Tensor(arrays["o:z"])):
        np.testing.assert_allclose(vae.decode(latent).asnumpy(), arrays["o:y"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", REFERENCES)
def test_gradients_through_the_interface_are_the_references(all_vaes, family):
    vae, arrays = all_vaes[family], reference(family)
    video = Tensor(arrays["i:x"])
    parameters = dict(vae.network.parameters_and_names())
    loss, gradients = ms.value_and_grad(
        lambda: ops.mean((vae.decode(vae.encode(video)) - video) ** 2),
        None,
        ms.ParameterTuple(parameters.values()),
    )()
    assert float(loss) == pytest.approx(float(arrays["loss"]), abs=1e-5)
    expected = {name[2:] for name in arrays if name.startswith("g:")}
    assert parameters.keys() == expected
    for name, gradient in zip(parameters, gradients, strict=True):
        np.testing.assert_allclose(gradient.asnumpy(), arrays["g:" + name], rtol=0, atol=1e-4)


def test_graph_mode_outside_changes_nothing(all_vaes):
    arrays = reference("hunyuan")  # the family whose network does not compile
    ms.set_context(mode=ms.GRAPH_MODE)
    mean = all_vaes["hunyuan"].encode(arrays["i:x"]).mean.asnumpy()
    assert ms.get_context("mode") == ms.GRAPH_MODE
    np.testing.assert_allclose(mean, arrays["o:z"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_family_compression_and_channels(all_vaes, family):
    vae = all_vaes[family]
    assert (vae.family, vae.compression) == (family, COMPRESSIONS[family])
    assert vae.latent_channels == 4


@pytest.mark.parametrize("family", FAMILIES)
def test_lengths(all_vaes, family):
    vae = all_vaes[family]
    for frames, (valid, latent) in LENGTHS[family].items():
        assert (vae.num_valid_frames(frames), vae.num_latent_frames(frames)) == (valid, latent)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("frames", [1, 3, 6])
def test_any_length_goes_in_and_comes_out(all_vaes, family, frames):
    vae = all_vaes[family]
    video = video_of(vae, frames)
    posterior = vae.encode(video)
    shape = (1, vae.latent_channels, vae.num_latent_frames(frames), 2, 2)
    assert tuple(posterior.mean.shape) == shape
    assert tuple(vae.decode(posterior).shape) == video.shape
    whole = vae.decode(posterior.mode()).asnumpy()
    assert whole.shape[2] >= frames
    part = vae.decode(posterior.mode(), frames - 1 or 1).asnumpy()
    assert np.array_equal(part, whole[:, :, : frames - 1 or 1])
    # Completed by its last frame: the same as when the caller repeats it.
    missing = vae.num_valid_frames(frames) - frames
    completed = np.concatenate([video, *[video[:, :, -1:]] * missing], axis=2)
    assert np.array_equal(vae.encode(completed).mean.asnumpy(), posterior.mean.asnumpy())


@pytest.mark.parametrize(("frames", "latents"), [(5, 2), (13, 4)])
def test_a_cogvideox_latent_can_have_the_length_that_it_has_in_diffusers(all_vaes, frames, latents):
    vae = all_vaes["cogvideox"]
    posterior = vae.encode(video_of(vae, frames), complete=False)
    assert posterior.mean.shape[2] == latents and posterior.num_frames is None
    assert vae.decode(posterior).shape[2] == 4 * latents
    with pytest.raises(ValueError, match=r"a video of 6 frames: .* expected 1 and a multiple of 4"):
        vae.encode(video_of(vae, 6), complete=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_sample_of_an_encoded_video_is_repeatable(all_vaes, family):
    posterior = all_vaes[family].encode(video_of(all_vaes[family], 1))
    samples = [posterior.sample(seed).asnumpy() for seed in (3, 3, 4)]
    assert np.array_equal(samples[0], samples[1])
    assert not np.array_equal(samples[0], samples[2])


@pytest.mark.parametrize("family", FAMILIES)
def test_pixels_are_refused_with_the_range_of_networks(all_vaes, family):
    pixels = np.zeros((1, 3, 1, 8, 8), np.uint8)
    for video in (pixels, Tensor(pixels)):
        for encode in (all_vaes[family].encode, all_vaes[family].network.encode):
            with pytest.raises(TypeError, match=r"video is uint8; expected floats in \[-1, 1\]"):
                encode(video)


@pytest.mark.parametrize("family", FAMILIES)
def test_wrong_shapes_are_refused_with_the_right_ones(all_vaes, family):
    vae = all_vaes[family]
    side = vae.compression.h
    with pytest.raises(ValueError, match=f"height {side + 1} .* crop to {side} or {2 * side}"):
        vae.encode(np.zeros((1, 3, 1, side + 1, side), np.float32))
    with pytest.raises(ValueError, match=f"width 1 .* crop to {side}"):
        vae.encode(np.zeros((1, 3, 1, side, 1), np.float32))
    with pytest.raises(ValueError, match=r"expected a video .* got \(3, 1, 8, 8\)"):
        vae.encode(np.zeros((3, 1, 8, 8), np.float32))
    with pytest.raises(ValueError, match=r"expected a video .* got \(1, 4, 1, 8, 8\)"):
        vae.encode(np.zeros((1, 4, 1, 8, 8), np.float32))
    with pytest.raises(ValueError, match=r"expected a latent \(batch, 4, .* got \(1, 5, 1, 2, 2\)"):
        vae.decode(np.zeros((1, 5, 1, 2, 2), np.float32))
    with pytest.raises(ValueError, match=r"num_frames=99 needs a latent of"):
        vae.decode(np.zeros((1, 4, 1, 2, 2), np.float32), 99)


@pytest.mark.parametrize("family", FAMILIES)
def test_unscale_is_the_inverse_of_scale(all_vaes, family):
    latent = np.random.default_rng(0).standard_normal((1, 4, 2, 3, 3)).astype(np.float32)
    vae = all_vaes[family]
    back = vae.unscale(vae.scale(latent)).asnumpy()
    np.testing.assert_allclose(back, latent, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "factor", "offset"),
    [
        ("tae", 0.5, 0.25),
        ("sd", 0.18215, 0),
        ("cogvideox", 1.15258426, 0),
        ("hunyuan", 0.476986, 0),
    ],
)
def test_scaling_of_the_references(all_vaes, family, factor, offset):
    latent = np.full((1, 4, 1, 1, 1), 2.0, np.float32)
    scaled = all_vaes[family].scale(latent).asnumpy()
    np.testing.assert_allclose(scaled, 2 * factor + offset, rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"scaling_factor": 0.7}, [1.4, 1.4, 1.4, 1.4]),
        ({"scaling_factor": 1.5305, "shift_factor": 0.0609}, [1.5305 * (2 - 0.0609)] * 4),
        ({"scaling_factor": 0.5, "invert_scale_latents": True}, [1.0] * 4),
        (
            {"scaling_factor": 0.5, "latents_mean": [0, 1, 2, 3], "latents_std": [1, 2, 4, 8]},
            [1.0, 0.25, 0.0, -0.0625],
        ),
    ],
)
def test_scaling_comes_from_the_config(all_vaes, fields, expected):
    config = {**all_vaes["cogvideox"].config, **fields}
    vae = type(all_vaes["cogvideox"]).from_tensors(all_vaes["cogvideox"].tensors(), config)
    scaled = vae.scale(np.full((1, 4, 1, 1, 1), 2.0, np.float32))
    np.testing.assert_allclose(scaled.asnumpy().ravel(), expected, rtol=1e-6)
    np.testing.assert_allclose(vae.unscale(scaled).asnumpy(), 2.0, rtol=1e-5)


def test_scaling_left_out_of_a_config_is_the_classes_default():
    config = dict(VideoVAE.from_pretrained(VAES / "kl", inflate_method="none").config)
    del config["scaling_factor"]
    vae = VideoVAE.from_pretrained(VAES / "kl", inflate_method="none", config=config)
    scaled = vae.scale(np.ones((1, 4, 1, 1, 1), np.float32)).asnumpy()
    np.testing.assert_allclose(scaled, 0.18215, rtol=1e-6)


def test_package_gives_the_class_by_its_name():
    import mg

    assert mg.VideoVAE is VideoVAE
    with pytest.raises(AttributeError, match="VideoVEA"):
        _ = mg.VideoVEA


def test_the_causal_vae_under_its_publishers_name(tmp_path):
    record = autoencoder_family("causal_vae")
    vae = CausalVideoVAE(record.build(record.read_config(TINY["causal_vae"])))
    vae.save_pretrained(tmp_path)
    loaded = CausalVAEModel.from_pretrained(tmp_path)
    assert isinstance(loaded, CausalVideoVAE) and isinstance(loaded, CausalVAEModel)
    for name, array in loaded.tensors().items():
        np.testing.assert_array_equal(array, vae.tensors()[name])
    with pytest.raises(ValueError, match="but these are weights of family 'cogvideox'"):
        CausalVAEModel.from_pretrained(VAES / "cogvae")
