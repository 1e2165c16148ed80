"""Open-Sora's VAE behind the common interface: chunks, scaling, files, on a tiny network."""

import json
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from safetensors import safe_open

from mg.models.opensora_vae.config import OPENSORA_CONFIG
from mg.vaes import VideoVAE
from mg.vaes.opensora import OpenSoraVAE

MANIFEST = Path(__file__).parents[1] / "fixtures" / "vae_keys" / "opensora-vae-v1.2.json"
pytestmark = pytest.mark.usefixtures("pynative_mode")

# 2x2x2, in chunks of 5 frames, which have 3 of latent.
TINY = {
    "architectures": ["VideoAutoencoderPipeline"],
    "model_type": "VideoAutoencoderPipeline",
    "vae_2d": {
        "type": "VideoAutoencoderKL",
        "config": {
            "block_out_channels": [4, 8],
            "down_block_types": ["DownEncoderBlock2D"] * 2,
            "up_block_types": ["UpDecoderBlock2D"] * 2,
            "layers_per_block": 1,
            "latent_channels": 3,
            "norm_num_groups": 2,
        },
    },
    "vae_temporal": {
        "type": "VAE_Temporal",
        "in_out_channels": 3,
        "filters": 4,
        "num_res_blocks": 1,
        "channel_multipliers": [1, 2],
        "temporal_downsample": [True],
        "num_groups": 2,
    },
    "micro_frame_size": 5,
    "shift": [0.0, 0.0, 0.0, 0.0],
    "scale": [1.0, 1.0, 1.0, 1.0],
    "cal_loss": False,
}
SHIFT = np.array([-0.1, 0.34, 0.27, 0.98], np.float32).reshape(1, 4, 1, 1, 1)
SCALE = np.array([3.85, 2.32, 2.33, 3.06], np.float32).reshape(1, 4, 1, 1, 1)


def random_tensors(seed=0):
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in OpenSoraVAE.shapes(TINY).items():
        fan_in = max(int(np.prod(shape[1:])), 1)
        value = rng.standard_normal(shape) / np.sqrt(fan_in)
        value = 1 + 0.2 * value if "norm" in name and name.endswith("weight") else value
        tensors[name] = value.astype(np.float32)
    return {**tensors, "shift": SHIFT, "scale": SCALE}


@pytest.fixture(scope="module")
def tensors():
    return random_tensors()


@pytest.fixture
def vae(tensors):
    return OpenSoraVAE.from_tensors(tensors, TINY)


def video_of(frames, batch=2):
    shape = (batch, 3, frames, 4, 6)
    return np.random.default_rng(frames).uniform(-1, 1, shape).astype(np.float32)


def assert_close(actual, expected, tolerance=1e-5):
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def frame_latents(vae, video):
    """Return what the temporal VAE sees, frame by frame: 0.18215 * mean, (B, 3, T, 2, 3)."""
    frames = [
        vae.spatial.network.moments(Tensor(video[:, :, t : t + 1]))[0].asnumpy()[:, :, 0]
        for t in range(video.shape[2])
    ]
    return np.float32(0.18215) * np.stack(frames, 2)


def test_full_size_names_and_shapes_are_those_of_the_published_weights():
    manifest = json.loads(MANIFEST.read_text())
    published = {name: tuple(shape) for name, (shape, _) in manifest.items()}
    assert len(published) == 517
    assert OpenSoraVAE.shapes({}) == OpenSoraVAE.shapes(OPENSORA_CONFIG) == published


def test_facts_of_the_tiny_network(vae):
    assert vae.compression == (2, 2, 2) and vae.latent_channels == 4
    assert vae.family == "opensora" and vae.config == TINY
    assert [vae.num_latent_frames(n) for n in (1, 2, 4, 5, 6, 10, 12)] == [1, 1, 2, 3, 4, 6, 7]
    assert [vae.num_valid_frames(n) for n in (1, 6)] == [1, 6]


def test_each_chunk_is_encoded_by_itself(vae):
    video = video_of(8)
    posterior = vae.encode(video)
    assert posterior.mean.shape == (2, 4, 5, 2, 3)
    latents = frame_latents(vae, video)
    pieces = [
        vae.network.temporal_vae.moments(Tensor(x)) for x in (latents[:, :, :5], latents[:, :, 5:])
    ]
    means, logvars = ([moment.asnumpy() for moment in m] for m in zip(*pieces, strict=True))
    assert_close(posterior.mean.asnumpy(), np.concatenate(means, 2))
    assert_close(posterior.logvar.asnumpy(), np.concatenate(logvars, 2))


def test_all_frames_in_one_chunk(tensors):
    vae = OpenSoraVAE.from_tensors(tensors, {**TINY, "micro_frame_size": None})
    video = video_of(8)
    mean, _ = vae.network.temporal_vae.moments(Tensor(frame_latents(vae, video)))
    assert mean.shape[2] == vae.num_latent_frames(8) == 4
    assert_close(vae.encode(video).mean.asnumpy(), mean.asnumpy())
    assert vae.decode(mean).shape == video.shape


def test_each_chunk_is_decoded_by_itself(vae):
    latent = np.random.default_rng(3).standard_normal((2, 4, 5, 2, 3)).astype(np.float32)
    # 8 frames: 5, of which one was completed, and 3, of which one was completed.
    clips = [
        vae.network.temporal_vae.frames_from(Tensor(piece), frames).asnumpy() / np.float32(0.18215)
        for piece, frames in ((latent[:, :, :3], 5), (latent[:, :, 3:], 3))
    ]
    frames = vae.spatial.network.frames_from(Tensor(np.concatenate(clips, 2)))
    actual = vae.decode(latent, num_frames=8).asnumpy()
    assert_close(actual, frames.asnumpy())
    # Without a number, the longest video of such a latent: 5 + 4 frames.
    longest = vae.decode(latent).asnumpy()
    assert longest.shape[2] == 9
    assert_close(longest[:, :, 6:], actual[:, :, 5:])
    # Of a number with a shorter latent, the first frames of that.
    np.testing.assert_array_equal(vae.decode(latent, num_frames=4).asnumpy(), longest[:, :, :4])
    with pytest.raises(ValueError, match="num_frames=11 needs a latent of 7 frames"):
        vae.decode(latent, num_frames=11)


@pytest.mark.parametrize("frames", [1, 4, 5, 6])
def test_as_many_frames_come_back(vae, frames):
    video = video_of(frames, batch=1)
    posterior = vae.encode(video)
    assert posterior.mean.shape[2] == vae.num_latent_frames(frames)
    decoded = vae.decode(posterior).asnumpy()
    assert decoded.shape == video.shape and np.isfinite(decoded).all()


def test_scaling_is_that_of_the_weights(vae):
    latent = np.random.default_rng(4).standard_normal((2, 4, 3, 2, 2)).astype(np.float32)
    assert_close(vae.scale(latent).asnumpy(), (latent - SHIFT) / SCALE)
    assert_close(vae.unscale(vae.scale(latent)).asnumpy(), latent)


def test_every_parameter_has_a_gradient_and_keeps_its_name(vae):
    video = Tensor(video_of(3, batch=1))
    parameters = vae.network.trainable_params()
    names = [parameter.name for parameter in parameters]
    assert len(set(names)) == len(names) == len(OpenSoraVAE.shapes(TINY)) - 2

    def loss(video):
        mean, logvar = vae.moments(video)
        return (vae.frames_from(mean, 3) ** 2).sum() + (logvar**2).sum()

    gradients = ms.value_and_grad(loss, None, parameters)(video)[1]
    sizes = {n: np.abs(g.asnumpy()).max() for n, g in zip(names, gradients, strict=True)}
    assert all(np.isfinite(size) for size in sizes.values())
    # Attention does not change with a constant added to all its keys.
    without = [name for name, size in sizes.items() if size == 0 and "to_k.bias" not in name]
    assert without == []
    assert [parameter.name for parameter in vae.network.trainable_params()] == names
    assert vae.tensors().keys() == OpenSoraVAE.shapes(TINY).keys()


def test_tiles(vae):
    video = video_of(3)
    whole = vae.encode(video)
    decoded = vae.decode(whole).asnumpy()
    vae.enable_tiling(height=8)  # larger than the video
    np.testing.assert_array_equal(vae.encode(video).mean.asnumpy(), whole.mean.asnumpy())
    vae.enable_tiling(height=4, overlap_pixels=2)
    tiled = vae.decode(whole).asnumpy()
    assert tiled.shape == decoded.shape and np.abs(tiled - decoded).max() > 1e-3
    # The tiles on the left see the same but the columns behind them.
    assert np.corrcoef(tiled.ravel(), decoded.ravel())[0, 1] > 0.5
    vae.disable_tiling()
    np.testing.assert_array_equal(vae.decode(whole).asnumpy(), decoded)


def test_saved_and_read_again(vae, tensors, tmp_path):
    vae.save_pretrained(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
    assert json.loads((tmp_path / "config.json").read_text()) == TINY
    with safe_open(tmp_path / "model.safetensors", framework="np") as file:
        assert file.metadata() == {"format": "pt"}  # what the transformers package accepts
    video = video_of(6, batch=1)
    expected = vae.encode(video).mean.asnumpy()
    for file in ("model.safetensors", "diffusion_pytorch_model.safetensors"):
        other = VideoVAE.from_pretrained(tmp_path)
        assert isinstance(other, OpenSoraVAE) and other.config == TINY
        found = other.tensors()
        assert found.keys() == tensors.keys()
        for name, array in found.items():
            np.testing.assert_array_equal(array, tensors[name], err_msg=name)
        np.testing.assert_array_equal(other.encode(video).mean.asnumpy(), expected)
        if file == "model.safetensors":
            (tmp_path / file).rename(tmp_path / "diffusion_pytorch_model.safetensors")


def test_files_are_replaced_only_when_asked(vae, tmp_path):
    vae.save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(FileExistsError, match=r"holds config.json already"):
        vae.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == before
    vae.save_pretrained(tmp_path, overwrite=True)
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns > before


def test_weights_that_do_not_fit_are_refused(tensors):
    broken = {name: array for name, array in tensors.items() if name != "shift"}
    broken["scale"] = np.ones(4, np.float32)
    with pytest.raises(ValueError, match=r"1 missing \(shift\); 1 misshapen \(scale is \(4,\)"):
        OpenSoraVAE.from_tensors(broken, TINY)
    with pytest.raises(ValueError, match=r"the network of 517 tensors"):
        OpenSoraVAE.from_tensors(tensors, {})  # the published sizes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"micro_frame_size": 0}, "micro_frame_size=0"),
        ({"micro_frame_size": "17"}, "micro_frame_size='17'"),
        ({"vae_2d": None}, "vae_2d=None; expected an object"),
        ({"vae_2d": {"type": "VideoAutoencoderKLTemporalDecoder"}}, "'VideoAutoencoderKL'"),
        ({"vae_temporal": {"type": "VAE_3D"}}, "known are 'VAE_Temporal_SD', 'VAE_Temporal'"),
        ({"vae_temporal": {"type": "VAE_Temporal", "filter": 4}}, "did you mean 'filters'"),
        ({"vae_temporal": {"in_out_channels": 4}}, "latents of vae_2d have 3"),
    ],
)
def test_a_wrong_config_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        OpenSoraVAE.shapes({**TINY, **changes})


def test_the_type_decides_where_time_is_halved():
    spatial = {"config": {**TINY["vae_2d"]["config"], "latent_channels": 4}}

    def convs(kind):
        names = OpenSoraVAE.shapes({"vae_temporal": {"type": kind}, "vae_2d": spatial})
        prefix = "temporal_vae.encoder.conv_blocks."
        return {name.removeprefix(prefix)[0] for name in names if name.startswith(prefix)}

    assert convs("VAE_Temporal_SD") == {"1", "2"}
    assert convs("VAE_Temporal") == {"0", "1"}
