"""Open-Sora-Plan's and Open-Sora 2.0's VAEs: from their folders to a `VideoVAE`, and back."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor

from mg.vaes import VideoVAE
from mg.weights.causal_vae import read_causal_vae

pytestmark = pytest.mark.usefixtures("pynative_mode")
FIXTURES = Path(__file__).parents[1] / "fixtures"
CAUSAL = FIXTURES / "causal_vae"
DC_AE = FIXTURES / "dc_ae"


@pytest.mark.parametrize("folder", [CAUSAL / "v1.0", CAUSAL / "v1.1", CAUSAL / "v1.2", DC_AE])
def test_a_folder_is_recognised_coded_and_saved_again(folder, tmp_path):
    vae = VideoVAE.from_pretrained(folder)
    assert vae.family == ("dc_ae" if folder is DC_AE else "causal_vae")
    step, side = vae.compression.t, vae.compression.h
    num_frames = step if folder is DC_AE else step + 1
    video = np.linspace(-1, 1, 3 * num_frames * 32 * 32, dtype=np.float32)
    video = Tensor(video.reshape(1, 3, num_frames, 32, 32))
    latent = vae.encode(video).mode()
    assert latent.shape[2:] == (-(-num_frames // step), 32 // side, 32 // side)
    assert vae.decode(latent, num_frames=num_frames).shape == video.shape

    vae.save_pretrained(tmp_path)
    again = VideoVAE.from_pretrained(tmp_path)
    assert type(again) is type(vae)
    others = again.tensors()
    for name, array in vae.tensors().items():
        assert np.array_equal(array, others[name]), name


def test_averaged_weights_are_taken_unless_others_are_asked_for():
    averaged = VideoVAE.from_pretrained(CAUSAL / "v1.2").tensors()
    trained = VideoVAE.from_pretrained(CAUSAL / "v1.2", key="state_dict").tensors()
    right = read_causal_vae(CAUSAL / "v1.2")
    name = next(name for name in right if name.endswith("conv.weight"))
    assert np.array_equal(averaged[name], right[name])
    assert not np.array_equal(trained[name], right[name])


def test_weights_without_a_config_need_what_no_shape_tells(tmp_path):
    file = tmp_path / "F_AE.safetensors"
    shutil.copy(DC_AE / file.name, file)
    with pytest.raises(ValueError, match="temporal_downsample"):  # the usual one has six levels
        VideoVAE.from_pretrained(file)
    config = {"temporal_downsample": [False, True, True, False]}
    assert VideoVAE.from_pretrained(file, config=config).compression.t == 4

    file = tmp_path / "causal.safetensors"
    shutil.copy(CAUSAL / "v1.0" / "diffusion_pytorch_model.safetensors", file)
    with pytest.raises(ValueError, match=r"come without a config\.json, and no shape tells"):
        VideoVAE.from_pretrained(file)


def test_a_config_of_other_widths_is_refused_by_its_fields():
    config = json.loads((DC_AE / "config.json").read_text())
    config["width_list"] = [8, 16, 32, 128]
    with pytest.raises(ValueError, match=r"width_list: the file says \[8, 16, 32, 64\]"):
        VideoVAE.from_pretrained(DC_AE, config=config)
