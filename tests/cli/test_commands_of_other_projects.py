"""Open-Sora's and Open-Sora-Plan's commands for video VAEs, as in docs/vae.md, at tiny sizes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mg.commands.open_sora_plan_flags import DOORS, translated
from mg.data.video import probe_video
from mg.data.video_writer import write_video
from mg.vaes import CausalVAEModel, VideoVAE
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


def test_open_sora_plans_scripts(videos, tmp_path):
    config = {
        "_class_name": "CausalVAEModel",
        **TINY["causal_vae"],
        "loss_params": {"disc_start": 1, "kl_weight": 1e-6, "disc_weight": 0.5},
        "lr": 1e-4,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    flags = ["--model_config", tmp_path / "config.json", "--video_path", videos]
    flags += ["--resolution", "16", "--num_frames", "5", "--output_dir", tmp_path / "run"]
    arguments = translated("train", [*map(str, flags), "--mix_precision", "fp32"])
    rest = [*SMALL, *SMALL_DISCRIMINATOR, "--recompute", "false"]
    run(DOORS["train"].command, [*arguments, *rest])
    vae = CausalVAEModel.from_pretrained(tmp_path / "run" / "vae")
    assert vae.network.config.hidden_size == TINY["causal_vae"]["hidden_size"]

    flags = ["--ckpt", tmp_path / "run" / "vae", "--real_video_dir", videos]
    flags += ["--generated_video_dir", tmp_path / "out", "--resolution", "16", "--num_frames", "5"]
    arguments = translated("gen_video", list(map(str, flags)))
    run(DOORS["gen_video"].command, [*arguments, "--mode", "pynative"])
    info = probe_video(tmp_path / "out" / "clips" / "1.mp4")
    assert (info.num_frames, info.height, info.width) == (5, 16, 16)
