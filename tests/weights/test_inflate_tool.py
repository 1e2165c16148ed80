"""tools/inflate_vae_to_tae.py as a user runs it."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mg.weights.checkpoint_file import read_weights, write_weights
from mg.weights.inflation import inflate_image_vae
from mg.weights.stored_config import stored_tae_config

ROOT = Path(__file__).parents[2]
VAE_PATH = ROOT / "tests" / "fixtures" / "sd35_vae_tiny.safetensors"


def run(*arguments: object, folder: Path = ROOT) -> subprocess.CompletedProcess:
    tool = "tools/inflate_vae_to_tae.py" if folder == ROOT else "inflate_vae_to_tae.py"
    command = [sys.executable, tool, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def assert_holds(path: Path, tensors: dict[str, np.ndarray]) -> None:
    written = read_weights(path)
    assert written.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(written[name], array)


@pytest.mark.parametrize("folder", [ROOT, ROOT / "tools"], ids=["root", "tools"])
def test_conversion(tmp_path, folder):
    target = tmp_path / "models" / ("tae.ckpt" if folder == ROOT else "tae.safetensors")
    result = run("--src", VAE_PATH, "--target", target, folder=folder)
    assert (result.returncode, result.stderr) == (0, "")
    tensors, config = inflate_image_vae(read_weights(VAE_PATH))
    assert_holds(target, tensors)
    assert json.loads(target.with_suffix(".json").read_text()) == config
    assert stored_tae_config(target) == config
    assert hashlib.sha256(target.read_bytes()).hexdigest() in result.stdout
    for text in (
        "factor 1.5305, shift 0.0609 (assumed: no config.json",
        "8 frame(s) per frame of latent, GroupNorm over each clip",
        "equals its source on images and still clips\n",
        "176 tensors, 1.0 M parameters, float32",
        "176 copied, 108 created",
        "284 tensors, 1.4 M parameters, float32",
        "ch 32, ch_mult [1, 1, 2, 2], num_res_blocks 1, z_channels 16",
        f"--ckpt_path {target}",
    ):
        assert text in result.stdout
    assert sorted(path.suffix for path in target.parent.iterdir()) == sorted(
        [target.suffix, ".json"]
    )


def test_sharded_half_precision_folder_with_its_own_scaling(tmp_path):
    source = {name: array.astype(np.float16) for name, array in read_weights(VAE_PATH).items()}
    names = sorted(source)
    weight_map = {}
    for number, part in enumerate((names[:100], names[100:]), start=1):
        shard = f"model-{number:05d}-of-00002.safetensors"
        write_weights(tmp_path / "vae" / shard, {name: source[name] for name in part})
        weight_map |= dict.fromkeys(part, shard)
    index = tmp_path / "vae" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    stated = {"scaling_factor": 0.3611, "shift_factor": 0.1159, "latent_channels": 16}
    (tmp_path / "vae" / "config.json").write_text(json.dumps(stated))
    target = tmp_path / "tae.safetensors"
    options = ("--method", "average", "--temporal_padding", "replicate", "--overwrite")
    for src in (index.parent, index):
        result = run("--src", src, "--target", target, *options)
        assert result.returncode == 0, result.stderr
        assert "float16" in result.stdout
        tensors, config = inflate_image_vae(source, method="average", temporal_padding="replicate")
        assert_holds(target, tensors)
        config |= {"scaling_factor": 0.3611, "shift_factor": 0.1159}
        assert json.loads((tmp_path / "tae.json").read_text()) == config


def test_stable_diffusion_vae_that_stays_itself_on_every_frame(tmp_path):
    folder, target = ROOT / "tests" / "fixtures" / "vaes" / "kl_old", tmp_path / "tae.safetensors"
    options = ("--norm_per_frame", "--temporal_compression", 1)
    result = run("--src", folder, "--target", target, *options)
    assert (result.returncode, result.stderr) == (0, "")
    structure = {"norm_groups": 8, "norm_per_frame": True, "scaling_factor": 0.18215}
    structure |= {"temporal_downsample_level": [], "temporal_upsample_level": []}
    tensors, config = inflate_image_vae(read_weights(folder), structure=structure)
    assert_holds(target, tensors)
    assert stored_tae_config(target) == config
    for text in (
        "1 frame(s) per frame of latent, GroupNorm over each frame",
        "equals its source on images, still clips and every frame of moving clips",
        "factor 0.18215, shift 0.0\n",
        "124 copied, 72 created",
    ):
        assert text in result.stdout


def test_help_says_what_each_method_keeps():
    text = run("--help").stdout
    for line in (
        "central              yes        yes            with --norm_per_frame",
        "replicate, average   yes        yes            no",
    ):
        assert line in text


@pytest.mark.parametrize("existing", ["tae.ckpt", "tae.json"])
def test_nothing_is_overwritten_unasked(tmp_path, existing):
    (tmp_path / existing).write_text("precious")
    result = run("--src", VAE_PATH, "--target", tmp_path / "tae.ckpt")
    assert result.returncode == 1
    assert existing in result.stderr
    assert "--overwrite" in result.stderr
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [
        (existing, "precious")
    ]


def test_faults_are_one_clear_line(tmp_path):
    target = tmp_path / "out" / "tae.ckpt"
    (tmp_path / "cut.safetensors").write_bytes(VAE_PATH.read_bytes()[:5000])
    (tmp_path / "torch.ckpt").write_bytes(b"PK\x03\x04...")
    names = ("encoder.conv_in.conv.weight", "decoder.conv_in.conv.weight")
    video = {name: np.zeros((4, 4, 3, 3, 3), np.float32) for name in names}
    write_weights(tmp_path / "video.safetensors", video)
    write_weights(tmp_path / "tae.ckpt", inflate_image_vae(read_weights(VAE_PATH))[0])
    for src, goal, message in (
        (tmp_path / "video.safetensors", target, "a video VAE's, not an image VAE's: 2 convol"),
        (tmp_path / "none.safetensors", target, "none.safetensors does not exist"),
        (tmp_path / "cut.safetensors", target, "not a whole safetensors file"),
        (tmp_path / "torch.ckpt", target, "PyTorch"),
        (tmp_path / "tae.ckpt", target, "a video TAE already"),
        (VAE_PATH, target.with_suffix(".npz"), "extension decides"),
    ):
        result = run("--src", src, "--target", goal)
        assert result.returncode == 1
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert message in result.stderr
    assert not target.parent.exists()


def test_a_temporal_compression_that_cannot_be(tmp_path):
    target = tmp_path / "tae.ckpt"
    result = run("--src", VAE_PATH, "--target", target, "--temporal_compression", 3)
    assert result.returncode == 1 and not target.exists()
    assert "temporal_compression=3; 4 levels can have one of [1, 2, 4, 8]" in result.stderr
