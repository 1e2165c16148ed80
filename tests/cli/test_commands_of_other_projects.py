"""Open-Sora's and Open-Sora-Plan's commands for video VAEs, as in docs/vae.md, at tiny sizes."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mg.commands.train_vae import parse
from mg.data.video import probe_video
from mg.data.video_writer import write_video
from mg.vaes import CausalVAEModel, VideoVAE
from mg.weights.checkpoint_file import find_weights, read_weights
from tests.tiny import AUTOENCODERS as TINY

pytestmark = pytest.mark.usefixtures("pynative_mode")
ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "vae"
SMALL = [
    *("--mode", "pynative", "--device", "CPU", "--dtype", "float32", "--steps", "2"),
    *("--data.num_workers", "0", "--loss.perceptual_loss_weight", "0"),
]
SMALL_DISCRIMINATOR = [
    *("--adversarial.network.num_layers", "1", "--adversarial.network.ch", "8"),
    *("--adversarial.network.norm_groups", "4"),
]


@pytest.fixture
def videos(tmp_path):
    """Return a folder of two videos of 8 frames, 16x16."""
    for number in range(2):
        frames = np.random.default_rng(number).integers(0, 255, (8, 16, 16, 3), np.uint8)
        write_video(tmp_path / "videos" / f"{number}.mp4", frames, fps=8, lossless=True)
    return tmp_path / "videos"


def run(name, arguments):
    """Run a command of `mg` in a process of its own: one process has one device."""
    done = subprocess.run(
        [sys.executable, "-m", "mg", name, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_open_soras_two_stages_and_its_inference(videos, tmp_path):
    model = [f"--model.{name}={json.dumps(value)}" for name, value in TINY["dc_ae"].items()]
    data = ["--dataset.data_path", videos, "--bucket_config", '{"16px_ar1:1": {4: [1.0, 1]}}']
    first, second = tmp_path / "first", tmp_path / "second"
    train = CONFIGS / "train"
    flags = ["--config", train / "video_dc_ae.yaml", "--save_dir", first, *model, *data, *SMALL]
    run("train-vae", flags)
    flags = ["--config", train / "video_dc_ae_disc.yaml", "--save_dir", second]
    flags += ["--model.from_pretrained", first / "vae", "--model.disc_off_grad_ckpt", "True"]
    run("train-vae", [*flags, *data, *SMALL, *SMALL_DISCRIMINATOR, "--grad_checkpoint"])
    log = [json.loads(line) for line in (second / "log.jsonl").read_text().splitlines()]
    assert len(log) == 2 and all(entry["adv_weight"] > 0 for entry in log)
    vae = VideoVAE.from_pretrained(second / "vae")
    assert vae.network.config.width_list == tuple(TINY["dc_ae"]["width_list"])

    flags = ["--config", CONFIGS / "inference" / "video_dc_ae.yaml", "--save-dir", tmp_path / "out"]
    flags += ["--ckpt_path", second / "vae", "--dataset.data_path", videos]
    run("reconstruct", [*flags, "--num_frames", "8", "--image_size", "16", "--mode", "pynative"])
    info = probe_video(tmp_path / "out" / "clips" / "0.mp4")
    assert (info.num_frames, info.height, info.width) == (8, 16, 32)


def run_script(name, arguments):
    """Run a script of `scripts/causalvae`; return what it said."""
    done = subprocess.run(
        ["bash", ROOT / "scripts" / "causalvae" / f"{name}.sh", *map(str, arguments)],
        env={**os.environ, "PYTHON": sys.executable},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_open_sora_plans_scripts(videos, tmp_path):
    config = {
        "_class_name": "CausalVAEModel",
        **TINY["causal_vae"],
        "loss_type": "opensora.models.ae.videobase.losses.LPIPSWithDiscriminator",
        "loss_params": {"disc_start": 1, "kl_weight": 1e-6, "disc_weight": 0.5},
        "lr": 1e-4,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    flags = ["--model_config", tmp_path / "config.json", "--video_path", videos, "--ema"]
    flags += ["--resolution", "16", "--num_frames", "5", "--sample_rate", "1"]
    flags += ["--ckpt_dir", tmp_path, "--exp_name", "run", "--mix_precision", "fp32"]
    flags += ["--max_steps", "2", "--epochs", "1", "--perceptual_weight", "0"]
    said = run_script(
        "train", [*flags, *SMALL[:6], "--data.num_workers", "0", *SMALL_DISCRIMINATOR]
    )
    assert "--epochs has no effect" in said and "sets optim.lr=0.0001" in said
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert len(log) == 2 and log[1]["adv_weight"] > 0 and log[1]["lr"] == pytest.approx(1e-4)
    vae = CausalVAEModel.from_pretrained(tmp_path / "run" / "vae")
    assert vae.network.config.hidden_size == TINY["causal_vae"]["hidden_size"]

    pair = ["--real_video_dir", videos, "--generated_video_dir", tmp_path / "out"]
    size = ["--resolution", "16", "--crop_size", "16", "--num_frames", "5", "--device", "cuda"]
    flags = ["--ckpt", tmp_path / "run" / "vae", *pair, *size, "--sample_fps", "10"]
    said = run_script("gen_video", [*flags, "--mode", "pynative"])
    assert "--device auto" in said
    info = probe_video(tmp_path / "out" / "clips" / "1.mp4")
    assert (info.num_frames, info.height, info.width) == (5, 16, 16)

    flags = [*pair, *size, "--sample_fps", "10", "--metric", "psnr"]
    run_script("eval", [*flags, "--output_path", tmp_path / "figures"])
    measured = json.loads((tmp_path / "figures" / "report.json").read_text())
    made = json.loads((tmp_path / "out" / "report.json").read_text())
    # The videos that were written are measured, after their compression.
    assert [clip["psnr"] for clip in measured["clips"]] == pytest.approx(
        [clip["psnr"] for clip in made["clips"]], abs=2
    )


def test_open_soras_config_for_hunyuanvideo(videos, tmp_path):
    """With its flag for other weights; tiles are as large as in the config."""
    flags = ["--config", CONFIGS / "inference" / "hunyuanvideo_vae.yaml"]
    flags += ["--save-dir", tmp_path / "out", "--dataset.data_path", videos]
    weights = ROOT / "tests" / "fixtures" / "vaes" / "hyvae"
    flags += ["--model.from_pretrained", weights, "--num_frames", "5", "--image_size", "16"]
    run("reconstruct", [*flags, "--mode", "pynative", "--device", "CPU"])
    info = probe_video(tmp_path / "out" / "clips" / "1.mp4")
    assert (info.num_frames, info.height, info.width) == (5, 16, 32)


def test_the_recipe_of_two_stages(videos, tmp_path):
    """The commands of docs/vae.md, at tiny sizes."""
    page = (ROOT / "docs" / "vae.md").read_text(encoding="utf-8")
    block = page.split("# two stages")[1].split("```")[0].split("\n", 1)[1]
    commands = [shlex.split(text) for text in block.replace("\\\n", " ").strip().split("\n")]
    assert [command[:2] for command in commands] == [["mg", "train-vae"]] * 2
    network = ["--model", json.dumps({"family": "causal_vae", **TINY["causal_vae"]})]
    for command, more in zip(commands, (network, []), strict=True):
        flags = [
            part.replace("FOLDER", str(videos)).replace("outputs", str(tmp_path))
            for part in command[2:]
        ]
        flags += ["--data.size", "16", "--data.sample_n_frames", "5", "--recompute", "false"]
        flags += ["--adversarial.start_step", "1", *more]
        run("train-vae", [*flags, *SMALL, *SMALL_DISCRIMINATOR])
    stages = [read_weights(find_weights(tmp_path / f"stage_{n}" / "vae")) for n in (1, 2)]
    changed = {name for name in stages[0] if not np.array_equal(*(s[name] for s in stages))}
    assert {name.split(".")[0] for name in changed} == {"decoder", "post_quant_conv"}


def test_trackers_take_the_place_of_a_switch(tmp_path, monkeypatch):
    flags = ["--config", str(CONFIGS / "train" / "video_dc_ae.yaml"), "--video_folder", "clips"]
    with pytest.raises(ValueError, match="unknown setting 'wandb'; did you mean 'trackers'"):
        parse([*flags, "--wandb", "True"])
    (tmp_path / "wandb.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert parse([*flags, "--trackers=[wandb]"]).tracker_names == ["wandb"]
