"""The configs of the TAE's trainings: settings that parse, and networks of the sizes they state."""

import math
from pathlib import Path

import pytest

from mg.cli import parse_config
from mg.commands.train_tae import TrainTAEConfig
from mg.weights.tae_layers import tae_shapes

FOLDER = Path(__file__).parents[2] / "configs" / "tae" / "train"
FLOAT16_BYTES = 2


def read(path):
    # Some leave the videos to the command line.
    arguments = ["--config", str(path), "--video_folder", "clips"]
    return parse_config(TrainTAEConfig, arguments, description="")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_parses_and_says_how_it_is_run(path):
    assert read(path).output_path.startswith("outputs/")
    head = path.read_text(encoding="utf-8").split("output_path:")[0]
    assert "# command " in head and f"--config configs/tae/train/{path.name}" in head
    assert "# devices " in head


@pytest.mark.parametrize(("name", "megabytes"), [("tiny_1_clips", 26), ("shapes_generator", 12)])
def test_patched_networks_compress_8x8x8_and_are_small_enough_to_ship(name, megabytes):
    model = read(FOLDER / f"{name}.yaml").model
    assert (model.temporal_compression, model.spatial_compression, model.z_channels) == (8, 8, 16)
    count = sum(math.prod(shape) for shape in tae_shapes(model.to_dict()).values())
    assert 0.3 * megabytes < count * FLOAT16_BYTES / 1e6 < megabytes
