"""An image TAE inflated over time is the same function on images and on still clips."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor

from mg.models.tae.tae import TemporalAutoencoder
from mg.weights.checkpoint_file import write_weights
from mg.weights.inflation import inflate_image_tae
from mg.weights.stored_config import config_metadata

ROOT = Path(__file__).parents[2]
IMAGE_CONFIG = {
    "ch": 16,
    "ch_mult": [1, 2],
    "num_res_blocks": 1,
    "norm_groups": 8,
    "attn_type": "spat_only",
    "temporal_downsample_level": [],
    "temporal_upsample_level": [],
}


@pytest.fixture(scope="module")
def image_tae():
    """Return an image TAE whose residual branches do something."""
    tae = TemporalAutoencoder(IMAGE_CONFIG)
    rng = np.random.default_rng(0)
    tensors = {
        name: array + 0.1 * rng.standard_normal(array.shape).astype(np.float32)
        if "conv_spat" in name
        else array
        for name, array in tae.tensors().items()
    }
    tae.load_tensors(tensors)
    return tae


@pytest.mark.parametrize("method", ["central", "average"])
def test_still_clips_give_the_image(pynative_mode, image_tae, method):
    tensors, config = inflate_image_tae(
        image_tae.tensors(),
        image_tae.config.to_dict(),
        method=method,
        temporal_padding="replicate",
    )
    video_tae = TemporalAutoencoder(config)
    video_tae.load_tensors(tensors)
    image = np.random.default_rng(1).uniform(-1, 1, (2, 3, 1, 16, 16)).astype(np.float32)
    expected = image_tae(Tensor(image)).asnumpy()
    still = video_tae(Tensor(np.repeat(image, 3, axis=2))).asnumpy()
    np.testing.assert_allclose(video_tae(Tensor(image)).asnumpy(), expected, atol=1e-5)
    np.testing.assert_allclose(still, np.repeat(expected, 3, axis=2), atol=1e-5)


def test_a_video_tae_is_refused(image_tae):
    config = {**image_tae.config.to_dict(), "temporal_downsample_level": [0]}
    with pytest.raises(ValueError, match="a video TAE already"):
        inflate_image_tae(image_tae.tensors(), config)
    with pytest.raises(ValueError, match=r"structure decides .*, not 'norm_groups'"):
        inflate_image_tae(image_tae.tensors(), config, structure={"norm_groups": 4})


def test_the_tool_takes_an_image_tae(image_tae, tmp_path):
    source, target = tmp_path / "image.safetensors", tmp_path / "video.safetensors"
    metadata = config_metadata(image_tae.config.to_dict())
    write_weights(source, image_tae.tensors(), metadata=metadata)
    command = [sys.executable, "tools/inflate_vae_to_tae.py", "--src", source, "--target", target]
    command.append("--norm_per_frame")
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    config = json.loads(target.with_suffix(".json").read_text())
    assert config["temporal_downsample_level"] == [0] and config["norm_groups"] == 8
    assert config["norm_per_frame"]
    assert TemporalAutoencoder(pretrained=target).config.to_dict() == config
