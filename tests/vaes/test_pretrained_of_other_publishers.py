"""Wan, Open-Sora-Plan, Open-Sora 2.0: from their folders to a `VideoVAE`, and back."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor

from mg.vaes import VideoVAE
from mg.weights.checkpoint_file import write_weights
from mg.weights.own_tensors import read_own_tensors
from mg.weights.safetensors_file import read_safetensors

pytestmark = pytest.mark.usefixtures("pynative_mode")
FIXTURES = Path(__file__).parents[1] / "fixtures"
CAUSAL = FIXTURES / "causal_vae"
WAN = FIXTURES / "wan"
DC_AE = FIXTURES / "dc_ae"


@pytest.mark.parametrize(
    ("folder", "family"),
    [
        (WAN / "wan21", "wan"),
        (WAN / "wan22", "wan"),
        (CAUSAL / "v1.0", "causal_vae"),
        (CAUSAL / "v1.1", "causal_vae"),
        (CAUSAL / "v1.2", "causal_vae"),
        (DC_AE, "dc_ae"),
    ],
)
def test_a_folder_is_recognised_coded_and_saved_again(folder, family, tmp_path):
    vae = VideoVAE.from_pretrained(folder)
    assert vae.family == family
    step, side = vae.compression.t, vae.compression.h
    num_frames = step if family == "dc_ae" else step + 1
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
    right = read_own_tensors(CAUSAL / "v1.2")
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


@pytest.mark.parametrize("version", ["wan21", "wan22"])
def test_wan_encodes_in_tiles_as_recorded(version):
    vae = VideoVAE.from_pretrained(WAN / version)
    with np.load(WAN / f"{version}.npz", allow_pickle=False) as reference:
        sizes = json.loads(str(reference["tile"]))
        overlap = sizes["min_h"] - sizes["stride_h"]
        assert overlap == sizes["min_w"] - sizes["stride_w"]
        vae.enable_tiling(height=sizes["min_h"], width=sizes["min_w"], overlap_pixels=overlap)
        mean = vae.encode(Tensor(reference["i:tile_x"])).mean.asnumpy()
        np.testing.assert_allclose(mean, reference["o:tile_mean"], rtol=0, atol=5e-4)


def test_original_wan_weights_need_no_config(tmp_path, caplog):
    published = json.loads((WAN / "wan21_names.json").read_text())
    names = {old: new for old, (new, _) in published.items()}
    tensors = read_safetensors(WAN / "wan21" / "diffusion_pytorch_model.safetensors")
    renamed = {old: tensors[new] for old, new in names.items()}
    write_weights(tmp_path / "Wan2.1_VAE.safetensors", renamed)
    vae = VideoVAE.from_pretrained(tmp_path / "Wan2.1_VAE.safetensors")
    assert vae.family == "wan" and "assumed are latents_mean=" in caplog.text
    for name, array in vae.tensors().items():
        assert np.array_equal(array, np.float32(tensors[name])), name
