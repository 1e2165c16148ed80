"""The commands of a demo of video transformers, in its order: draw, train, generate.

They run in this process, in a folder of their own, so that MindSpore is imported once.
"""

import json
import re
import runpy
import shlex
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
    """Run the command of the documentation that draws the demo's videos."""
    text = (ROOT / "docs" / "conditions.md").read_text()
    line = re.search(r"`(tools/make_sample_videos.py [^`]*--captions [^`]*)`", text)[1]
    command(*shlex.split(line))


def commands_of(config):
    """Return the commands that the head of a config states, as lists of arguments."""
    head = [line[1:].strip() for line in config.read_text().splitlines() if line.startswith("#")]
    lines = re.sub(r"\\\s+", "", "\n".join(head)).splitlines()
    found = [re.search(r"python (scripts/.*)", line) for line in lines]
    return [shlex.split(line[1].replace(" TAE", f" {SHIPPED_TAE}")) for line in found if line]


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


@pytest.mark.parametrize(
    ("family", "has_folder"), [("cogvideox", False), ("hunyuan", False), ("cogvideox", True)]
)
def test_the_commands_of_the_config_follow_those_that_draw(family, has_folder, command):
    draw_samples(command)
    config = ROOT / "configs" / "video" / "train" / f"{family}.yaml"
    encode_videos, train_video, generate_video = commands_of(config)
    if has_folder:  # names without a suffix, videos in a folder below the table
        folder = Path("data/videos/videos")
        folder.mkdir()
        captions = {}
        for video in read_captions("data/videos/metadata.json").videos:
            captions[video.path.stem] = video.caption
            video.path.rename(folder / video.path.name)
        Path("data/videos/metadata.json").write_text(json.dumps(captions))
        flag = "--video_folder data/videos/videos"
        assert flag in config.read_text()
        encode_videos += flag.split()
    command(*encode_videos)
    assert len(list(Path("outputs/video_latents").glob("*.safetensors"))) == len(CAPTIONS)
    command(*train_video, "--steps=1", "--model.num_layers=1")
    sizes = ("--num_frames", "16", "--resolution", "128") if has_folder else ()
    command(*generate_video, *sizes, "--steps", "1")
    video = probe_video("generated.mp4")
    side = 128 if has_folder else 64
    assert (video.num_frames, video.height, video.width) == (16, side, side)
    assert json.loads(Path("generated.json").read_text())["prompt"] == "a cat playing"


def test_a_video_without_a_prompt_is_of_an_example(command, caplog):
    with caplog.at_level("INFO", "mg"):
        command("scripts/generate_video.py", "--output", "my_video.mp4", "--steps=1")
    example = load_generator(SHIPPED_GENERATOR).scope.examples[0]
    assert f"No prompt is given; taking an example of the generator's: {example!r}" in caplog.text
    assert json.loads(Path("my_video.json").read_text())["prompt"] == example
    assert probe_video("my_video.mp4").num_frames == 16


@pytest.mark.parametrize("family", DENOISERS)
def test_the_demo_trains_every_family(family, command, caplog):
    with caplog.at_level("INFO", "mg"):
        command(
            "scripts/train_video_demo.py",
            *("--family", family, "--num_videos", "8", "--batch_size", "2"),
            *("--epochs", "2"),
        )
    found = re.findall(r"Epoch (\d+): average loss (\d+\.\d+)", caplog.text)
    assert [int(number) for number, _ in found] == [0, 1]
    first, second = (float(loss) for _, loss in found)
    assert second < first
    assert load_generator("outputs/video_demo/run/generator").family.name == family
