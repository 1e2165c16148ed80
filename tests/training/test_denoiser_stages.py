"""The configs of Movie Gen's stages: settings that parse, shapes that fit, tables that grow."""

import itertools
import math
from pathlib import Path

import pytest

from mg.cli import parse_config
from mg.models.movie_gen.family import growth
from mg.models.movie_gen.parameter_shapes import num_parameters, parameter_shapes
from mg.training.denoiser.denoiser_config import TrainDenoiserConfig

FOLDER = Path(__file__).parents[2] / "configs" / "movie_gen" / "train"
STAGES = ("stage1_t2i_256px", "stage2_t2iv_256px", "stage3_t2iv_768px")


def read(name, *flags):
    config_file = str(FOLDER / f"{name}.yaml")
    return parse_config(TrainDenoiserConfig, ["--config", config_file, *flags], description="")


@pytest.mark.parametrize(
    ("name", "table", "lr"),
    list(zip(STAGES, [(1, 16, 16), (32, 32, 32), (32, 96, 96)], [1e-4, 6e-5, 6e-5], strict=True)),
)
def test_a_stage_builds_and_takes_all_its_buckets(name, table, lr):
    settings = read(name)
    config = settings.denoiser().config()
    assert (config.num_layers, config.dim, config.num_heads) == (48, 6144, 48)
    shapes = parameter_shapes(config)
    rows = [shapes[f"positions.{axis}"][0] for axis in ("frames", "height", "width")]
    assert tuple(rows) == config.position_table == table and settings.optim.lr == lr
    for bucket in settings.data.parsed_buckets():
        size = bucket.num_frames, bucket.height, bucket.width
        grid = config.token_grid((1, config.latent_channels, *size))
        assert math.prod(grid) == math.prod(size) // 4


def test_each_stage_starts_from_the_one_before_with_longer_tables():
    first, second, third = (read(name).denoiser().config() for name in STAGES)
    assert growth(first, second) == (2, 32)
    assert growth(second, third) == (3, 32)
    for before, name in itertools.pairwise(STAGES):
        assert read(name).pretrained == f"{read(before).output_path}/generator"


@pytest.mark.parametrize(("preset", "billions"), [("1b", 1.1), ("5b", 5.8), ("30b", 31.0)])
def test_one_flag_makes_the_network_smaller(preset, billions):
    config = read("stage3_t2iv_768px", "--model.preset", preset).denoiser().config()
    assert config.position_table == (32, 96, 96)
    assert num_parameters(config) / 1e9 == pytest.approx(billions, rel=0.25)


def test_the_demo_has_four_to_seven_million_parameters():
    settings = read("demo")
    assert 4e6 < num_parameters(settings.denoiser().config()) < 7e6
    assert settings.text.encoders == ["word"] and settings.batch_size == 32
