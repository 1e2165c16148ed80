"""Build the wheel, install it into a fresh environment and use it there.

python tools/check_wheel.py

From an empty folder: `mg doctor`, one generated video, one reconstruction, three training steps.
Then some of the tests: the environment holds the core alone, with numpy 2, which the extra `text`
keeps away from the one that all tests run in.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What is run, and a file that it leaves.
COMMANDS = (
    ("doctor", None),
    (
        "generate --prompt 'a red circle moving left on a black background' --output circle.mp4 "
        "--steps 4 --mode pynative",
        "circle.mp4",
    ),
    (
        "reconstruct --ckpt_path assets/tae_tiny/tae_tiny.safetensors --mode pynative "
        "--video_folder assets/clips/test --num_frames 8 --image_size 64",
        "outputs/reconstruction/report.json",
    ),
    (
        "train-tae --config configs/tae/train/demo.yaml --steps 3 "
        "--loss.perceptual_loss_weight 0 --data.size 32 --data.short_side_range null "
        "--data.num_workers 0 --validation.num_frames 8 --validation.size 32 "
        "--mode pynative --output_path trained",
        "trained/tae.safetensors",
    ),
)
# Both modes, files, and what is computed in numpy; about a minute.
TESTS = ("tests/data/test_clips.py", "tests/flow", "tests/models/test_tae_modes.py", "tests/tiling")


def main() -> int:
    """Return 0 if all that is run ends well and leaves its file; else 1, after saying why."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    with tempfile.TemporaryDirectory(prefix="mg_wheel_") as scratch:
        work = Path(scratch)
        try:
            mg = install(work / "venv")
            (work / "empty").mkdir()
            for line, left in COMMANDS:
                run([mg, *shlex.split(line)], cwd=work / "empty")
                if left is not None and not (work / "empty" / left).is_file():
                    print(f"error: `mg {line}` did not write {left}", file=sys.stderr)
                    return 1
            run([mg.parent / "python", "-m", "pytest", "-p", "no:cacheprovider", *TESTS])
        except subprocess.CalledProcessError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    print("The wheel works in a fresh environment.")
    return 0


def install(venv: Path) -> Path:
    """Return the command `mg` of a new environment with the project's wheel, numpy 2 and pytest."""
    binaries = venv / ("Scripts" if os.name == "nt" else "bin")
    uv = shutil.which("uv")
    run([sys.executable, "-m", "venv", *(["--without-pip"] if uv else []), venv])
    pip = [uv, "pip", "install", "--python", binaries / "python"]
    run(
        [
            *(pip if uv else [binaries / "python", "-m", "pip", "install"]),
            ROOT,
            "numpy>=2",
            "pytest",
        ]
    )
    return binaries / "mg"


def run(command: list, cwd: Path = ROOT) -> None:
    """Print a command and run it, without this process's modules in reach."""
    print("+ " + " ".join(map(str, command)), flush=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(list(map(str, command)), cwd=cwd, env=environment, check=True)


if __name__ == "__main__":
    sys.exit(main())
