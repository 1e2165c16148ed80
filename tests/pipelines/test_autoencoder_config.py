"""Settings of the scripts: what is accepted, what is refused, and the autoencoder they give."""

import dataclasses
import json

import pytest
import yaml

from mg.cli import config_to_yaml, parse_config
from mg.data.latent_files import LatentInfo
from mg.models.tae.config import TAEConfig
from mg.pipelines.autoencoder import (
    AutoencoderConfig,
    check_latent_config,
    config_hash,
    load_autoencoder,
    weights_hash,
)
from mg.tiling.sizes import Tiling
from mg.weights.checkpoint_file import read_weights, write_weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class SizedConfig(AutoencoderConfig):
    """Settings as a script has them.

    Args:
        image_size: side or [height, width].
    """

    image_size: int | tuple[int, int] | None = 256


def parse(*flags):
    return parse_config(SizedConfig, ["--ckpt_path=x.ckpt", *flags], description="test")


def test_flags_are_read_in_both_spellings():
    config = parse("--enable_tile=False", "--image_size", "[48, 64]", "--tiling.height", "128")
    assert config.enable_tile is False
    assert tuple(config.image_size) == (48, 64)
    assert config.tiling == Tiling(height=128)
    assert parse("--image_size=null").image_size is None
    assert parse("--image_size", "32").image_size == 32


def test_saved_config_gives_the_same_settings(tmp_path):
    config = parse(
        "--enable_tile=True",
        "--memory_budget_gb=4",
        "--tiling.frames=16",
        "--tiling.overlap_frames=8",
    )
    (tmp_path / "config.yaml").write_text(config_to_yaml(config))
    again = parse_config(SizedConfig, ["--config", str(tmp_path / "config.yaml")], description="")
    assert again == config


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--memory_budget_gb=4"], "no effect without enable_tile=True"),
        (["--enable_tile=True", "--memory_budget_gb=0"], "expected more than 0"),
        (["--tiling.frames=8"], "overlap_frames < frames"),
        (["--tiling.hight=8"], "tiling.height"),
        (["--enable_tiles=True"], "enable_tile"),
        (["--device=TPU"], "expected one of"),
    ],
)
def test_settings_without_sense_are_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        parse(*flags)


def test_missing_weights_path_is_an_error():
    with pytest.raises(ValueError, match="ckpt_path"):
        parse_config(SizedConfig, [], description="test")


def test_config_comes_from_the_weights_or_from_a_file(weights, tmp_path):
    stored = load_autoencoder(AutoencoderConfig(ckpt_path=str(weights)))
    assert stored.config.ch_mult == (1, 1) and stored.sample_deterministic

    bare = tmp_path / "tae.ckpt"
    write_weights(bare, read_weights(weights))
    hashes = {weights_hash(stored)}
    for name, text in (
        ("config.yaml", yaml.safe_dump(stored.config.to_dict())),
        ("config.json", json.dumps(stored.config.to_dict())),
    ):
        (tmp_path / name).write_text(text)
        tae = load_autoencoder(
            AutoencoderConfig(ckpt_path=str(bare), model_config=str(tmp_path / name))
        )
        assert config_hash(tae.config) == config_hash(stored.config)
        hashes.add(weights_hash(tae))
    assert len(hashes) == 1


def test_config_hash_changes_with_any_field():
    fields = [
        {},
        {"ch": 64},
        {"temporal_padding": "replicate"},
        {"shift_factor": 0.1},
        {"norm_per_frame": True},
        {"patch_size": 2},
        {"patch_size_t": 2},
    ]
    assert len({config_hash(TAEConfig(**field)) for field in fields}) == len(fields)


def test_config_hash_of_files_from_before_the_later_fields():
    """Latents that were encoded before those fields existed are still decoded."""
    former = "6cebce37feee88a87ce322412df42b9a980636d1ae85c45eab3dfd3c1f221195"
    assert config_hash(TAEConfig()) == former


def test_latent_of_another_config_is_refused_by_field():
    config = TAEConfig(ch=32)
    info = LatentInfo(8, 16, 16, 25.0, "a.mp4", config.to_dict(), config_hash(config), "", {})
    check_latent_config("a.npz", info, TAEConfig(ch=32), family="tae")
    other = TAEConfig(ch=32, temporal_padding="replicate")
    with pytest.raises(ValueError, match="temporal_padding is 'published' there and 'replicate'"):
        check_latent_config("a.npz", info, other, family="tae")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ch: [", "is not YAML that can be read"),
        ("- 1", "expected a mapping of the config's fields"),
        ("chmult: [1, 1]", "did you mean 'ch_mult'"),
        ("ch: 64", "of another config.*ch"),
    ],
)
def test_wrong_model_config_is_refused(weights, tmp_path, text, message):
    (tmp_path / "model.yaml").write_text(text)
    config = AutoencoderConfig(ckpt_path=str(weights), model_config=str(tmp_path / "model.yaml"))
    with pytest.raises(ValueError, match=message):
        load_autoencoder(config)


def test_missing_files_and_wrong_precision_are_refused(weights, tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        load_autoencoder(AutoencoderConfig(ckpt_path=str(tmp_path / "absent.ckpt")))
    with pytest.raises(FileNotFoundError, match="model_config not found"):
        load_autoencoder(AutoencoderConfig(ckpt_path=str(weights), model_config="absent.yaml"))
    with pytest.raises(ValueError, match="bfloat16"):
        load_autoencoder(AutoencoderConfig(ckpt_path=str(weights), encode_dtype="bfloat16"))
    with pytest.raises(ValueError, match="is not a multiple of 2"):
        load_autoencoder(AutoencoderConfig(ckpt_path=str(weights), tiling=Tiling(height=255)))
