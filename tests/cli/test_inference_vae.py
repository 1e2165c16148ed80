"""The command that reconstructs videos with an autoencoder of any family."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mg.data.manifest import build_manifest
from mg.data.transforms import from_model_range, to_model_range
from mg.data.video import VideoReader
from mg.data.video_writer import write_video
from mg.metrics.psnr import psnr
from mg.pipelines.autoencoder import AutoencoderConfig, load_autoencoder
from mg.pipelines.reconstruct import reconstruct_videos
from mg.pipelines.reconstruction_settings import ReconstructionSettings
from mg.vaes import VideoVAE

ROOT = Path(__file__).parents[2]
VAES = ROOT / "tests" / "fixtures" / "vaes"


def run(*arguments):
    command = [sys.executable, ROOT / "scripts" / "inference_vae.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.usefixtures("pynative_mode")
def test_clip_is_what_the_vae_makes_of_it(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (6, 16, 24, 3), np.uint8)
    write_video(tmp_path / "in" / "a.mkv", frames, fps=8, lossless=True)
    output = tmp_path / "out"
    done = run(
        *(
            "--ckpt_path",
            VAES / "cogvae",
            "--video_folder",
            tmp_path / "in",
            "--output_path",
            output,
        ),
        *("--num_frames", "6", "--image_size", "null", "--device", "CPU"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((output / "report.json").read_text())

    with VideoReader(tmp_path / "in" / "a.mkv") as reader:
        original = reader.read(range(6))
    vae = VideoVAE.from_pretrained(VAES / "cogvae")
    video = vae.decode(vae.encode(to_model_range(original)[np.newaxis])).asnumpy()
    expected = psnr(original, from_model_range(video[0])).mean()
    assert abs(report["clips"][0]["psnr"] - expected) < 1e-3
    with VideoReader(output / "clips" / "a.mp4") as reader:
        assert reader.read(range(6)).shape == (6, 16, 48, 3)

    manifest = build_manifest(video_folder=tmp_path / "in", min_frames=6)
    settings = ReconstructionSettings(num_frames=6, image_size=None)
    video = (output / "clips" / "a.mp4").stat().st_mtime_ns
    network = load_autoencoder(AutoencoderConfig(ckpt_path=str(VAES / "cogvae")))
    again = json.loads(reconstruct_videos(network, manifest, output, settings).to_json())
    assert again["clips"] == report["clips"]
    assert (output / "clips" / "a.mp4").stat().st_mtime_ns == video
    with pytest.raises(ValueError, match=r"a\.json exists, .* \(settings\.side_by_side differ\)"):
        reconstruct_videos(
            network, manifest, output, dataclasses.replace(settings, side_by_side=False)
        )
    parameter = next(network.get_parameters())
    parameter.set_data(parameter + 1)
    with pytest.raises(ValueError, match=r"\(settings\.weights differ\)"):
        reconstruct_videos(network, manifest, output, settings)


def test_wrong_settings_are_answered_in_one_line(tmp_path):
    write_video(tmp_path / "a.mp4", np.zeros((2, 16, 16, 3), np.uint8), fps=8)
    common = ("--video_folder", tmp_path, "--output_path", tmp_path / "out", "--num_frames", "2")
    unknown = run("--ckpt_path", "THUDM/CogVideoX-3b", *common, "--device", "CPU")
    assert unknown.returncode != 0
    assert "did you mean 'THUDM/CogVideoX-" in unknown.stderr
    assert "Traceback" not in unknown.stderr
    none = run("--ckpt_path", "x", "--video_folder", tmp_path, "--num_frames", "-1")
    assert none.returncode != 0 and "num_frames=-1; expected 0 or more" in none.stderr
