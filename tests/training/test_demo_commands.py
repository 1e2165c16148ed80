"""The commands of a demo of video transformers, in its order: draw, train, generate.

They run in this process, in a folder of their own, so that MindSpore is imported once.
"""

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import mg.device
from mg.commands import encode, generate, train
from mg.data.captions import read_captions
from mg.data.video import VideoReader, probe_video
from mg.models.families import DENOISERS
from mg.pipelines.generator_folder import SHIPPED_GENERATOR, load_generator

ROOT = Path(__file__).parents[2]
CAPTIONS = (
    "a green circle moving right on a black background",
    "a blue square growing on a black background",
    "a red line rotating on a black background",
)
SHIPPED_TAE = "assets/shapes_generator/autoencoder/diffusion_pytorch_model.safetensors"


@pytest.fixture
def command(tmp_path, monkeypatch, pynative_mode):
    """Return a function that runs a script in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    for module in (mg.device, encode, generate, train):  # another test may have set it up already
        monkeypatch.setattr(module, "setup_device", lambda config: "CPU")

    def run(script, *flags):
        monkeypatch.setattr(sys, "argv", [script, *map(str, flags)])
        if not script.startswith("tools/"):
            sys.argv.append("--mode=pynative")
        runpy.run_path(str(ROOT / script), run_name="__main__")

    return run


def draw_samples(command):
    command(
        "tools/make_sample_videos.py",
        *("--output_folder", "data/videos", "--table", "metadata.json"),
        *("--captions", *CAPTIONS),
    )


def test_sample_videos_are_those_of_the_demo(command):
    """A circle that moves from left to right, a square that grows, a line that rotates."""
    draw_samples(command)
    assert json.loads(Path("data/videos/metadata.json").read_text()) == {
        f"sample_0000{number}.mp4": caption for number, caption in enumerate(CAPTIONS)
    }
    videos = read_captions("data/videos/metadata.json").videos
    covers = []
    for video in videos:
        with VideoReader(video.path) as reader:
            covers.append(reader.read(range(16)).max(axis=-1) > 100)  # (T, H, W)
    circle, square, line = covers
    centres = [np.nonzero(frame)[1].mean() for frame in circle]
    assert np.all(np.diff(centres) > 0)
    assert square[-1].sum() > 2 * square[0].sum()
    overlap = (line[0] & line[-1]).sum() / line[0].sum()
    assert overlap < 0.7 and line[-1].sum() == pytest.approx(line[0].sum(), rel=0.1)


def test_training_from_metadata_json_and_a_video_of_the_checkpoint(command):
    draw_samples(command)
    # Names without a suffix, videos in a folder beside the table, as the demo has them.
    folder = Path("data/videos/videos")
    folder.mkdir()
    captions = {}
    for video in read_captions("data/videos/metadata.json").videos:
        captions[video.path.stem] = video.caption
        video.path.rename(folder / video.path.name)
    Path("data/videos/metadata.json").write_text(json.dumps(captions))
    command(
        "scripts/encode.py",
        *("--ckpt_path", SHIPPED_TAE, "--csv_path", "data/videos/metadata.json"),
        *("--video_folder", folder, "--image_size", "64", "--output_path", "outputs/video_latents"),
    )
    command(
        "scripts/train_video.py",
        *("--config", "configs/video/train/cogvideox.yaml"),
        *("--steps=1", "--batch_size=2", "--model.num_layers=1"),
    )
    command(
        "scripts/generate_video.py",
        *("--checkpoint", "outputs/cogvideox/generator", "--prompt", "A cat playing"),
        *("--output", "generated.mp4", "--num_frames", "16", "--resolution", "128"),
        *("--steps", "1"),
    )
    video = probe_video("generated.mp4")
    assert (video.num_frames, video.height, video.width) == (16, 128, 128)
    assert json.loads(Path("generated.json").read_text())["prompt"] == "A cat playing"


def test_a_video_without_a_prompt_is_of_an_example(command, caplog):
    with caplog.at_level("INFO", "mg"):
        command("scripts/generate_video.py", "--output", "my_video.mp4", "--steps=1")
    example = load_generator(SHIPPED_GENERATOR).scope.examples[0]
    assert f"No prompt is given; taking an example of the generator's: {example!r}" in caplog.text
    assert json.loads(Path("my_video.json").read_text())["prompt"] == example
    assert probe_video("my_video.mp4").num_frames == 16


@pytest.mark.parametrize("family", DENOISERS)
def test_the_demo_trains_every_family(family, command, caplog):
    num_epochs = 3 if family == "unet" else 1
    with caplog.at_level("INFO", "mg"):
        command(
            "scripts/train_video_demo.py",
            *("--family", family, "--num_videos", "4", "--batch_size", "2"),
            *("--epochs", num_epochs, "--lr", "3e-3"),
        )
    found = re.findall(r"Epoch (\d+): average loss (\d+\.\d+)", caplog.text)
    assert [int(number) for number, _ in found] == list(range(num_epochs))
    losses = [float(loss) for _, loss in found]
    assert losses == sorted(losses, reverse=True) and len(set(losses)) == num_epochs
    assert load_generator("outputs/video_demo/run/generator").family.name == family
