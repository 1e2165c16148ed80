"""The configs of the VAEs' trainings: settings that parse, and networks of the sizes they state."""

import math
from pathlib import Path

import pytest

from mg.cli import parse_config
from mg.training.autoencoder.autoencoder_config import TrainVAEConfig
from reference_curve import read_reference

FOLDER = Path(__file__).parents[2] / "configs" / "vae" / "train"
# Family, compression in time and space, channels of the latent, millions of parameters.
SIZES = {
    "causal_vae": ("causal_vae", 4, 8, 4, 229.2),
    "causal_vae_tiny": ("causal_vae", 4, 4, 4, 1.8),
    "distill_decoder_tiny": ("tae", 8, 8, 16, 7.1),
    "distill_wan_decoder": ("wan", 4, 8, 16, 61.8),
    "video_dc_ae": ("dc_ae", 4, 32, 128, 459.5),
    "video_dc_ae_disc": ("dc_ae", 4, 32, 128, 459.5),
    "video_dc_ae_tiny": ("dc_ae", 4, 8, 32, 1.3),
    "wan_tiny": ("wan", 4, 4, 8, 1.8),
}
# What the weights say that a run starts from in part, besides the defaults.
STARTS_FROM = {
    "distill_decoder_tiny": {
        "ch": 104,
        "ch_mult": [1, 2],
        "num_res_blocks": 2,
        "norm_groups": 8,
        "patch_size": 4,
        "patch_size_t": 4,
        "temporal_downsample_level": [0],
        "temporal_upsample_level": [1],
        "linear_path": True,
    }
}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_parses_to_the_network_that_it_states(path):
    arguments = ["--config", str(path), "--video_folder", "clips"]
    config = parse_config(TrainVAEConfig, arguments, description="")
    model = config.model_to_train()
    network = model.config or model.family.read_config(
        {**STARTS_FROM.get(path.stem, {}), **model.changes}
    )
    spec = network.spec
    count = sum(math.prod(shape) for shape in model.family.shapes(network).values())
    found = (model.family.name, spec.t, spec.h, spec.channels, round(count / 1e6, 1))
    assert found == SIZES[path.stem]
    for size in config.clip_sizes():
        assert spec.valid_frames(size.num_frames) == size.num_frames
    head = path.read_text(encoding="utf-8").split("output_path:")[0]
    assert f"--config configs/vae/train/{path.name}" in head and "# devices " in head


def test_weights_to_start_from_have_two_spellings():
    path = FOLDER / "video_dc_ae_disc.yaml"
    arguments = ["--config", str(path), "--video_folder", "clips"]
    given = [*arguments, "--model.from_pretrained", "weights"]
    config = parse_config(TrainVAEConfig, given, description="")
    assert config.start_weights().model_name == "weights"
    assert "from_pretrained" not in config.model
    with pytest.raises(ValueError, match="both name weights to start from"):
        parse_config(TrainVAEConfig, [*given, "--pretrained", "others"], description="")
    with pytest.raises(ValueError, match=r"model.family is missing: one of tae, opensora"):
        TrainVAEConfig(output_path="out", video_folder="clips", model={})


def test_a_switch_of_open_sora_that_is_not_needed_is_explained(caplog):
    path = FOLDER / "video_dc_ae_disc.yaml"
    arguments = ["--config", str(path), "--video_folder", "clips", "--model.disc_off_grad_ckpt"]
    with caplog.at_level("INFO"):
        config = parse_config(TrainVAEConfig, [*arguments, "True"], description="")
    assert config.model == {"family": "dc_ae"}
    assert "the decoder's last convolution, which is never recomputed" in caplog.text


@pytest.mark.parametrize("path", sorted(FOLDER.glob("curves/*.json")), ids=lambda path: path.stem)
def test_reference_curves_are_those_of_configs(path):
    reference = read_reference(path)
    assert reference.command.endswith(f"configs/vae/train/{path.stem}.yaml")
    assert reference.curve[-1]["loss"] < 0.6 * reference.curve[0]["loss"]
