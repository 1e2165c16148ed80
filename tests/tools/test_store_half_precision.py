"""Weights stored in float16 load with their config and differ by float16's rounding only."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mg.conditions.text.build import build_text_encoder
from mg.conditions.visual import ChannelConditions
from mg.models.denoiser_config import TextInput
from mg.models.movie_gen.config import MovieGenConfig
from mg.models.movie_gen.parameter_shapes import parameter_shapes
from mg.pipelines.generator_folder import load_generator
from mg.pipelines.generator_writer import save_generator
from mg.weights.safetensors_file import write_safetensors
from mg.weights.stored_config import config_metadata
from tests.tae_files import read_tae

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "assets" / "tae_tiny" / "tae_tiny.safetensors"


def store(target, *flags, source=SOURCE):
    command = [sys.executable, "tools/store_half_precision.py", "--src", source, "--target", target]
    return subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True)


def assert_halved(halved, tensors):
    assert set(halved) == set(tensors)
    for name, array in tensors.items():
        np.testing.assert_allclose(halved[name], array, rtol=2**-11, atol=2**-25)


def test_values_and_config_survive(tmp_path):
    target = tmp_path / "half.safetensors"
    assert store(target).returncode == 0
    tensors, config = read_tae(SOURCE)
    halved, halved_config = read_tae(target)
    assert halved_config == config
    assert_halved(halved, tensors)


def test_of_a_checkpoint_the_averaged_weights_count(tmp_path):
    folder, target = tmp_path / "step_00000010", tmp_path / "half.safetensors"
    tensors, config = read_tae(SOURCE)
    name = "encoder.conv_in.conv_temp.bias"
    average = np.arange(tensors[name].size, dtype=np.float32)
    write_safetensors(folder / "tae.safetensors", tensors, metadata=config_metadata(config))
    state = {f"average.{name}": average, f"first_moment.{name}": 9 * average}
    write_safetensors(folder / "tae_state.safetensors", state)
    assert store(target, source=folder).returncode == 0
    halved, halved_config = read_tae(target)
    assert halved_config == config
    assert_halved(halved, tensors | {name: average})


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    """Return the folder of a random generator that takes a source."""
    word = build_text_encoder("word")
    config = MovieGenConfig(
        dim=32,
        num_layers=1,
        num_heads=2,
        ffn_dim=64,
        condition_channels=16,
        text_encoders=(TextInput("word", word.width, word.max_tokens),),
    )
    draw = np.random.default_rng(0).standard_normal
    tensors = {name: draw(s).astype(np.float32) for name, s in parameter_shapes(config).items()}
    folder = tmp_path_factory.mktemp("whole") / "generator"
    save_generator(
        folder,
        transformer_tensors=tensors,
        transformer_config=config,
        autoencoder=SOURCE,
        text_encoders=["word"],
        defaults={"num_frames": 16, "size": (64, 64), "fps": 16.0},
        conditions=ChannelConditions(has_source=True),
    )
    return folder


def test_a_generator_keeps_all_but_the_precision(generator, tmp_path):
    source, target = generator, tmp_path / "half"
    assert store(target, source=source).returncode == 0
    whole, half = load_generator(source), load_generator(target)
    assert half.conditions.names == whole.conditions.names == ("source",)
    assert (half.transformer_config, half.autoencoder.config) == (
        whole.transformer_config,
        whole.autoencoder.config,
    )
    assert half.defaults == whole.defaults
    assert_halved(half.transformer_tensors, whole.transformer_tensors)
    assert_halved(half.autoencoder.tensors, whole.autoencoder.tensors)
    sizes = [sum(p.stat().st_size for p in f.rglob("*.safetensors")) for f in (source, target)]
    assert 0.49 < sizes[1] / sizes[0] < 0.52


def test_a_generator_takes_another_decoder_of_its_latents(generator, tmp_path):
    tensors, config = read_tae(SOURCE)
    for part in ("decoder", "encoder"):
        changed = {
            name: array + (0.5 if name.startswith(part) else 0) for name, array in tensors.items()
        }
        path = tmp_path / f"{part}.safetensors"
        write_safetensors(path, changed, metadata=config_metadata(config))
        target = tmp_path / part
        done = store(target, "--autoencoder", path, source=generator)
        if part == "encoder":
            assert done.returncode == 1 and "has another encoder than" in done.stderr
            assert not target.exists()
        else:
            assert done.returncode == 0
            assert_halved(load_generator(target).autoencoder.tensors, changed)
    refused = store(tmp_path / "tae.safetensors", "--autoencoder", SOURCE)
    assert refused.returncode == 1 and "is for a generator's folder" in refused.stderr


def test_existing_files_are_kept(tmp_path):
    target = tmp_path / "half.safetensors"
    target.write_bytes(b"mine")
    refused = store(target)
    assert refused.returncode == 1 and "exists already" in refused.stderr
    assert target.read_bytes() == b"mine"
