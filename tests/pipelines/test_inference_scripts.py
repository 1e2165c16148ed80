"""The three scripts as a user starts them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mg.data.captions import read_captions
from mg.data.latent_manifest import build_latent_manifest
from mg.data.manifest import build_manifest
from mg.data.shard_writer import write_shards
from mg.data.video import probe_video

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


def test_inference_vae_with_the_documented_flags(weights, video_folder, tmp_path):
    table = tmp_path / "video_caption_test.csv"
    table.write_text("video,caption\na.mp4,one\nsub/b.mp4,two\n")
    # fmt: off
    result = run(
        "inference_vae",
        "--ckpt_path", weights,
        "--batch_size", "2",
        "--num_frames=8",
        "--image_size", "16",
        "--csv_path", table,
        "--video_folder", video_folder,
        "--enable_tile=False",
        "--output_path", tmp_path / "out",
    )
    # fmt: on
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "out" / "report.json").read_text())["num_clips"] == 2
    assert probe_video(tmp_path / "out" / "clips" / "sub" / "b.mp4").width == 32
    assert "enable_tile: false" in (tmp_path / "out" / "config.yaml").read_text()
    assert "mean of 2 clips" in result.stderr


def test_encode_then_decode(weights, video_folder, tmp_path):
    latents, videos = tmp_path / "latents", tmp_path / "videos"
    common = ("--ckpt_path", weights, "--enable_tile=True", "--memory_budget_gb=2")
    video = video_folder / "sub" / "b.mp4"
    sizes = ("--format=npz", '--buckets=["16x16x16", "12x16x16"]')
    result = run("encode", "--input", video, "--output_path", latents, *sizes, *common)
    assert result.returncode == 0, result.stderr
    assert "1 encoded, 0 finished before, 0 left out" in result.stderr
    assert "Peak memory of this process" in result.stderr
    result = run("decode", "--input", latents, "--output_path", videos, *common)
    assert result.returncode == 0, result.stderr
    info = probe_video(videos / "b.mp4")
    assert (info.num_frames, info.height, info.width, info.fps) == (12, 16, 16, 25.0)


def test_shards_are_encoded_with_their_captions(weights, video_folder, tmp_path):
    """What is left is a folder of latents and a table, as training on latents takes them."""
    captions = tmp_path / "captions.csv"
    captions.write_text("video,caption\na.mp4,one\nsub/b.mp4,two\n")
    clips = build_manifest(csv_path=captions, video_folder=video_folder).clips
    write_shards(clips, tmp_path / "shards", max_bytes=1)
    pattern, latents = tmp_path / "shards" / "clips-{000000..000001}.tar", tmp_path / "latents"
    sizes = ("--ckpt_path", weights, "--buckets=[12x16x16]")
    result = run("encode", "--input", pattern, "--output_path", latents, *sizes)
    assert result.returncode == 0, result.stderr
    assert f"The captions of 2 clips are in {latents / 'encode_captions.csv'}" in result.stderr
    found = build_latent_manifest(latents, read_captions(latents / "encode_captions.csv")).clips
    assert [(clip.name, clip.captions) for clip in found] == [
        ("clips-000000.tar/a.mp4", ("one",)),
        ("clips-000001.tar/sub/b.mp4", ("two",)),
    ]


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("encode", ["--input", "nowhere"], "no such video folder or file: nowhere"),
        ("encode", [], "give either input, or csv_path and video_folder"),
        ("encode", ["--input", "x", "--buckets=[8x16]"], "expected FRAMESxHEIGHTxWIDTH"),
        ("encode", ["--input", "x", "--buckets=[8x8x8]", "--image_size=8"], "not both"),
        ("decode", ["--input", "x", "--memory_budget_gb=4"], "no effect without enable_tile"),
        ("inference_vae", ["--num_frame", "4"], "num_frames"),
    ],
)
def test_wrong_use_ends_with_one_clear_line(weights, script, arguments, message):
    result = run(script, "--ckpt_path", weights, *arguments)
    assert result.returncode != 0
    assert message in result.stderr and "Traceback" not in result.stderr
