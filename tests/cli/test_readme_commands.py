"""Every command of README and recipes, and the Python of README and the page on weights, run."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mg.conditions.visual import ChannelConditions
from mg.data.video_writer import write_video
from mg.models.autoencoder_parts import AutoencoderParts
from mg.models.denoiser_config import TextInput
from mg.models.families import autoencoder_family
from mg.models.movie_gen.config import MovieGenConfig
from mg.models.movie_gen.parameter_shapes import parameter_shapes
from mg.pipelines.generator_writer import save_generator
from mg.weights.tae_layers import tae_shapes
from tests.tiny import TAE

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RECIPES = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
WEIGHTS = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")
PYTHON = [
    *re.findall(r"```python\n(.*?)```", README, re.DOTALL),
    re.search(r"```python\n(.*?)```", WEIGHTS, re.DOTALL)[1],
]
COMMANDS = [
    line.strip()
    for page in (README, RECIPES)
    for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
SMALL_TRAINING = (
    "--steps 1 --data.size 16 --data.sample_n_frames 2 --data.num_workers 0 "
    "--data.mixed_strategy video_only --data.mixed_image_ratio 0 "
    "--loss.perceptual_loss_weight 0 --mode pynative"
)
# What is added to a command (found by its beginning) to make it small; later flags win. In PyNative
# nothing has to be compiled, which takes longer than all the rest.
ADDED = {
    "mg fetch-lpips": "",
    "mg inflate": "",
    "mg train-tae --config configs/tae/train/mixed_256x256x16.yaml": SMALL_TRAINING,
    "mg train-tae --config configs/tae/train/tiny_3_adversarial.yaml": (
        "--steps 2 --data.size 16 --data.short_side_range null --data.sample_n_frames 2 "
        "--data.num_workers 0 "
        "--adversarial.start_step 0 --adversarial.warmup_steps 0 "
        "--adversarial.network.num_layers 1 --adversarial.network.ch 8 "
        "--validation.num_frames 2 --validation.size 16 --pretrained null --model.ch 8 "
        "--model.ch_mult [1] --model.num_res_blocks 1 --model.norm_groups 4 "
        "--model.attn_type spat_only --model.temporal_downsample_level [0] "
        "--model.temporal_upsample_level [0] --mode pynative"
    ),
    "mg doctor": "",
    "mg reconstruct --weights assets": "--num_frames 2 --image_size 16 --mode pynative",
    "mg generate --prompt": "--checkpoint assets/shapes_generator --mode pynative",
    "mg edit": "--mode pynative",
    "mg prepare": "--short_side 16",
    "mg train-tae --config configs/tae/train/demo.yaml": (
        "--steps 1 --data.size 16 --data.short_side_range null --data.sample_n_frames 2 "
        "--data.num_workers 0 --validation.num_frames 2 "
        "--validation.size 16 --mode pynative"
    ),
    "mg encode --weights assets/shapes_generator": (
        "--image_size 16 --tiling.frames 8 --tiling.overlap_frames 0 --mode pynative"
    ),
    "mg encode --weights assets/tae_tiny/tae_tiny.safetensors --input": (
        "--image_size 16 --tiling.frames 8 --tiling.overlap_frames 0 --mode pynative"
    ),
    "mg encode --": '--buckets ["4x16x16"] --mode pynative',
    "mg train --config configs/movie_gen/train/own_clips.yaml": (
        "--steps 1 --batch_size 2 --model.num_layers 1 --model.dim 32 --model.ffn_dim 32 "
        "--model.num_heads 2 --mode pynative"
    ),
    "mg generate --checkpoint": "--steps 1 --mode pynative",
    "mg download --list": "",
    "mg evaluate --": "--num_frames 2 --resolution 16 --crop_size 16",
    "mg reconstruct --weights THUDM": "--num_frames 2 --image_size 16 --mode pynative",
    "python tools/fault_inject.py": "--only flip_bits truncate_files --trials 20",
    "python tools/audit_ascend.py": "--graphs decode --dtypes float32",
    "mg reconstruct --weights outputs": "--num_frames 2 --image_size 16 --mode pynative",
    "mg decode": "--tiling.frames 8 --tiling.overlap_frames 0 --mode pynative",
    "mg inspect": "",
    "mg convert": "",
    "mg make-samples": "--num_videos 2 --size 16 --num_frames 4",
    "mg encode-text": "",
    "mg train --config configs/movie_gen/train/demo.yaml": (
        "--steps 1 --batch_size 2 "
        "--tae assets/shapes_generator/autoencoder/diffusion_pytorch_model.safetensors "
        "--model.num_layers 1 --model.dim 32 --model.ffn_dim 32 --model.num_heads 2 "
        "--validation.num_times 1 --validation.batch_size 2 "
        "--samples.steps 1 --mode pynative"
    ),
    "mg evaluate-prompts": "--num_prompts 1 --steps 1 --batch_size 1 --mode pynative",
}
# Run by .ci/run on a machine that has nothing installed, not here.
RUN_BY_CI = ("python3 run.py demo", "python3 run.py test", 'pip install -e ".[test]"')


def write_clips(folder: Path, names: list[str]) -> None:
    rng = np.random.default_rng(0)
    for name in names:
        frames = rng.integers(0, 256, (4, 24, 32, 3), np.uint8)
        write_video(folder / name, frames, fps=8)


def write_generator(folder: Path, *, has_source: bool = False) -> None:
    """Write a generator of random weights, in place of one that ships."""
    rng = np.random.default_rng(0)

    def drawn(shapes):
        return {name: 0.1 * rng.standard_normal(s, np.float32) for name, s in shapes.items()}

    transformer = MovieGenConfig(
        num_layers=1,
        dim=32,
        ffn_dim=32,
        num_heads=2,
        latent_channels=4,
        condition_channels=4 if has_source else 0,
        position_table=(2, 4, 4),
        text_encoders=(TextInput("word", 32, 16),),
    )
    save_generator(
        folder,
        transformer_tensors=drawn(parameter_shapes(transformer)),
        transformer_config=transformer,
        autoencoder=AutoencoderParts(
            autoencoder_family("tae"), TAE, drawn(tae_shapes(TAE.to_dict())), TAE.spec
        ),
        text_encoders=["word,width=32"],
        defaults={"num_frames": 4, "size": (16, 16), "fps": 16, "steps": 1},
        conditions=ChannelConditions(has_source=has_source),
    )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """Return a folder that looks like a checkout with the README's example data in it."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("scripts", "tools", "configs", "protocols"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "assets" / "tae_tiny", folder / "assets" / "tae_tiny")
    write_generator(folder / "assets" / "shapes_generator")
    write_generator(folder / "assets" / "shapes_editor", has_source=True)
    for name in ("train", "test"):
        write_clips(folder / "assets" / "clips" / name, ["one.mp4", "two.mp4"])
    table = "video,caption\ntrain/one.mp4,a white cockatoo\ntrain/two.mp4,a dog\n"
    (folder / "assets" / "clips" / "train.csv").write_text(table)
    videos = folder / "datasets" / "mixkit-100videos"
    write_clips(videos / "mixkit", ["a.mp4", "b.mp4"])
    for name in ("train", "test"):
        (videos / f"video_caption_{name}.csv").write_text(
            "video,caption\na.mp4,noise\nb.mp4,noise\n"
        )
    source = folder / "path" / "to" / "sd3.5_vae"
    source.mkdir(parents=True)
    shutil.copy(
        ROOT / "tests" / "fixtures" / "sd35_vae_tiny.safetensors",
        source / "diffusion_pytorch_model.safetensors",
    )
    (folder / "cache" / "lpips").mkdir(parents=True)
    # As if downloaded before: tests have no network, and networks of full size take too long.
    for name, fixture in (("sd-vae", "kl"), ("cogvideox-2b", "cogvae")):
        vae = ROOT / "tests" / "fixtures" / "vaes" / fixture
        shutil.copytree(vae, folder / "hub" / "weights" / name)
    write_clips(folder / "my_clips", ["a.mp4"])
    return folder


def run(arguments: list[str], folder: Path, **environment: str) -> str:
    done = subprocess.run(
        arguments,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "GLOG_v": "3", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{shlex.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command, checkout):
    if command in RUN_BY_CI:
        ci = (ROOT / ".ci" / "run").read_text() + (ROOT / "run.py").read_text()
        assert command.split()[-1].strip('"') in ci
        return
    prefixes = [prefix for prefix in ADDED if command.startswith(prefix)]
    assert prefixes, f"no small form of {command!r} is known; add it to ADDED"
    words = shlex.split(command.replace("/path/to", "path/to")) + shlex.split(ADDED[prefixes[0]])
    assert words[0] in ("python", "mg")
    if words[0] == "mg":
        words[1:1] = ["-m", "mg"]
    environment = {"MG_CACHE": str(checkout / "hub")}
    if "fetch-lpips" in command:
        environment["MG_CACHE"] = str(checkout / "cache")
        place = run(
            [
                sys.executable,
                "-c",
                "from mg.metrics.lpips import lpips_weights_path as p; print(p('vgg'))",
            ],
            checkout,
            **environment,
        )
        Path(place.strip()).touch()  # as if fetched before: tests have no network
    output = run([sys.executable, *words[1:]], checkout, **environment)
    for harmless in ("mean squared error", "warping_error"):
        output = output.lower().replace(harmless, "")
    assert "error" not in output


def test_every_small_form_belongs_to_a_command():
    for prefix in ADDED:
        assert any(command.startswith(prefix) for command in COMMANDS), prefix


# Behind each block of Python: what must have come out of it.
ASSERTIONS = (
    "assert z.shape == (1, 16, 2, 2, 2) and y.shape == x.shape == (1, 3, 16, 16, 16)\n"
    "assert videos.frames.shape == (1, 4, 16, 16, 3)",
    "assert z.shape == (1, 4, 1, 32, 32) and y.shape == x.shape == (1, 3, 1, 64, 64)",
)


@pytest.mark.parametrize("number", range(len(ASSERTIONS)))
def test_python_in_the_pages(number, checkout):
    """Each block alone, as it is pasted; only the first one's frames are made smaller."""
    assert len(PYTHON) == len(ASSERTIONS)
    write_video(
        checkout / "assets" / "clips" / "test" / "dog_ccbysa4.mp4",
        np.zeros((16, 64, 64, 3), np.uint8),
        fps=8,
        overwrite=True,
    )
    before = "import mindspore as ms\nms.set_device('CPU')\nms.set_context(mode=ms.PYNATIVE_MODE)\n"
    program = before + PYTHON[number].replace("size=96", "size=16") + ASSERTIONS[number]
    run([sys.executable, "-c", program], checkout, MG_CACHE=str(checkout / "hub"))
