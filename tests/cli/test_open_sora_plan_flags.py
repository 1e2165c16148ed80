"""Open-Sora-Plan's flags stand for the settings that mean the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mg.cli import parse_config
from mg.commands.open_sora_plan_flags import translated
from mg.training.autoencoder.autoencoder_config import TrainVAEConfig
from tests.tiny import AUTOENCODERS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config_json(tmp_path):
    """Return the path of a config.json with what it says of the training."""
    stated = {
        "_class_name": "CausalVAEModel",
        **AUTOENCODERS["causal_vae"],
        "loss_type": "opensora.models.ae.videobase.losses.LPIPSWithDiscriminator",
        "loss_params": {"disc_start": 2001, "disc_weight": 0.25, "kl_weight": 1e-5},
        "lr": 3e-5,
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(stated))
    return path


def settings_of(*flags):
    return parse_config(TrainVAEConfig, translated("train", flags), description="")


def test_flags_and_the_config_decide_the_settings(config_json, monkeypatch, caplog):
    monkeypatch.chdir(ROOT)
    flags = ("--model_config", str(config_json), "--video_path=clips", "--resolution", "64")
    config = settings_of(*flags, "--num_frames", "9", "--kl_weight", "2e-6", "--freeze_encoder")
    assert (config.video_folder, config.data.size, config.data.sample_n_frames) == ("clips", 64, 9)
    assert config.model_to_train().config.hidden_size == AUTOENCODERS["causal_vae"]["hidden_size"]
    assert (config.optim.lr, config.loss.kl_loss_weight) == (3e-5, 2e-6)
    assert (config.adversarial.start_step, config.adversarial.weight) == (1000, 0.25)
    assert config.freeze == ["encoder", "quant_conv"]
    assert "joins at step 1000" in caplog.text
    config = settings_of(*flags, "--mix_precision", "fp16", "--dynamic_sample")
    assert config.dtype == "float16"
    assert "--dynamic_sample has no meaning here" in caplog.text
    assert settings_of(*flags, "--disc_start_as_is").adversarial.start_step == 2001


def test_what_is_no_flag_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="'--video_pth'; did you mean --video_path"):
        translated("train", ["--video_pth", "clips"])
    with pytest.raises(ValueError, match="--resolution needs a value"):
        translated("train", ["--resolution"])
    with pytest.raises(ValueError, match=r"unknown flag 'clips'; known are ckpt"):
        translated("gen_video", ["clips"])


@pytest.mark.parametrize("script", ["train", "gen_video"])
def test_the_scripts_hand_their_flags_on(script, tmp_path):
    videos = "--video_path" if script == "train" else "--real_video_dir"
    command = ["bash", str(ROOT / "scripts" / "causalvae" / f"{script}.sh"), videos, "nowhere"]
    weights = [] if script == "train" else ["--ckpt", "weights.safetensors"]
    done = subprocess.run(
        [*command, *weights],
        cwd=tmp_path,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0 and "nowhere" in done.stderr and "Traceback" not in done.stderr
