"""The demonstration of training: its clips, its settings, and the script as a user starts it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mg.cli import parse_config
from mg.conditions.text.build import build_text_encoders
from mg.data.captions import read_captions
from mg.device import DeviceConfig
from mg.models.denoiser_config import TextInput
from mg.models.families import DENOISERS
from mg.shapes.video_demo import demo_training, write_clips
from mg.training.denoiser.denoiser_config import TrainDenoiserConfig

ROOT = Path(__file__).parents[2]


def run(*arguments):
    return subprocess.run(
        [sys.executable, "scripts/train_video_demo.py", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def test_clips_of_both_kinds_are_drawn(tmp_path):
    write_clips(tmp_path, 4)
    captions = [video.caption for video in read_captions(tmp_path / "captions.csv").videos]
    assert len(captions) == 4 and sum(" moving " in caption for caption in captions) >= 2
    with pytest.raises(FileExistsError):
        write_clips(tmp_path, 4)


@pytest.mark.parametrize("family", DENOISERS)
def test_every_family_has_settings(family, tmp_path):
    training = demo_training(
        tmp_path,
        family=family,
        tae=tmp_path / "tae.safetensors",
        steps_per_epoch=4,
        num_epochs=3,
        batch_size=2,
        lr=1e-3,
        overwrite=False,
        device=DeviceConfig(device="CPU"),
    )
    assert training.steps == 12 and training.denoiser().family.name == family


def test_the_script_trains_and_tells_the_loss_of_each_epoch(tmp_path):
    flags = ["--family", "unet", "--num_videos", 4, "--batch_size", 2, "--epochs", 2]
    result = run(*flags, "--output_path", tmp_path / "demo", "--mode", "pynative")
    assert result.returncode == 0, result.stderr
    losses = re.findall(r"Epoch (\d): average loss (\d+\.\d+)", result.stderr)
    assert [number for number, _ in losses] == ["0", "1"]
    assert (tmp_path / "demo" / "run" / "generator" / "model_index.json").is_file()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--family", "hunyan"], "did you mean 'hunyuan'"),
        (["--num_videos", "2"], "num_videos=2 is less than batch_size=8"),
        (["--epochs", "0"], "epochs=0; expected 1 or more"),
    ],
)
def test_wrong_flags_are_one_clear_line(flags, message):
    result = run(*flags)
    assert result.returncode == 1
    assert message in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize("family", ["cogvideox", "hunyuan"])
def test_the_configs_of_families_are_read(family):
    path = ROOT / "configs" / "video" / "train" / f"{family}.yaml"
    config = parse_config(TrainDenoiserConfig, ["--config", str(path)], description="")
    assert config.denoiser().family.name == family
    encoders = build_text_encoders(config.text.encoders)
    inputs = [TextInput(e.name, e.width, e.max_tokens) for e in encoders]
    assert config.denoiser().config(text_encoders=inputs, latent_channels=16).dim == 256


@pytest.mark.parametrize("script", ["train_video", "generate_video"])
def test_scripts_under_the_names_of_demos_take_the_same_flags(script):
    result = subprocess.run(
        [sys.executable, f"scripts/{script}.py", "--stepps=3", "--output=x.mp4", "--prompt=x"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 1 and "did you mean 'steps'" in result.stderr
