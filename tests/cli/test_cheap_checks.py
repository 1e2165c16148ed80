"""What is cheaply found wrong is answered before videos are probed and weights are read."""

import importlib

import pytest

from mg.commands import COMMANDS, run_command
from mg.weights import checkpoint_file

TINY = "assets/tae_tiny/tae_tiny.safetensors"
CLIPS = "assets/clips/test"


@pytest.fixture(autouse=True)
def nothing_dear(monkeypatch):
    """Let nothing be probed and no weights be read."""

    def dear(*arguments, **options):
        raise AssertionError("something dear came before a cheap check")

    for name in ("reconstruct", "encode"):
        module = importlib.import_module(f"mg.commands.{COMMANDS[name].module}")
        monkeypatch.setattr(module, "build_manifest", dear)
        monkeypatch.setattr(module, "load_autoencoder", dear)
    monkeypatch.setattr(importlib.import_module("mg.commands.decode"), "load_autoencoder", dear)
    monkeypatch.setattr("mg.pipelines.generator_parts.GeneratorParts.with_weights", dear)
    monkeypatch.setattr("mg.models.reading.read_weights", dear)
    assert checkpoint_file.read_weights is not dear  # the reading that is watched is the one used


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("reconstruct", ["--ckpt_path=none.ckpt", f"--video_folder={CLIPS}"], "none.ckpt"),
        (
            "reconstruct",
            [f"--ckpt_path={TINY}", f"--video_folder={CLIPS}", "--image_size=100"],
            "height 100 is not a multiple of 8; resize or crop to 96 or 104",
        ),
        (
            "reconstruct",
            [f"--ckpt_path={TINY}", f"--video_folder={CLIPS}", "--lpips_path=no.safetensors"],
            "LPIPS weights not found: no.safetensors",
        ),
        ("reconstruct", ["--ckpt_path=cogvideox-3b", f"--video_folder={CLIPS}"], "cogvideox-3b"),
        ("encode", ["--ckpt_path=none.ckpt", f"--input={CLIPS}"], "none.ckpt"),
        (
            "encode",
            [f"--ckpt_path={TINY}", f"--input={CLIPS}", '--buckets=["1x100x96"]'],
            "height 100 is not a multiple of 8",
        ),
        ("decode", [f"--ckpt_path={TINY}", "--input=/nope"], "no such latent file or folder"),
        ("generate", ["--prompt=a", "--output=x.gif"], "x.gif: expected a name that ends in .mp4"),
        (
            "generate",
            ["--prompt=a", "--output=x.mp4", "--steps=0"],
            "steps=0; expected a whole number",
        ),
    ],
)
def test_cheap_checks_come_first(command, arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("MG_DEBUG", raising=False)
    if command != "generate":
        arguments = [*arguments, f"--output_path={tmp_path / 'out'}"]
    with pytest.raises(SystemExit) as ended:
        run_command(command, arguments, program=f"mg {command}")
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_of_a_generators_folder_the_autoencoder_is_taken():
    path = checkpoint_file.find_weights("assets/shapes_generator")
    assert path.parent.name == "autoencoder" and path.is_file()


def test_a_training_refuses_sizes_before_weights_are_read(tmp_path, capsys):
    arguments = ["--data.size=100", "--data.short_side_range=null", f"--output_path={tmp_path}/o"]
    with pytest.raises(SystemExit):
        run_command("demo", arguments, program="mg demo")
    assert "data.size=100; the network needs a multiple of 8" in capsys.readouterr().err
