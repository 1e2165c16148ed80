"""Video DC-AE: reference numbers, every gradient, names, both modes, images and odd lengths.

Tolerances are those that the references were made with: of values 1e-4 of the largest (of at least
1), of gradients 2e-3 of the tensor's largest plus 1e-5 of the network's largest.
"""

import json
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from mg.latent_spec import LOGVAR_MIN, LatentSpec
from mg.models import layers
from mg.models.dc_ae.config import VideoDCAEConfig, fields_of_shapes
from mg.models.dc_ae.layers import averaged_down, repeated_up
from mg.models.dc_ae.network import VideoDCAE
from mg.weights.safetensors_file import read_safetensors
from tests.networks import built_without_values, network_shapes

FIXTURES = Path(__file__).parents[1] / "fixtures"
FOLDER = FIXTURES / "dc_ae"
CONFIG = json.loads((FOLDER / "config.json").read_text())
# Two levels, one of either kind: 2x2x2, 8 latent channels.
SMALL = {
    "latent_channels": 8,
    "width_list": [8, 32],
    "encoder_depth_list": [1, 1],
    "decoder_depth_list": [1, 1],
    "block_type": ["ResBlock", "EViTS5_GLU"],
    "temporal_downsample": [True, False],
}


@pytest.fixture(scope="module")
def reference():
    arrays = np.load(FOLDER / "tiny.npz", allow_pickle=False)
    return {name: arrays[name] for name in arrays.files}


@pytest.fixture(scope="module")
def network():
    network = VideoDCAE(CONFIG)
    network.load_tensors(read_safetensors(FOLDER / "F_AE.safetensors"))
    return network


def assert_close(found, right):
    assert found.shape == right.shape
    limit = 1e-4 * max(1, np.abs(right).max())
    np.testing.assert_allclose(found.asnumpy(), right, rtol=0, atol=limit)


@pytest.mark.parametrize("frames", [1, 4, 8, 32])
def test_latents_and_videos_are_the_references(network, reference, frames, pynative_mode):
    mean, logvar = network.moments(Tensor(reference["i:x"][:, :, :frames]))
    assert_close(mean, reference[f"o:z_T{frames}"])
    assert logvar.shape == mean.shape and np.all(logvar.asnumpy() == LOGVAR_MIN)
    # The reference takes a latent of one frame for an image, whatever it was of.
    num_frames = 1 if frames == 4 else frames
    assert_close(network.frames_from(mean, num_frames), reference[f"o:y_T{frames}"])


def test_one_latent_frame_is_an_image_or_four_frames(network, reference, pynative_mode):
    latent = Tensor(reference["o:z_T4"])
    video = network.frames_from(latent)
    assert_close(video, reference["o:y_T4_video"])
    for frames in (2, 3, 4):
        assert_close(network.decode(latent, frames), video.asnumpy()[:, :, :frames])
    assert_close(network.decode(latent, 1), reference["o:y_T4"])


def coded(network, video):
    """Return the loss of the references, latent, video, and all gradients by name."""
    named = dict(network.parameters_and_names())

    def loss(video):
        latent, _ = network.moments(video)
        frames = network.frames_from(latent, video.shape[2])
        error = ops.square(frames - video).mean() + 0.1 * ops.square(latent).mean()
        return error, latent, frames

    outputs, gradients = ms.value_and_grad(loss, None, list(named.values()), has_aux=True)(video)
    return outputs, dict(zip(named, gradients, strict=True))


@pytest.mark.parametrize("mode", ["pynative_mode", "graph_mode"])
def test_loss_and_every_gradient_are_the_references(network, reference, mode, request):
    request.getfixturevalue(mode)
    frames = int(reference["loss_T"])
    outputs, gradients = coded(network, Tensor(reference["i:x"][:, :, :frames]))
    for found, name in zip(outputs, ("loss", f"o:z_T{frames}", f"o:y_T{frames}"), strict=True):
        assert_close(found, reference[name])
    expected = {name[2:]: array for name, array in reference.items() if name[:2] == "g:"}
    assert gradients.keys() == expected.keys()
    largest = max(np.abs(array).max() for array in expected.values())
    for name, right in expected.items():
        limit = 2e-3 * np.abs(right).max() + 1e-5 * largest
        found = gradients[name].asnumpy()
        np.testing.assert_allclose(found, right, rtol=0, atol=limit, err_msg=name)
    assert list(gradients) == [parameter.name for parameter in network.get_parameters()]


def test_the_form_for_ascend_gives_the_same_numbers(network, reference, pynative_mode):
    with layers.choose("Ascend"):
        plain = VideoDCAE(CONFIG)
    plain.load_tensors(network.tensors())
    mean, _ = plain.moments(Tensor(reference["i:x"][:, :, :8]))
    assert_close(mean, reference["o:z_T8"])
    assert_close(plain.frames_from(mean), reference["o:y_T8"])


def test_no_convolution_is_3d(network):
    primitives = [
        value
        for _, cell in network.cells_and_names()
        for value in vars(cell).values()
        if isinstance(value, ops.Primitive)
    ]
    names = {primitive.name for primitive in primitives}
    assert "Conv2D" in names and not any("3D" in name for name in names)


def published_shapes():
    manifest = json.loads((FIXTURES / "vae_keys" / "video-dc-ae-f32t4c128.json").read_text())
    return {name: tuple(shape) for name, (shape, _) in manifest.items()}


def test_full_size_names_and_shapes_are_the_published_ones():
    assert network_shapes(built_without_values(VideoDCAE)) == published_shapes()


def test_sizes_are_read_off_the_tensors(network):
    published = fields_of_shapes(published_shapes())
    assert VideoDCAEConfig.from_mapping(published) == VideoDCAEConfig()
    tiny = fields_of_shapes(network_shapes(network))
    assert tiny == {name: CONFIG[name] for name in tiny} and len(tiny) == 6
    with pytest.raises(ValueError, match=r"encoder\.project_in\.conv\.weight' is missing"):
        fields_of_shapes({"decoder.stages.0.op_list.0.main.conv1.conv.weight": (8, 8, 3, 3, 3)})


def test_weights_of_another_config_are_refused_by_its_fields(network):
    with pytest.raises(
        ValueError, match=r"width_list: the weights have \[8, 16, 32, 64\], the con"
    ):
        VideoDCAE(SMALL).load_tensors(network.tensors())


def random_video(*shape):
    return Tensor(np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32))


def test_clips_of_a_batch_are_coded_by_themselves(pynative_mode):
    network = VideoDCAE(SMALL)
    videos = random_video(2, 3, 4, 4, 6)
    latents, _ = network.moments(videos)
    decoded = network.frames_from(latents)
    for clip in range(2):
        latent, _ = network.moments(videos[clip : clip + 1])
        assert_close(latent, latents.asnumpy()[clip : clip + 1])
        assert_close(network.frames_from(latent), decoded.asnumpy()[clip : clip + 1])


@pytest.mark.parametrize(("frames", "completed"), [(3, 4), (5, 6), (1, 1)])
def test_clips_are_completed_by_their_last_frame(frames, completed, pynative_mode):
    network = VideoDCAE(SMALL)
    video = random_video(1, 3, frames, 4, 6)
    missing = [video[:, :, -1:]] * (completed - frames)
    expected, _ = network.moments(ops.concat([video, *missing], 2))
    assert_close(network.moments(video)[0], expected.asnumpy())
    latent, mean, _ = network.encode(video)
    assert_close(mean, expected.asnumpy())
    assert np.array_equal(latent.asnumpy(), mean.asnumpy())  # there is nothing to sample
    assert network.decode(latent, frames).shape == video.shape
    assert network(video).shape == video.shape


def test_recomputing_changes_no_gradient(pynative_mode):
    kept, recomputed = VideoDCAE(SMALL), VideoDCAE(SMALL)
    recomputed.recompute_blocks()
    recomputed.load_tensors(kept.tensors())
    video = random_video(1, 3, 2, 4, 4)
    expected, found = coded(kept, video)[1], coded(recomputed, video)[1]
    for name, gradient in expected.items():
        np.testing.assert_allclose(found[name].asnumpy(), gradient.asnumpy(), atol=1e-6)


def test_half_precision_is_near(network, reference, pynative_mode):
    half = VideoDCAE(CONFIG, encode_dtype="float16", decode_dtype="float16")
    half.load_tensors(network.tensors())
    mean, _ = half.moments(Tensor(reference["i:x"][:, :, :4]))
    video = half.frames_from(mean)
    for found, name in ((mean, "o:z_T4"), (video, "o:y_T4_video")):
        assert found.dtype == ms.float32
        right = reference[name]
        np.testing.assert_allclose(found.asnumpy(), right, rtol=0, atol=1e-2 * np.abs(right).max())


@pytest.mark.parametrize("factors", [(1, 1), (1, 2), (2, 2)])
def test_shortcuts_shuffle_pixels(factors, pynative_mode):
    t, s = factors
    rng = np.random.default_rng(0)
    clip = rng.standard_normal((2, 4, 2 * t, 2 * s, 3 * s)).astype(np.float32)  # (B, C, T, H, W)
    blocks = clip.reshape(2, 4, 2, t, 2, s, 3, s).transpose(0, 1, 3, 5, 7, 2, 4, 6)
    blocks = blocks.reshape(2, -1, 2, 2, 3)  # (B, C t s s, T/t, H/s, W/s)
    folded = Tensor(
        np.ascontiguousarray(clip.transpose(0, 2, 1, 3, 4)).reshape(-1, 4, *clip.shape[3:])
    )
    expected = blocks.reshape(2, 2, -1, 2, 2, 3).mean(2).transpose(0, 2, 1, 3, 4)
    found = averaged_down(folded, 2, factors).asnumpy()
    np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=0, atol=1e-6)

    # The channels of `blocks`, as they are, shuffle back to the clip; fewer are repeated first.
    channels = Tensor(np.ascontiguousarray(blocks.transpose(0, 2, 1, 3, 4)).reshape(4, -1, 2, 3))
    np.testing.assert_array_equal(repeated_up(channels, 4, factors).asnumpy(), folded.asnumpy())
    repeated = ops.repeat_interleave(channels, 2, 1)
    np.testing.assert_array_equal(
        repeated_up(channels, 8, factors).asnumpy(), repeated_up(repeated, 8, factors).asnumpy()
    )


def test_configs_are_read():
    published = VideoDCAEConfig.from_mapping({"model_name": "dc-ae-f32t4c128"})
    assert published == VideoDCAEConfig()
    assert published.spec == LatentSpec(128, t=4, h=32, w=32)
    tiny = VideoDCAEConfig.from_mapping(CONFIG)
    assert tiny.spec == LatentSpec(16, t=4, h=8, w=8)
    assert VideoDCAEConfig.from_mapping(json.loads(json.dumps(tiny.to_dict()))) == tiny
    # A generator's latent is the encoder's divided by the factor.
    assert VideoDCAEConfig(scaling_factor=2.0).spec.factor == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": [8]}, "unknown field 'widths' of a Video DC-AE; did you mean 'width_list'"),
        ({"width_list": [8, 40]}, "40 channels with EViTS5_GLU; attention needs multiples of 32"),
        ({"width_list": [8, 96]}, "96 channels behind 8; expected a divisor of 32"),
        ({"width_list": "8"}, "width_list='8'; expected a list"),
        ({"width_list": []}, "width_list is empty"),
        ({"encoder_depth_list": [1]}, "has 1 values; expected one for each of the 2 levels"),
        ({"decoder_depth_list": [1, 0]}, "expected 1 or more at each level"),
        ({"block_type": ["ResBlok", "ResBlock"]}, "did you mean 'ResBlock'"),
        ({"temporal_downsample": [True, True]}, "nothing comes behind the last level"),
        ({"latent_channels": 12}, "latent_channels=12; expected a divisor of"),
        ({"latent_channels": 0}, "latent_channels=0; expected 1 or more"),
        ({"scaling_factor": 0}, "scaling_factor=0"),
        ({"norm": "bn"}, "norm='bn'; supported is 'rms3d' alone"),
        ({"time_compression_ratio": 4}, "time_compression_ratio=4, but .* give 2"),
    ],
)
def test_configs_of_no_network_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        VideoDCAEConfig.from_mapping({**SMALL, **changes})


def test_a_name_of_no_known_structure_is_refused():
    with pytest.raises(ValueError, match="the structure that has a name is 'dc-ae-f32t4c128'"):
        VideoDCAEConfig.from_mapping({"model_name": "dc-ae-f64t4c128"})
