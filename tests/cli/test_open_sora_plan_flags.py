"""Open-Sora-Plan's flags stand for the settings that mean the same."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mg.cli import parse_config
from mg.commands.evaluate import EvaluateConfig
from mg.commands.inference_vae import InferenceConfig
from mg.commands.open_sora_plan_flags import translated
from mg.commands.train_vae import parse
from mg.models.reading import read_vae
from mg.training.autoencoder.autoencoder_weights import load_start_weights
from mg.training.parameter_groups import trainable_names
from tests.tiny import AUTOENCODERS

ROOT = Path(__file__).parents[2]
V12 = str(ROOT / "tests" / "fixtures" / "causal_vae" / "v1.2")
# Their own calls, but for paths.
TRAIN = """
    --exp_name latent4 --model_config {config} --video_path clips --eval_video_path held_out
    --resolution 320 --epochs 1000 --num_frames 25 --batch_size 1 --disc_start 2000
    --save_ckpt_step 2000 --eval_steps 500 --eval_batch_size 1 --eval_num_frames 33
    --eval_sample_rate 3 --eval_subset_size 50 --eval_lpips --ema --ema_decay 0.999
    --perceptual_weight 1.0 --loss_type l1
    --disc_cls causalvideovae.model.losses.LPIPSWithDiscriminator3D
    --not_resume_training_process --resume_from_checkpoint checkpoint-14000.ckpt
    --eval_num_video_log 2 --load_disc_from_checkpoint checkpoint-14000.ckpt --logvar_init 0.0
    --ignore_mismatched_sizes --wavelet_loss --model_name CausalVAE
"""
GEN_VIDEO = """
    --batch_size 1 --real_video_dir eyes_test --generated_video_dir eyes_gen --device cuda
    --sample_fps 10 --sample_rate 1 --num_frames 17 --resolution 512 --crop_size 512
    --num_workers 8 --ckpt results/pretrained_488 --enable_tiling
"""
EVAL = """
    --batch_size 2 --real_video_dir origin --generated_video_dir release --device cuda
    --sample_fps 10 --crop_size 256 --resolution 256 --num_frames 17 --sample_rate 1
    --subset_size 100 --metric ssim
"""


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


@pytest.fixture(autouse=True)
def in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def settings_of(*flags):
    return parse(translated("train", ["--video_path", "clips", *map(str, flags)]))


def test_flags_and_the_config_decide_the_settings(config_json, caplog):
    flags = ("--model_config", config_json, "--video_path=clips", "--resolution", "64")
    config = settings_of(*flags, "--num_frames", "9", "--kl_weight", "2e-6", "--freeze_encoder")
    assert (config.video_folder, config.data.size, config.data.sample_n_frames) == ("clips", 64, 9)
    assert config.model_to_train().config.hidden_size == AUTOENCODERS["causal_vae"]["hidden_size"]
    assert (config.optim.lr, config.adversarial.lr) == (3e-5, 3e-5)
    assert config.loss.kl_loss_weight == pytest.approx(2e-6 / (3 * 64 * 64), rel=1e-9)
    assert (config.adversarial.start_step, config.adversarial.weight) == (1000, 0.25)
    assert config.freeze == ["encoder", "quant_conv"]
    assert "joins at step 1000" in caplog.text
    config = settings_of(*flags[:2], "--mix_precision", "fp16", "--data.size", "128", "--lr=1e-4")
    assert (config.dtype, config.optim.lr, config.adversarial.lr) == ("float16", 1e-4, 1e-4)
    assert config.loss.kl_loss_weight == pytest.approx(1e-5 / (3 * 128 * 128), rel=1e-9)
    caplog.clear()
    assert settings_of(*flags, "--disc_start_as_is").adversarial.start_step == 2001
    assert "joins at step" not in caplog.text


def test_open_sora_plans_own_training_call(config_json, caplog):
    config = settings_of(*TRAIN.format(config=config_json).split())
    assert (config.output_path, config.pretrained) == ("outputs/latent4", "checkpoint-14000.ckpt")
    assert (config.data.size, config.data.sample_n_frames) == (320, 25)
    assert (config.adversarial.start_step, config.adversarial.network.kind) == (2000, "video")
    assert config.optim.ema_decay == 0.999
    for name in (
        *("epochs", "eval_batch_size", "eval_sample_rate", "eval_subset_size", "eval_lpips"),
        *("eval_num_video_log", "load_disc_from_checkpoint", "ignore_mismatched_sizes"),
        "wavelet_loss",
    ):
        assert caplog.text.count(f"--{name} has no effect: ") == 1
    assert "step, optimiser" not in caplog.text and "optimiser and discriminator" in caplog.text


def test_averages_strides_and_pixel_losses_are_those_that_are_asked_for(config_json, caplog):
    assert settings_of().optim.ema_decay is None
    assert settings_of("--ema", "--ema_decay", "0.9").optim.ema_decay == 0.9
    assert settings_of("--ema", "True").optim.ema_decay == 0.999
    assert settings_of("--ema=false", "--ema_decay", "0.9").optim.ema_decay is None
    assert "--ema_decay has no effect without --ema" in caplog.text
    data = settings_of("--sample_rate", "3", "--dynamic_sample").data
    assert (data.sample_stride, data.random_stride) == (3, True)
    assert not settings_of("--dynamic_sample").data.random_stride
    assert "--dynamic_sample has no effect" in caplog.text
    loss = settings_of("--loss_type", "l2", "--logvar_init", "1").loss
    assert (loss.l1_weight, loss.mse_weight) == (0, 1)
    assert loss.kl_loss_weight == pytest.approx(2.718281828e-6 / (3 * 256 * 256), rel=1e-6)
    assert settings_of("--disc_cls", "losses.SimpleLPIPS", "--disc_weight", "1").adversarial is None
    assert settings_of("--disc_weight", "0", "--lr", "1e-4").adversarial is None


def test_where_a_run_begins_and_ends(tmp_path, config_json):
    config = settings_of("--pretrained_model_name_or_path", V12, "--freeze_encoder")
    assert (config.pretrained, config.model) == (V12, {"family": "causal_vae"})
    assert config.freeze == ["encoder"]  # it has no quant_conv
    config = settings_of("--pretrained_model_name_or_path", "causal-vae-1.2", "--freeze_encoder")
    names = ["encoder.a", "quant_conv.a", "post_quant_conv.a", "decoder.a"]
    assert trainable_names(names, None, config.freeze, aliases={}) == names[2:]
    assert trainable_names([*names[:1], *names[3:]], None, config.freeze, aliases={}) == names[3:]
    # A checkpoint of theirs, which has no config beside it: its averaged weights.
    theirs = shutil.copy(Path(V12) / "checkpoint.ckpt", tmp_path / "checkpoint-14000.ckpt")
    config = settings_of("--resume_from_checkpoint", theirs, "--model_config", f"{V12}/config.json")
    tensors, network = load_start_weights(config)
    expected = read_vae(V12).tensors
    assert not network.use_quant_layer and tensors.keys() == expected.keys()
    assert all(np.array_equal(tensors[name], expected[name]) for name in expected)
    assert settings_of("--exp_name", "a", "--ckpt_dir", "b").output_path == "b/a"
    assert settings_of("--exp_name", "a", "--output_dir", "c").output_path == "c"
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").touch()
    for path in (run, run / "checkpoints" / "step_00000001"):
        config = settings_of("--resume_from_checkpoint", path, "--exp_name", "a")
        assert (config.output_path, config.resume, config.pretrained) == (str(run), True, None)
    config = settings_of("--resume_from_checkpoint", run, "--load_from_checkpoint", V12)
    assert (config.output_path, config.resume, config.pretrained) == (str(run), True, V12)
    config = settings_of("--resume_from_checkpoint", run, "--not_resume_training_process")
    assert (config.resume, config.pretrained) == (False, str(run / "vae"))


def test_settings_of_ours_are_handed_on():
    config = settings_of(
        *("--recompute", "false", "--trackers=[]", "--lr_multipliers.temporal", "5", "--resume"),
        *("--guards.max_bad_steps", "7", "--zero_stage", "1", "--steps", "20000"),
        *("--phases", '[{"steps": 5}, {"lr_multiplier": 0.5}]', "--overwrite"),
    )
    assert (config.recompute, config.resume, config.overwrite) == (False, True, True)
    assert (config.lr_multipliers, config.guards.max_bad_steps) == ({"temporal": 5.0}, 7)
    assert (config.zero_stage, [phase.steps for phase in config.phases]) == (1, [5, None])
    flags = ["--ckpt", "x", "--real_video_dir", "clips", "--dtype", "bf16", "--side_by_side"]
    flags += ["--tiling.height", "128", "--lpips_path", "lpips.safetensors"]
    config = parse_config(InferenceConfig, translated("gen_video", flags), description="")
    assert config.encode_dtype == config.decode_dtype == "bfloat16"
    assert config.tiling.height == 128
    assert config.side_by_side and config.lpips_path == "lpips.safetensors"


def test_open_sora_plans_own_calls_of_reconstruction_and_evaluation(caplog):
    arguments = translated("gen_video", GEN_VIDEO.split())
    config = parse_config(InferenceConfig, arguments, description="")
    assert (config.ckpt_path, config.image_size, config.num_frames) == (
        "results/pretrained_488",
        512,
        17,
    )
    assert config.enable_tile and config.device == "auto" and not config.side_by_side
    assert "--sample_fps has no effect" in caplog.text and "--num_workers has no" in caplog.text
    assert "--device cuda is --device auto" in caplog.text
    with pytest.raises(ValueError, match="--resolution 512 with --crop_size 256: frames are"):
        translated("gen_video", ["--resolution", "512", "--crop_size", "256"])

    config = parse_config(EvaluateConfig, translated("eval", EVAL.split()), description="")
    assert (config.device, config.sample_fps, config.crop_size) == ("auto", None, 256)
    assert translated("eval", ["--device", "cpu"]) == ["--device", "CPU"]


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        ("train", "--video_pth clips", "'--video_pth'; did you mean --video_path"),
        ("train", "--resolution", "--resolution needs a value"),
        ("train", "--ema 0.9", "--ema='0.9'; expected true or false"),
        ("train", "--disc_start abc", "--disc_start='abc'; expected a whole number"),
        ("train", "--kl_weight small", "--kl_weight='small'; expected a number"),
        ("train", "--model_name WFVAE", "unknown model 'WFVAE' after --model_name"),
        ("train", "--disc_cls losses.GAN", "unknown loss 'GAN' after --disc_cls"),
        ("train", "--loss_type l3", "unknown loss 'l3' after --loss_type"),
        ("gen_video", "clips", "unknown flag 'clips'; known are device, ckpt"),
    ],
)
def test_what_is_no_flag_or_no_value_is_refused(script, flags, message):
    with pytest.raises(ValueError, match=message):
        translated(script, flags.split())


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
    missing = weights[-1] if weights else "nowhere"
    assert done.returncode != 0 and missing in done.stderr and "Traceback" not in done.stderr
