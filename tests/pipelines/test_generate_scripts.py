"""generate.py, eval_prompts.py and demo.py as a user starts them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mg.commands.generate import GenerateConfig
from mg.data.video import probe_video
from mg.pipelines.generated_files import numbered_paths, write_generated
from mg.pipelines.sampling_settings import SamplingSettings
from mg.pipelines.text_to_video import TextToVideo

ROOT = Path(__file__).parents[2]


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, f"scripts/{script}.py", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_generate_with_the_documented_flags(generator_folder, tmp_path):
    # fmt: off
    arguments = [
        "--checkpoint", generator_folder,
        "--prompt", "a red circle moving left",
        "--output", tmp_path / "video.mp4",
        "--num_frames", "4",
        "--resolution", "16",
        "--steps", "2",
        "--guidance", "2",
        "--seed", "11",
        "--negative_prompt", "blue",
        "--batch_size", "1",
    ]
    # fmt: on
    result = run("generate", *arguments)
    assert result.returncode == 0, result.stderr
    assert f"{tmp_path / 'video.mp4'}: a red circle moving left" in result.stderr
    video = probe_video(tmp_path / "video.mp4")
    assert (video.num_frames, video.height, video.width) == (4, 16, 16)
    metadata = json.loads((tmp_path / "video.json").read_text())
    assert metadata["seed"] == 11 and metadata["negative_prompt"] == "blue"
    assert metadata["checkpoint"] == str(generator_folder.resolve())
    again = run("generate", *arguments)
    assert again.returncode == 1
    assert "exists already" in again.stderr and "Traceback" not in again.stderr


def test_a_folder_of_prompts_is_finished_by_another_run(generator_folder, tmp_path, pynative_mode):
    generator = TextToVideo.from_pretrained(generator_folder)
    prompts = ["a red circle", "a blue square", "a green line"]
    folder = tmp_path / "videos"
    settings = SamplingSettings.of(generator.defaults, num_frames=2, steps=1)
    paths = numbered_paths(folder, 3, num_frames=2)
    list(write_generated(generator, prompts, paths, seeds=[0, 1, 2], settings=settings))
    paths[1].unlink()
    kept = [path.stat().st_mtime_ns for path in (paths[0], paths[2])]
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join([*prompts, "a fourth"]))
    flags = [f"--checkpoint={generator_folder}", f"--prompts_file={file}", f"--output={folder}"]
    result = run("generate", *flags, "--num_frames=2", "--steps=1", "--mode=pynative")
    assert result.returncode == 0, result.stderr
    assert "2 made, 2 finished before" in result.stderr
    assert sorted(folder.glob("*.mp4")) == [*paths, folder / "0003.mp4"]
    assert [path.stat().st_mtime_ns for path in (paths[0], paths[2])] == kept
    assert json.loads((folder / "0003.json").read_text())["seed"] == 3
    other = run("generate", *flags, "--num_frames=2", "--steps=2")
    assert other.returncode == 1
    assert (
        "0000.json exists, but was made with other inputs or settings (steps differ)"
        in other.stderr
    )


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"strength": 2.0}, "strength=2.0; expected more than 0 and at most 1"),
        ({"strength": 0.0}, "strength=0.0; expected more than 0"),
        ({"guidance": -1.0}, "guidance=-1.0; expected 0 or more"),
        ({"guidance": float("nan")}, "guidance=nan; expected 0 or more"),
        ({"true_cfg_scale": 0.5}, "true_cfg_scale=0.5; expected 1"),
        ({"fps": 0.0}, "fps=0.0; expected frames per second"),
        ({"steps": 0}, "steps=0; expected a whole number"),
        ({"num_frames": -4}, "num_frames=-4; expected a whole number"),
    ],
)
def test_numbers_that_cannot_be_are_refused_before_weights_are_read(setting, message):
    with pytest.raises(ValueError, match=message):
        GenerateConfig(prompt="a", output="a.mp4", checkpoint="nowhere", **setting)


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("demo", ["--port=0"], "port=0; expected 1 to 65535"),
        ("demo", ["--share"], "unknown setting 'share'"),
        ("generate", ["--prompt=a", "--step=3"], "unknown setting 'step'; did you mean 'steps'?"),
        ("generate", [], "give either prompt or prompts_file"),
        ("generate", ["--prompt=a", "--steps=-1"], "steps=-1; expected a whole number"),
        ("generate", ["--prompt=a", "--output=a.png", "--num_frames=4"], "would be an image"),
        ("generate", ["--prompt", "word " * 12], "too long for the encoder 'word'"),
        ("generate", ["--prompt=a", "--checkpoint=nowhere"], "nowhere does not exist"),
        ("eval_prompts", ["--num_prompts=0"], "num_prompts=0; expected 1 to 48"),
    ],
)
def test_wrong_use_ends_with_one_clear_line(generator_folder, tmp_path, script, arguments, message):
    flags = ["--checkpoint", generator_folder, *arguments]
    if script == "generate" and not any("--output" in argument for argument in arguments):
        flags += ["--output", tmp_path / "a.mp4"]
    result = run(script, *flags)
    assert result.returncode == 1
    assert message in result.stderr and "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []
