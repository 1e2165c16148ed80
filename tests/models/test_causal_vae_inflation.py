"""Where an inflated CausalVideoVAE is its image VAE, against the VAE's stored outputs.

Errors are the largest difference, relative to the largest value of the reference.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor

from mg.models.causal_vae.config import CausalVAEConfig
from mg.models.causal_vae.inflation import usual_fields
from mg.models.reading import read_vae
from mg.vaes import VideoVAE
from mg.vaes.causal_vae import CausalVideoVAE
from mg.weights.checkpoint_file import read_weights, write_weights
from mg.weights.image_vae import image_vae_config
from mg.weights.vae_names import from_ldm

FIXTURES = Path(__file__).parents[1] / "fixtures"
KL = FIXTURES / "vaes" / "kl"
SD35 = FIXTURES / "sd35_vae_tiny.safetensors"
HALVES = ("encoder", "decoder")
EQUAL = 1e-4  # measured: 5e-6
pytestmark = pytest.mark.usefixtures("pynative_mode")

# Every kind of module that an image VAE's layers can become; samplers with weights of their own.
MIXED = {
    "hidden_size": 16,
    "hidden_size_mult": [1, 2],
    "num_res_blocks": 1,
    "norm_num_groups": 8,
    "encoder_conv_in": "Conv2d",
    "encoder_resnet_blocks": ["ResnetBlock2D", "ResnetBlock3D"],
    "encoder_mid_resnet": "ResnetBlock2D",
    "encoder_attention": "AttnBlock3DFix",
    "encoder_spatial_downsample": ["Downsample", "SpatialDownsample2x"],
    "encoder_temporal_downsample": ["TimeDownsampleRes2x", ""],
    "decoder_conv_out": "Conv2d",
    "decoder_resnet_blocks": ["ResnetBlock2D", "ResnetBlock3D"],
    "decoder_attention": "AttnBlock",
    "decoder_spatial_upsample": ["", "Upsample"],
    "decoder_temporal_upsample": ["", "TimeUpsampleResAdv2x"],
    "attn_resolutions": [256],
    "q_conv": "Conv2d",
}
OF_3D = {
    **MIXED,
    **{"encoder_conv_in": "CausalConv3d", "decoder_conv_out": "CausalConv3d"},
    "encoder_spatial_downsample": ["Spatial2x3DDownsample", "Downsample"],
    "encoder_temporal_downsample": ["TimeDownsampleResAdv2x", ""],
    "decoder_spatial_upsample": ["", "SpatialUpsample2x"],
    "decoder_temporal_upsample": ["", "TimeUpsampleRes2x"],
}


def inflated(config=None, method="central", path=KL):
    read = read_vae(path, config=config, inflate_method=method, into="causal_vae")
    assert read.family == "causal_vae"
    return CausalVideoVAE.from_tensors(read.tensors, read.config)


def errors(vae, num_frames):
    """Return the errors of mean, logvar and decoded frames, of every frame of a still clip."""
    reference = np.load(FIXTURES / "vaes" / "kl.npz", allow_pickle=False)
    clip = np.repeat(reference["i:x"][:, :, None], num_frames, axis=2)
    posterior = vae.encode(Tensor(clip))
    found = {"o:z": posterior.mean, "o:logvar": posterior.logvar, "o:y": vae.decode(posterior)}
    worst = 0.0
    for key, array in found.items():
        right = reference[key][:, :, None]
        array = array.asnumpy()
        assert array.shape[:2] == right.shape[:2] and array.shape[3:] == right.shape[3:]
        worst = max(worst, float(np.abs(array - right).max() / np.abs(right).max()))
    assert posterior.mean.shape[2] == vae.num_latent_frames(num_frames)
    return worst


@pytest.mark.parametrize("method", ["central", "tail", "replicate", "average"])
@pytest.mark.parametrize("config", [None, MIXED, OF_3D], ids=["usual", "mixed", "3d"])
def test_images_and_still_clips_are_coded_as_by_the_image_vae(config, method):
    vae = inflated(config, method)
    assert errors(vae, 1) < EQUAL
    assert errors(vae, 5) < EQUAL


def test_v1_0s_attention_keeps_images_alone(caplog):
    config = {**MIXED, "encoder_attention": "AttnBlock3D", "decoder_attention": "AttnBlock3D"}
    vae = inflated(config)
    assert "AttnBlock3DFix does" in caplog.text
    assert errors(vae, 1) < EQUAL
    assert errors(vae, 5) > 0.1


def test_the_kernels_are_in_the_tap_of_the_frame_itself():
    image, vae = read_weights(KL), inflated().tensors()
    name, source = "decoder.mid.block_2.conv1.conv.weight", "decoder.mid_block.resnets.1.conv1"
    assert np.array_equal(vae[name][:, :, -1], image[f"{source}.weight"])
    assert not vae[name][:, :, :-1].any()
    spread = inflated(method="average").tensors()[name]
    np.testing.assert_allclose(spread.sum(2), vae[name][:, :, -1], rtol=0, atol=1e-6)
    assert np.array_equal(spread[:, :, 0], spread[:, :, 2])
    # All of the image VAE is in it, and nothing else than what passes on or adds nothing.
    assert sum(array.any() for array in vae.values()) == sum(
        array.any() for array in image.values()
    )


def test_the_usual_config_has_the_sizes_of_the_image_vae():
    config = inflated().network.config
    assert (config.widths, config.num_res_blocks, config.norm_num_groups) == ([16, 32], 1, 8)
    assert (config.spec.t, config.spec.h, config.scaling_factor) == (2, 2, 0.18215)
    assert config.encoder_attention == config.decoder_attention == "AttnBlock3DFix"


def test_a_full_size_image_vae_has_the_usual_levels():
    manifest = json.loads((FIXTURES / "vae_keys" / "sd-vae-ft-mse.json").read_text())
    tensors = {n: np.broadcast_to(np.float32(0), shape) for n, (shape, _) in manifest.items()}
    config = CausalVAEConfig(**usual_fields(image_vae_config(tensors), {}))
    usual = {"encoder_attention": "AttnBlock3DFix", "decoder_attention": "AttnBlock3DFix"}
    assert config == CausalVAEConfig(**usual)


def test_names_of_latent_diffusion(tmp_path):
    """The image VAE as a `.ckpt` of Stable Diffusion has it."""
    image, renamed = read_weights(KL), {}
    for name in inflated().tensors():
        ldm = re.sub(r"\.conv\.(weight|bias)$", r".\1", name)
        array = image[from_ldm(ldm, 2)]
        renamed[f"first_stage_model.{ldm}"] = array[..., None, None] if array.ndim == 2 else array
    assert len(renamed) == len(image)
    write_weights(tmp_path / "vae.ckpt", renamed)
    (tmp_path / "config.json").write_text('{"norm_num_groups": 8, "scaling_factor": 0.5}')
    vae = inflated(path=tmp_path / "vae.ckpt", config={**MIXED, "scaling_factor": 0.5})
    assert errors(vae, 5) < EQUAL


def test_16_channels_without_quantisation_convolutions():
    stated = json.loads(SD35.with_suffix(".json").read_text())
    width = stated["block_out_channels"][0]
    config = {
        "hidden_size": width,
        "hidden_size_mult": [size // width for size in stated["block_out_channels"]],
        "num_res_blocks": stated["layers_per_block"],
        "norm_num_groups": stated["norm_num_groups"],
        "z_channels": 16,
        "embed_dim": 16,
        "encoder_attention": "AttnBlock3DFix",
        "decoder_attention": "AttnBlock3DFix",
    }
    tensors = read_vae(SD35, config=config, into="causal_vae").tensors
    # The convolutions that it lacks pass on what they get.
    assert np.array_equal(tensors["quant_conv.conv.weight"][..., 0, 0, 0], np.eye(32))
    vae = CausalVideoVAE.from_tensors(tensors, config)
    reference = np.load(FIXTURES / "sd35_vae_tiny.npz", allow_pickle=False)
    mean = vae.encode(Tensor(reference["image"][:1, :, None])).mean.asnumpy()[:, :, 0]
    error = np.abs(mean - reference["mean"][:1]).max() / np.abs(reference["mean"]).max()
    assert error < EQUAL


def test_a_config_names_the_family_to_inflate_into():
    vae = VideoVAE.from_pretrained(KL, config={"_class_name": "CausalVAEModel", **MIXED})
    assert vae.family == "causal_vae"
    assert errors(vae, 1) < EQUAL


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 32}, "hidden_size is 32 in the config and 16 in the weights"),
        ({"norm_num_groups": 4}, "norm_num_groups is 4 in the config and 8 in the weights"),
        ({"use_quant_layer": False}, "use_quant_layer is False in the config and True"),
        ({"embed_dim": 8}, "embed_dim is 8 in the config and 4 in the weights"),
        ({"decoder_attention": "TemporalAttnBlock"}, "attends along time"),
        (
            {"encoder_spatial_downsample": ["", ""], "decoder_spatial_upsample": ["", ""]},
            "do not halve and double between each two levels",
        ),
    ],
)
def test_configs_that_an_image_vae_does_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        inflated({**MIXED, **changes})


def test_infinities_and_other_families_are_refused(tmp_path):
    tensors = dict(read_weights(KL))
    tensors["encoder.conv_in.bias"] = np.full(16, np.inf, np.float32)
    write_weights(tmp_path / "a.safetensors", tensors)
    with pytest.raises(ValueError, match="infinities or NaN; the file is damaged"):
        inflated(MIXED, path=tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"family 'cogvideox' .* takes: causal_vae .*; sd \(") as e:
        inflated(path=FIXTURES / "vaes" / "cogvae")
    assert "\n" not in str(e.value)
    with pytest.raises(ValueError, match="inflated into 'wan'"):
        VideoVAE.from_pretrained(KL, config={"_class_name": "AutoencoderKLWan"})


# -- a network any part of which is 2-D is still recognised ---------------------------------------


@pytest.mark.parametrize("attention", ["AttnBlock3DFix", "AttnBlock"])
def test_a_network_of_2d_modules_comes_back(tmp_path, attention):
    config = {
        **MIXED,
        "decoder_mid_resnet": "ResnetBlock2D",
        "encoder_resnet_blocks": ["ResnetBlock2D"] * 2,
        "encoder_attention": attention,
        "decoder_resnet_blocks": ["ResnetBlock2D"] * 2,
    }
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.normal(0, 0.2, shape).astype(np.float32)
        for name, shape in CausalVideoVAE.shapes(config).items()
    }
    CausalVideoVAE.from_tensors(tensors, config).save_pretrained(tmp_path)
    back = VideoVAE.from_pretrained(tmp_path)
    assert back.family == "causal_vae"
    assert all(np.array_equal(array, tensors[name]) for name, array in back.tensors().items())


def test_a_network_of_2d_modules_alone_comes_back_by_its_config(tmp_path):
    """Nothing in its tensors tells it from an image VAE."""
    config = {
        **MIXED,
        **{
            f"{half}_conv_{end}": "Conv2d"
            for half in ("encoder", "decoder")
            for end in ("in", "out")
        },
        **{f"{half}_attention": "AttnBlock" for half in ("encoder", "decoder")},
        **{f"{half}_mid_resnet": "ResnetBlock2D" for half in ("encoder", "decoder")},
        **{f"{half}_resnet_blocks": ["ResnetBlock2D"] * 2 for half in ("encoder", "decoder")},
        "encoder_spatial_downsample": ["Downsample", ""],
        "encoder_temporal_downsample": ["TimeDownsample2x", ""],
        "decoder_temporal_upsample": ["", "TimeUpsample2x"],
        "attn_resolutions": [],
    }
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.normal(0, 0.2, shape).astype(np.float32)
        for name, shape in CausalVideoVAE.shapes(config).items()
    }
    assert all(array.ndim < 5 for array in tensors.values())
    CausalVideoVAE.from_tensors(tensors, config).save_pretrained(tmp_path)
    for back in (VideoVAE.from_pretrained(tmp_path), CausalVideoVAE.from_pretrained(tmp_path)):
        assert back.family == "causal_vae"
        assert all(np.array_equal(array, tensors[name]) for name, array in back.tensors().items())
