"""A tiny autoencoder, a quick stand-in for its network, and small videos."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mg.data.video_writer import write_video
from mg.models.movie_gen.config import MovieGenConfig
from mg.models.movie_gen.parameter_shapes import parameter_shapes
from mg.models.tae.tae import TemporalAutoencoder
from mg.pipelines.generator_writer import save_generator
from mg.tiling.sizes import Tiling
from mg.weights.checkpoint_file import write_weights
from mg.weights.stored_config import config_metadata
from tests.tiny import TAE

# Two times smaller along each axis: quick, and not the compression of the full size.
CONFIG = TAE.to_dict() | {"attn_type": "spat_only"}
TILING = Tiling(frames=8, overlap_frames=4, height=16, width=16, overlap_pixels=8)


def smooth_frames(num_frames, height, width):
    """Return uint8 (T, H, W, 3) of a moving gradient."""
    t, y, x = np.mgrid[:num_frames, :height, :width]
    channels = [
        127 + 120 * np.sin((x * a + y * b + 4 * t) / 11) for a, b in ((1, 2), (2, 1), (1, 1))
    ]
    return np.stack(channels, axis=-1).astype(np.uint8)


def stand_in_moments(video):
    """Return mean and logvar of a network-like function: 2x2x2 blocks, minus what a tile shares.

    It needs no compiling; like the network's, its result depends on the whole tile.
    """
    video = video.asnumpy()
    if video.shape[2] % 2:
        video = np.concatenate((video, video[:, :, -1:]), axis=2)
    batch, _, frames, height, width = video.shape
    blocks = video.reshape(batch, 3, frames // 2, 2, height // 2, 2, width // 2, 2)
    mean = blocks.mean(axis=(3, 5, 7))
    mean = mean - 0.1 * mean.mean(axis=(2, 3, 4), keepdims=True)
    mean = np.concatenate((mean, mean[:, :1] * mean[:, 1:2]), axis=1)  # (B, 4, T', H', W')
    return Tensor(mean), Tensor(mean - 1)


def stand_in_frames(z, num_frames=None):
    """Return the video (B, 3, 2T', 2H', 2W') of a latent: repeated, plus what a tile shares."""
    video = z.asnumpy()[:, :3]
    video = video + 0.1 * video.mean(axis=(2, 3, 4), keepdims=True)
    for axis in (2, 3, 4):
        video = np.repeat(video, 2, axis=axis)
    return Tensor(np.clip(video, -1, 1))


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Return a weight file of the tiny autoencoder, its config inside."""
    ms.set_seed(0)
    tae = TemporalAutoencoder(CONFIG)
    path = tmp_path_factory.mktemp("weights") / "tae.safetensors"
    tensors = {name: p.asnumpy() for name, p in tae.parameters_and_names()}
    write_weights(path, tensors, metadata=config_metadata(tae.config.to_dict()))
    return path


@pytest.fixture
def make_tae(weights):
    """Return a function that loads the tiny autoencoder with options, its network stood in for."""

    def make(**options):
        options = {"tiling": TILING, "sample_deterministic": True, **options}
        tae = TemporalAutoencoder(None, weights, **options)
        tae.moments, tae.frames_from = stand_in_moments, stand_in_frames
        return tae

    return make


@pytest.fixture(scope="session")
def make_frames():
    """Return the function `smooth_frames`."""
    return smooth_frames


@pytest.fixture(scope="session")
def video_folder(tmp_path_factory):
    """Return a folder: a.mp4 (20 frames 24x32), sub/b.mp4 (13 frames 24x32), short.mp4, bad.mp4."""
    folder = tmp_path_factory.mktemp("videos")
    for name, num_frames in (("a.mp4", 20), ("sub/b.mp4", 13), ("short.mp4", 3)):
        write_video(folder / name, smooth_frames(num_frames, 24, 32), fps=25, lossless=True)
    (folder / "bad.mp4").write_bytes(b"not a video")
    return folder


TEXT_SPEC = "word,width=32,max_tokens=12"
TRANSFORMER = {
    "num_layers": 1,
    "dim": 32,
    "ffn_dim": 64,
    "num_heads": 2,
    "latent_channels": CONFIG["z_channels"],
    "position_table": [4, 8, 8],
    "text_encoders": [{"name": "word", "width": 32, "max_tokens": 12}],
    "timestep_width": 32,
}
DEFAULTS = {"num_frames": 8, "size": [16, 24], "fps": 12, "guidance": 3.0, "steps": 3}


def random_transformer(**fields):
    """Return random tensors and the config of a transformer that heeds its text."""
    config = MovieGenConfig.from_mapping(TRANSFORMER | fields)
    rng = np.random.default_rng(0)
    shapes = parameter_shapes(config).items()
    tensors = {name: 0.3 * rng.standard_normal(shape, np.float32) for name, shape in shapes}
    return {"transformer_tensors": tensors, "transformer_config": config}


@pytest.fixture(scope="session")
def generator_parts(weights):
    """Return arguments of `save_generator`: a random transformer that heeds its text."""
    return {
        **random_transformer(),
        "autoencoder": weights,
        "text_encoders": [TEXT_SPEC],
        "defaults": DEFAULTS,
    }


@pytest.fixture(scope="session")
def make_square_generator(generator_parts, tmp_path_factory):
    """Return a function that writes a random generator of 16x16 videos with conditions."""

    def make(conditions):
        channels = conditions.num_channels(CONFIG["z_channels"])
        folder = tmp_path_factory.mktemp("square") / "generator"
        parts = {
            **generator_parts,
            **random_transformer(condition_channels=channels),
            "defaults": DEFAULTS | {"size": [16, 16], "steps": 1},
            "conditions": conditions,
        }
        save_generator(folder, **parts)
        return folder

    return make


@pytest.fixture(scope="session")
def generator_folder(generator_parts, tmp_path_factory):
    """Return a generator's folder; not to be written to."""
    folder = tmp_path_factory.mktemp("generator") / "generator"
    save_generator(folder, **generator_parts)
    return folder
