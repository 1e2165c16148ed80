"""Recognising the family of a checkpoint by its config, and by its tensors' names and shapes."""

import json
from pathlib import Path

import numpy as np
import pytest

from mg.models.families import AUTOENCODERS, autoencoder_family
from mg.models.recognition import family_of_config, family_of_shapes, recognise
from mg.models.tae.config import TAEConfig
from mg.vaes.video_vae import CLASSES, family_class
from mg.weights.assumed_config import assumed_config
from mg.weights.tae_layers import tae_shapes
from mg.weights.vae_names import to_diffusers_names

KEYS = Path(__file__).parents[1] / "fixtures" / "vae_keys"
MANIFESTS = {
    "opensora-vae-v1.2": "opensora",
    "cogvideox-vae": "cogvideox",
    "hunyuanvideo-vae": "hunyuan",
    "causalvae-v1.0.0": "causal_vae",
    "video-dc-ae-f32t4c128": "dc_ae",
    "sd-vae-ft-mse": "sd",
    "sd35-vae": "sd",
}


def manifest(name):
    """Return {tensor name: shape} of a published file."""
    entries = json.loads((KEYS / f"{name}.json").read_text())
    return {key: tuple(shape) for key, (shape, _) in entries.items()}


@pytest.mark.parametrize(
    ("config", "family"),
    [
        ({"_class_name": "AutoencoderKL"}, "sd"),
        ({"_class_name": "AutoencoderKLCogVideoX"}, "cogvideox"),
        ({"_class_name": "AutoencoderKLHunyuanVideo"}, "hunyuan"),
        ({"_class_name": "AutoencoderKLCausal3D"}, "hunyuan"),
        ({"_class_name": "AutoencoderKLWan"}, "wan"),
        ({"_class_name": "CausalVAEModel"}, "causal_vae"),
        ({"_class_name": "VideoDCAE"}, "dc_ae"),
        ({"_class_name": "TemporalAutoencoder"}, "tae"),
        ({"ch_mult": [1, 2], "temporal_downsample_level": [0]}, "tae"),
        ({"architectures": ["VideoAutoencoderPipeline"]}, "opensora"),
        ({"model_type": "VideoAutoencoderPipeline"}, "opensora"),
        ({"architectures": [], "block_out_channels": [128]}, None),
    ],
)
def test_family_of_configs(config, family):
    assert family_of_config(config) == family


def test_config_of_another_class_is_refused():
    with pytest.raises(ValueError, match="class 'AutoencoderDC'; known are TemporalAuto"):
        family_of_config({"_class_name": "AutoencoderDC"})


@pytest.mark.parametrize(("name", "family"), MANIFESTS.items())
def test_family_of_published_files(name, family):
    shapes = manifest(name)
    assert family_of_shapes(shapes) == family
    assert recognise(None, shapes) == family


def test_family_of_tae():
    assert family_of_shapes(tae_shapes(TAEConfig().to_dict())) == "tae"


def test_other_networks_are_refused_by_their_name():
    expected = r"look like CogVideoX's transformer.*; families that can are tae"
    with pytest.raises(ValueError, match=expected):
        recognise(None, manifest("cogvideox-2b-transformer"))
    with pytest.raises(ValueError, match=r"1 tensors .* are unknown"):
        recognise(None, {"weight": (1, 2)})


def test_config_and_tensors_of_different_families_are_refused():
    with pytest.raises(ValueError, match="config is of family sd, the tensors are of family cogv"):
        recognise({"_class_name": "AutoencoderKL"}, manifest("cogvideox-vae"))


@pytest.mark.parametrize("name", ["cogvideox-vae", "hunyuanvideo-vae", "sd-vae-ft-mse", "sd35-vae"])
def test_assumed_config_makes_the_published_network(name, caplog):
    shapes, family = manifest(name), MANIFESTS[name]
    config = assumed_config(family, shapes)
    assert "assumed are scaling_factor=" in caplog.text
    # Former names of attention become today's; views of one number stand for the tensors.
    tensors = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
    today = {key: array.shape for key, array in to_diffusers_names(tensors).items()}
    assert family_class(family).shapes(config) == today


@pytest.mark.parametrize(
    ("name", "scaling"),
    [
        ("sd-vae-ft-mse", (0.18215, 0.0)),
        ("sd35-vae", (1.5305, 0.0609)),
        ("cogvideox-vae", (1.15258426, 0.0)),
        ("hunyuanvideo-vae", (0.476986, 0.0)),
    ],
)
def test_assumed_scaling_is_that_of_the_best_known_checkpoint(name, scaling):
    config = assumed_config(MANIFESTS[name], manifest(name))
    assert (config["scaling_factor"], config.get("shift_factor", 0.0)) == scaling


def test_sizes_that_cannot_be_assumed():
    shapes = manifest("sd-vae-ft-mse")
    narrow = {**shapes, "encoder.down_blocks.0.resnets.0.conv1.weight": (48, 48, 3, 3)}
    with pytest.raises(ValueError, match="with 48 channels the usual 32 groups"):
        assumed_config("sd", narrow)
    del shapes["decoder.conv_in.weight"]
    with pytest.raises(ValueError, match=r"decoder\.conv_in\.weight' is not among them"):
        assumed_config("sd", shapes)


def test_every_family_has_its_class():
    assert set(CLASSES) <= set(AUTOENCODERS)
    for family in AUTOENCODERS:
        assert family_class(family).family == family
        assert autoencoder_family(family).name == family
