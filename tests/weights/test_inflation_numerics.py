"""The inflated TAE is the image VAE on a single image, whatever file it is loaded from."""

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from mg.models.tae.tae import TemporalAutoencoder
from mg.weights.checkpoint_file import read_weights, write_weights
from mg.weights.inflation import inflate_image_vae
from mg.weights.stored_config import config_metadata

FIXTURES = Path(__file__).parents[1] / "fixtures"
VAE_PATH = FIXTURES / "sd35_vae_tiny.safetensors"
REFERENCE = np.load(FIXTURES / "sd35_vae_tiny.npz", allow_pickle=False)


def assert_is_the_image_vae(tae: TemporalAutoencoder, num_frames: int = 1) -> None:
    """Compare with the image VAE on its image, repeated to a still clip of at most 8 frames."""
    clip = REFERENCE["image"][:1, :, None].repeat(num_frames, axis=2)  # (1, 3, T, H, W)
    _, mean, logvar = tae.encode(ms.Tensor(clip))
    decoded = tae.decode(ms.Tensor(REFERENCE["latent"][:1, :, None]))
    assert decoded.shape == (1, 3, 8, 64, 64)
    for name, value in (("mean", mean), ("logvar", logvar), ("decoded", decoded)):
        # Every frame is the image; (1, C, T, H, W) against (1, C, 1, H, W)
        error = np.abs(value.asnumpy() - REFERENCE[name][:1, :, None]).max()
        assert error < 1e-4, f"{name} differs by {error}"


def test_image_vae_loaded_directly():
    assert_is_the_image_vae(TemporalAutoencoder(pretrained=VAE_PATH))


@pytest.mark.parametrize("padding", ["published", "replicate"])
def test_spread_kernels_keep_a_still_clip_still(tmp_path, padding):
    tensors, config = inflate_image_vae(
        read_weights(VAE_PATH), method="average", temporal_padding=padding
    )
    path = tmp_path / "tae.safetensors"
    write_weights(path, tensors, metadata=config_metadata(config))
    tae = TemporalAutoencoder(pretrained=path)
    assert tae.config.temporal_padding == padding
    assert_is_the_image_vae(tae, num_frames=3)


def test_parameters_of_the_network_are_those_of_the_layer_table():
    tensors, config = inflate_image_vae(read_weights(VAE_PATH))
    tae = TemporalAutoencoder(config=config)
    shapes = {name: tuple(p.shape) for name, p in tae.parameters_and_names()}
    assert shapes == {name: array.shape for name, array in tensors.items()}
