"""Where an inflated TAE is its image VAE and where it is not, against the VAE's stored outputs.

All errors are the largest difference, relative to the largest value of the reference.
"""

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from mg.models.tae.tae import TemporalAutoencoder
from mg.weights.checkpoint_file import read_weights, write_weights
from mg.weights.inflation import inflate_image_vae
from mg.weights.stored_config import config_metadata, stored_vae_fields
from tests.image_vae_names import image_vae_to_tae_names

FIXTURES = Path(__file__).parents[1] / "fixtures"
SD35_PATH = FIXTURES / "sd35_vae_tiny.safetensors"
SD35 = np.load(FIXTURES / "sd35_vae_tiny.npz", allow_pickle=False)
KL = np.load(FIXTURES / "vaes" / "kl.npz", allow_pickle=False)

NO_TEMPORAL_LEVELS = {"temporal_downsample_level": [], "temporal_upsample_level": []}
EQUAL = 1e-4  # measured: 5e-6
pytestmark = pytest.mark.usefixtures("pynative_mode")


def as_video(images: np.ndarray) -> Tensor:
    """(T, C, H, W) -> (1, C, T, H, W)."""
    return Tensor(np.ascontiguousarray(images.swapaxes(0, 1)[None]))


def as_images(video: Tensor) -> np.ndarray:
    """(1, C, T, H, W) -> (T, C, H, W)."""
    return video.asnumpy()[0].swapaxes(0, 1)


def error(actual: np.ndarray, expected: np.ndarray) -> float:
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


class Inflated:
    """The tiny SD3.5 VAE, inflated; its errors on clips whose frames are the fixture's images."""

    def __init__(self, method: str, padding: str, structure: dict) -> None:
        tensors, config = inflate_image_vae(
            read_weights(SD35_PATH), method=method, temporal_padding=padding, structure=structure
        )
        self.tae = TemporalAutoencoder(config, sample_deterministic=True)
        self.tae.load_tensors(tensors)

    def clip(self, images: list[int]) -> Tensor:
        """Return a clip from which the temporal levels, if central, keep just these images."""
        factor = self.tae.config.temporal_compression
        frames = SD35["image"][images].repeat(factor, axis=0)
        if len(set(images)) > 1:  # otherwise it is to be still
            kept = np.zeros(len(frames), bool)
            kept[::factor] = True  # of the taps 2i-1, 2i, 2i+1 of each level the middle one counts
            noise = np.random.default_rng(0).uniform(-1, 1, frames.shape).astype(np.float32)
            frames = np.where(kept[:, None, None, None], frames, noise)
        return as_video(frames)

    def errors(self, images: list[int], *, video: Tensor | None = None) -> dict[str, float]:
        """Return the errors against the VAE, applied to each image or latent by itself."""
        _, mean, logvar = self.tae.encode(self.clip(images) if video is None else video)
        decoded = self.tae.decode(as_video(SD35["latent"][images]))
        factor = self.tae.config.temporal_compression
        return {
            "mean": error(as_images(mean), SD35["mean"][images]),
            "logvar": error(as_images(logvar), SD35["logvar"][images]),
            "decoded": error(as_images(decoded), SD35["decoded"][images].repeat(factor, axis=0)),
        }


@pytest.mark.parametrize(
    ("levels", "padding"),
    [("every level", "published"), ("every level", "replicate"), ("no levels", "published")],
)
@pytest.mark.parametrize("method", ["central", "average"])
def test_table(levels, method, padding):
    """`replicate` and `average` are the same weights (test_inflation.py); so are both paddings
    without temporal levels (next test)."""
    structure = NO_TEMPORAL_LEVELS if levels == "no levels" else {}
    pooled = Inflated(method, padding, structure)
    per_frame = Inflated(method, padding, {**structure, "norm_per_frame": True})
    moving = [0, 1, 1] if levels == "no levels" else [0, 1]
    image = pooled.errors([0], video=as_video(SD35["image"][:1]))
    assert max(image.values()) < EQUAL, f"image: {image}"
    for inflated in (pooled, per_frame):
        still = inflated.errors([1, 1])
        assert max(still.values()) < EQUAL, f"still clip: {still}"
    by_pooled, by_frame = pooled.errors(moving), per_frame.errors(moving)
    if method == "central":
        assert max(by_frame.values()) < EQUAL, f"moving clip, norm per frame: {by_frame}"
        assert min(by_pooled.values()) > 0.1, f"moving clip, pooled norm: {by_pooled}"
    else:
        assert min(by_frame.values()) > 0.5, f"moving clip, norm per frame: {by_frame}"
        assert min(by_pooled.values()) > 0.5, f"moving clip, pooled norm: {by_pooled}"


def test_padding_without_temporal_levels_makes_no_difference():
    one, other = (
        inflate_image_vae(
            read_weights(SD35_PATH),
            method="average",
            temporal_padding=padding,
            structure=NO_TEMPORAL_LEVELS,
        )[0]
        for padding in ("published", "replicate")
    )
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])


# -- 4 channels, with quantisation convolutions, 8 groups; today's and the former attention names --


@pytest.mark.parametrize("folder", ["kl", "kl_old"])
def test_stable_diffusion_vae_loaded_directly(folder):
    tae = TemporalAutoencoder(pretrained=FIXTURES / "vaes" / folder, sample_deterministic=True)
    config = tae.config
    assert (config.z_channels, config.use_quant_conv, config.use_post_quant_conv) == (4, True, True)
    assert (config.scaling_factor, config.shift_factor, config.norm_groups) == (0.18215, 0.0, 8)
    assert (config.temporal_compression, config.spatial_compression) == (2, 2)
    for num_frames in (1, 4):
        clip = as_video(KL["i:x"].repeat(num_frames, axis=0))
        z, mean, logvar = tae.encode(clip)
        frames = tae.decode(z, num_target_frames=num_frames)
        num_latents = -(-num_frames // 2)
        assert error(as_images(mean), KL["o:z"].repeat(num_latents, axis=0)) < EQUAL
        assert error(as_images(logvar), KL["o:logvar"].repeat(num_latents, axis=0)) < EQUAL
        assert error(as_images(frames), KL["o:y"].repeat(num_frames, axis=0)) < EQUAL


@pytest.mark.parametrize("per_frame", [False, True])
def test_gradients_are_the_image_vaes(per_frame):
    """Every gradient, on a still clip of two frames."""
    folder = FIXTURES / "vaes" / "kl"
    structure = {**stored_vae_fields(folder), **NO_TEMPORAL_LEVELS, "norm_per_frame": per_frame}
    tensors, config = inflate_image_vae(read_weights(folder), structure=structure)
    tae = TemporalAutoencoder(config)
    tae.load_tensors(tensors)
    video = as_video(KL["i:x"].repeat(2, axis=0))
    parameters = dict(tae.parameters_and_names())

    def loss(video):
        return ops.square(tae(video) - video).mean()

    value, gradients = ms.value_and_grad(loss, None, list(parameters.values()))(video)
    assert abs(float(value) - float(KL["loss"])) < 1e-5
    found = {name: gradient.asnumpy() for name, gradient in zip(parameters, gradients, strict=True)}
    names = image_vae_to_tae_names(config)
    assert {f"g:{name}" for name in names} == {key for key in KL.files if key.startswith("g:")}
    # Some are zero in theory (a bias before a normalisation); their rounding has the others' size.
    floor = 0.01 * max(np.abs(KL[f"g:{name}"]).max() for name in names)
    for source, target in names.items():
        expected = KL[f"g:{source}"]
        difference = np.abs(found[target].reshape(expected.shape) - expected).max()
        assert difference < EQUAL * max(np.abs(expected).max(), floor), source


def test_norm_per_frame_is_stored_with_the_weights(tmp_path):
    folder = FIXTURES / "vaes" / "kl"
    structure = {**stored_vae_fields(folder), "norm_per_frame": True}
    tensors, config = inflate_image_vae(read_weights(folder), structure=structure)
    path = tmp_path / "tae.safetensors"
    write_weights(path, tensors, metadata=config_metadata(config))
    assert TemporalAutoencoder(pretrained=path).config.norm_per_frame
    with pytest.raises(ValueError, match="norm_per_frame: the file says True, the config says F"):
        TemporalAutoencoder({**config, "norm_per_frame": False}, pretrained=path)


def test_parameters_of_the_network_are_those_of_the_layer_table():
    for path, groups in ((SD35_PATH, 32), (FIXTURES / "vaes" / "kl", 8)):
        tensors, config = inflate_image_vae(read_weights(path), structure={"norm_groups": groups})
        tae = TemporalAutoencoder(config=config)
        shapes = {name: tuple(p.shape) for name, p in tae.parameters_and_names()}
        assert shapes == {name: array.shape for name, array in tensors.items()}
