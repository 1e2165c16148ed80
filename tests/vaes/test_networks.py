"""Weights go into networks strictly, in any precision and under older names, and come back."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from mg.models.autoencoder_kl.config import AutoencoderKLConfig
from mg.models.autoencoder_kl.family import FAMILY
from mg.weights.own_tensors import own_tensors
from mg.weights.safetensors_file import read_safetensors
from mg.weights.vae_names import to_diffusers_names

FOLDER = Path(__file__).parents[1] / "fixtures" / "vaes" / "kl"


def network_and_tensors(*, initialize=True):
    config = AutoencoderKLConfig.from_mapping(json.loads((FOLDER / "config.json").read_text()))
    tensors = read_safetensors(FOLDER / "diffusion_pytorch_model.safetensors")
    if initialize:
        return FAMILY.build(config), tensors
    return FAMILY.build(config, has_values=False), tensors


def test_ldm_names_load(pynative_mode):
    network, tensors = network_and_tensors()
    ldm = {
        "first_stage_model." + _ldm_name(name): array[..., None, None]
        if ".attentions." in name and array.ndim == 2
        else array
        for name, array in tensors.items()
    }
    assert "first_stage_model.decoder.up.1.block.0.norm1.weight" in ldm
    network.load_tensors(to_diffusers_names(own_tensors(ldm)))
    for name, array in network.tensors().items():
        np.testing.assert_array_equal(array, tensors[name])


def _ldm_name(name):
    """Return LDM's name for one of diffusers', of a VAE of two levels."""
    name = re.sub(
        r"up_blocks\.(\d)", lambda match: f"up.{1 - int(match[1])}", name
    )  # from the output side
    for new, old in {
        "down_blocks": "down",
        "mid_block.resnets.0": "mid.block_1",
        "mid_block.resnets.1": "mid.block_2",
        "mid_block.attentions.0": "mid.attn_1",
        "resnets": "block",
        "conv_shortcut": "nin_shortcut",
        "downsamplers.0": "downsample",
        "upsamplers.0": "upsample",
        "group_norm": "norm",
        "to_out.0": "proj_out",
        "to_q": "q",
        "to_k": "k",
        "to_v": "v",
        "conv_norm_out": "norm_out",
    }.items():
        name = name.replace(new, old)
    return name


@pytest.mark.parametrize("initialize", [True, False])
def test_loading_takes_any_precision_and_copies(initialize, pynative_mode):
    network, tensors = network_and_tensors(initialize=initialize)
    half = {name: array.astype(np.float16) for name, array in tensors.items()}
    network.load_tensors(half)
    first = network.tensors()
    assert all(array.dtype == np.float32 for array in first.values())
    for name, array in first.items():
        np.testing.assert_array_equal(array, half[name].astype(np.float32))
    first["encoder.conv_in.bias"][:] = 7
    assert (network.tensors()["encoder.conv_in.bias"] != 7).all()


def test_what_does_not_fit_is_refused_and_changes_nothing(pynative_mode):
    network, tensors = network_and_tensors()
    network.load_tensors(tensors)
    bias = "decoder.conv_out.bias"
    wrong = {
        "1 missing": {name: array for name, array in tensors.items() if name != bias},
        "1 extra": {**tensors, "decoder.conv_out.scale": tensors[bias]},
        "1 misshapen": {**tensors, bias: tensors[bias][:1]},
        "holds int64": {**tensors, bias: tensors[bias].astype(np.int64)},
    }
    for message, given in wrong.items():
        with pytest.raises(ValueError, match=message):
            network.load_tensors(
                {name: array + array.dtype.type(1) for name, array in given.items()}
            )
    for name, array in network.tensors().items():
        np.testing.assert_array_equal(array, tensors[name])
