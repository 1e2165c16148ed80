"""What is saved is read by the packages that others use."""

import mindone.diffusers
import numpy as np
import pytest
from safetensors import safe_open

from mg.cpu_stand_ins import install_stand_ins
from mg.weights import load_state_dict_from_file, save_state_dict_to_file
from tests.networks import network_tensors

CLASSES = {
    "sd": "AutoencoderKL",
    "cogvideox": "AutoencoderKLCogVideoX",
    "hunyuan": "AutoencoderKLHunyuanVideo",
}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


@pytest.mark.parametrize("family", ["tae", *CLASSES])
def test_the_safetensors_package_reads_saved_weights(all_vaes, tmp_path, family):
    all_vaes[family].save_pretrained(tmp_path)
    with safe_open(tmp_path / "diffusion_pytorch_model.safetensors", framework="np") as file:
        read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert_equal(read, all_vaes[family].tensors())


@pytest.mark.parametrize("family", CLASSES)
def test_mindones_from_pretrained_reads_saved_folders(all_vaes, tmp_path, family):
    all_vaes[family].save_pretrained(tmp_path)
    install_stand_ins()
    network = getattr(mindone.diffusers, CLASSES[family]).from_pretrained(str(tmp_path))
    assert_equal(network_tensors(network), all_vaes[family].tensors())


def test_weights_go_through_pytorchs_format_and_back(all_vaes, tmp_path):
    tensors = all_vaes["cogvideox"].tensors()
    save_state_dict_to_file(tensors, tmp_path / "vae.pt", format="pt")
    assert_equal(load_state_dict_from_file(tmp_path / "vae.pt"), tensors)
