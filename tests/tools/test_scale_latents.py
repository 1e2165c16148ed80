"""tools/scale_latents.py measures the channels of latents and scales the weights by that."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np

from mg.data.latent_files import LatentInfo, LatentWriter
from mg.weights.safetensors_file import write_safetensors
from mg.weights.stored_config import config_metadata
from mg.weights.tae_layers import tae_shapes
from tests.tae_files import read_tae
from tests.tiny import TAE_WITH_LINEAR_PATH

ROOT = Path(__file__).parents[2]
CONFIG = dataclasses.replace(
    TAE_WITH_LINEAR_PATH, z_channels=2, scaling_factor=1.0, shift_factor=0.0
)


def test_measured_deviations_decide(tmp_path):
    rng = np.random.default_rng(0)
    config = CONFIG.to_dict()
    tensors = {
        name: rng.standard_normal(shape).astype(np.float32)
        for name, shape in tae_shapes(config).items()
    }
    source, target = tmp_path / "tae.safetensors", tmp_path / "scaled.safetensors"
    write_safetensors(source, tensors, metadata=config_metadata(config))
    command = [sys.executable, "tools/scale_latents.py", "--src", source, "--target", target]
    command += ["--latent_folder", tmp_path / "latents"]
    (tmp_path / "latents").mkdir()
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode != 0 and "no latent file" in refused.stderr
    info = LatentInfo(4, 8, 8, 16.0, "clip.mp4", config, "", "", {})
    mean = np.ones(info.latent_shape(), np.float32)  # (2, T', H', W'), with deviations 3 and 0.5
    mean[0, :, :, ::2], mean[0, :, :, 1::2] = 4, -2
    mean[1, 0], mean[1, 1] = 0.5, -0.5
    with LatentWriter(tmp_path / "latents" / "clip.safetensors", info) as writer:
        writer.write(mean, np.zeros_like(mean))
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    scaled, found_config = read_tae(target)
    assert found_config == read_tae(source)[1]
    # Of two channels the larger counts as the other one: both get a mean square of 1.
    scales = (tensors["decoder.linear.weight"] / scaled["decoder.linear.weight"])[0, :, 0, 0]
    np.testing.assert_allclose(scales, [1 / 3, 2], rtol=1e-5)
