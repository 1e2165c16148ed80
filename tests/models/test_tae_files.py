"""Loading TAE weights of every origin, strictly."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mg.models.tae.config import TAEConfig
from mg.weights.checkpoint_file import read_weights, write_weights
from mg.weights.inflation import inflate_image_vae
from mg.weights.stored_config import config_metadata, config_path, stored_tae_config
from tests.tae_files import read_tae

VAE_PATH = Path(__file__).parents[1] / "fixtures" / "sd35_vae_tiny.safetensors"
TENSORS, INFLATED = inflate_image_vae(read_weights(VAE_PATH))
CONFIG = TAEConfig.from_mapping(INFLATED).to_dict()


def as_published(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors as the public checkpoint would hold them: prefixed, with dead projections."""
    published = {f"autoencoder._backbone.{name}": array for name, array in tensors.items()}
    published["autoencoder._backbone.encoder.mid.block_1.temb_proj.weight"] = np.ones((64, 512))
    return published


def assert_equals_inflated(tensors: dict[str, np.ndarray]) -> None:
    assert tensors.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        assert tensors[name].dtype == np.float32
        np.testing.assert_array_equal(tensors[name], array)


@pytest.mark.parametrize("extension", ["ckpt", "safetensors"])
@pytest.mark.parametrize("make", [dict, as_published], ids=["own", "published"])
def test_our_own_and_published_files(tmp_path, extension, make):
    path = tmp_path / f"a.{extension}"
    write_weights(path, make(TENSORS))
    for config in (None, CONFIG):
        loaded, found = read_tae(path, config=config)
        assert_equals_inflated(loaded)
        in_shapes = ("ch", "ch_mult", "z_channels", "temporal_upsample_level", "attn_type")
        assert {key: found[key] for key in in_shapes} == {key: CONFIG[key] for key in in_shapes}
    assert found == CONFIG


def test_image_vae_is_inflated_on_the_fly():
    for config in (None, CONFIG):
        loaded, found = read_tae(VAE_PATH, config=config)
        assert found == CONFIG
        assert_equals_inflated(loaded)


def test_image_vae_with_its_own_scaling(tmp_path):
    write_weights(tmp_path / "vae.safetensors", read_weights(VAE_PATH))
    (tmp_path / "config.json").write_text('{"scaling_factor": 0.3611, "shift_factor": null}')
    _, found = read_tae(tmp_path)
    assert (found["scaling_factor"], found["shift_factor"]) == (0.3611, 0.0)
    (tmp_path / "config.json").write_text('{"scaling_factor": "much"}')
    with pytest.raises(ValueError, match=r"a value in the VAE's config is not a number"):
        read_tae(tmp_path)


@pytest.mark.parametrize(
    ("vae_config", "config", "message"),
    [
        (None, None, "assumed are scaling_factor=1.5305, shift_factor=0.0609"),
        (
            {"scaling_factor": 0.3611},
            CONFIG,
            "was made with scaling_factor 0.3611, shift_factor 0.",
        ),
        ({"scaling_factor": 0.3611}, None, None),
        (None, CONFIG, None),
    ],
)
def test_a_scaling_that_may_be_wrong_is_warned_of(tmp_path, caplog, vae_config, config, message):
    write_weights(tmp_path / "vae.safetensors", read_weights(VAE_PATH))
    if vae_config is not None:
        (tmp_path / "config.json").write_text(json.dumps(vae_config))
    _, found = read_tae(tmp_path, config=config)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == (message is not None)
    assert all(message in warning for warning in warnings)
    assert found["scaling_factor"] == (0.3611 if vae_config and config is None else 1.5305)


def test_the_groups_of_the_image_vae_count(tmp_path):
    """No shape tells them: a config that disagrees would give other numbers in silence."""
    write_weights(tmp_path / "vae.safetensors", read_weights(VAE_PATH))
    (tmp_path / "config.json").write_text('{"latent_channels": 16, "norm_num_groups": 16}')
    assert read_tae(tmp_path)[1]["norm_groups"] == 16
    with pytest.raises(ValueError, match="norm_groups: the file says 16, the config says 32"):
        read_tae(tmp_path, config=CONFIG)
    (tmp_path / "config.json").write_text('{"model_type": "another"}')  # of something else
    with pytest.raises(ValueError, match="the config is of class 'another'"):
        read_tae(tmp_path)


@pytest.mark.parametrize("place", ["header", "beside_safetensors", "beside_ckpt"])
def test_stored_config_counts(tmp_path, place):
    """The padding shows in no shape, so it must come from what is stored, and fit."""
    stored = CONFIG | {"temporal_padding": "replicate", "scaling_factor": 2.0}
    path = tmp_path / ("a.ckpt" if place == "beside_ckpt" else "a.safetensors")
    write_weights(path, TENSORS, metadata=config_metadata(stored) if place == "header" else None)
    if place != "header":
        config_path(path).write_text(json.dumps(stored))
    assert stored_tae_config(path) == stored
    assert read_tae(path)[1] == stored
    assert read_tae(path, config=stored)[1] == stored
    with pytest.raises(ValueError, match="temporal_padding: the file says replicate, the config"):
        read_tae(path, config=CONFIG)
    with pytest.raises(ValueError, match="ch: the file says 32, the config says 96"):
        read_tae(path, config=stored | {"ch": 96})


@pytest.mark.parametrize("method", ["auto", "sd"])
@pytest.mark.parametrize("inflate_method", ["central", "replicate", "average"])
def test_an_image_vae_is_inflated_as_asked(method, inflate_method):
    loaded, _ = read_tae(VAE_PATH, method=method, inflate_method=inflate_method)
    expected, _ = inflate_image_vae(read_weights(VAE_PATH), method=inflate_method)
    assert loaded.keys() == expected.keys()
    assert all(np.array_equal(loaded[name], expected[name]) for name in expected)


def test_another_kind_than_asked_for_is_refused(tmp_path):
    write_weights(tmp_path / "a.ckpt", TENSORS)
    with pytest.raises(ValueError, match="method='tae', but these are weights of family 'sd'"):
        read_tae(VAE_PATH, method="tae")
    with pytest.raises(ValueError, match="method='sd', but these are weights of family 'tae'"):
        read_tae(tmp_path / "a.ckpt", method="sd")
    with pytest.raises(ValueError, match=r"inflate_method='average'.*nothing is inflated here"):
        read_tae(tmp_path / "a.ckpt", inflate_method="average")
    with pytest.raises(ValueError, match="centre"):
        read_tae(VAE_PATH, inflate_method="centre")


def test_stored_config_that_is_none(tmp_path):
    path = tmp_path / "a.ckpt"
    write_weights(path, TENSORS)
    assert stored_tae_config(path) is None
    config_path(path).write_text('{"loss": 3}')
    assert stored_tae_config(path) is None
    for text in ("[1]", "{"):
        config_path(path).write_text(text)
        with pytest.raises(ValueError, match=r"a\.json is not"):
            read_tae(path)


def test_image_vae_is_inflated_as_the_config_says():
    choices = {
        "attn_type": "spat_only",
        "temporal_downsample_level": (0, 1),
        "temporal_upsample_level": (2, 1),
        "temporal_padding": "replicate",
    }
    loaded, _ = read_tae(VAE_PATH, config=CONFIG | choices)
    missing = TENSORS.keys() - loaded.keys()
    assert len(missing) == 2 * 10 + 2 * 2  # temporal attention, one resampler in each half
    assert all("attn_1.1" in name or "sample_temp" in name for name in missing)


def test_half_precision_file_is_widened(tmp_path):
    half = {name: array.astype(np.float16) for name, array in TENSORS.items()}
    write_weights(tmp_path / "a.safetensors", half)
    loaded, _ = read_tae(tmp_path, config=CONFIG)
    assert {array.dtype for array in loaded.values()} == {np.dtype(np.float32)}
    name = "encoder.conv_in.conv_spat.weight"
    np.testing.assert_array_equal(loaded[name], half[name].astype(np.float32))


@pytest.mark.parametrize("path", ["tae.ckpt", VAE_PATH], ids=["tae", "image_vae"])
def test_another_config_is_named(tmp_path, path):
    write_weights(tmp_path / "tae.ckpt", TENSORS)
    other = CONFIG | {"ch": 64, "num_res_blocks": 2}
    with pytest.raises(ValueError) as caught:
        read_tae(tmp_path / path, config=other)
    assert "ch: the file says 32, the config says 64" in str(caught.value)
    assert "num_res_blocks: the file says 1, the config says 2" in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_extra_and_misshapen_tensors(tmp_path):
    tensors = dict(TENSORS)
    del tensors["encoder.mid.block_1.norm1.beta"]
    tensors["decoder.surplus"] = np.zeros(3, np.float32)
    tensors["decoder.norm_out.gamma"] = np.zeros(5, np.float32)
    write_weights(tmp_path / "a.safetensors", tensors)
    with pytest.raises(ValueError) as caught:
        read_tae(tmp_path / "a.safetensors", config=CONFIG)
    assert "1 missing (encoder.mid.block_1.norm1.beta)" in str(caught.value)
    assert "1 extra (decoder.surplus)" in str(caught.value)
    assert "decoder.norm_out.gamma is (5,), expected (32,)" in str(caught.value)


def test_integers_are_refused(tmp_path):
    tensors = TENSORS | {"encoder.norm_out.beta": np.zeros(64, np.int32)}
    write_weights(tmp_path / "a.ckpt", tensors)
    with pytest.raises(ValueError, match=r"'encoder\.norm_out\.beta' holds int32"):
        read_tae(tmp_path / "a.ckpt")


def test_other_files_are_refused(tmp_path):
    write_weights(tmp_path / "a.safetensors", {"x": np.zeros(1, np.float32)})
    with pytest.raises(
        ValueError, match=r"a\.safetensors: the 1 tensors \(x, \.\.\.\) are of no VAE"
    ):
        read_tae(tmp_path / "a.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(VAE_PATH.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"cut\.safetensors .* not a whole"):
        read_tae(tmp_path / "cut.safetensors")
    with pytest.raises(FileNotFoundError, match=r"none\.ckpt"):
        read_tae(tmp_path / "none.ckpt")


def test_weights_that_ship_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tensors, config = read_tae("assets/tae_tiny/tae_tiny.safetensors")
    assert config["patch_size"] == 4 and "decoder.linear.weight" in tensors


def test_reading_needs_no_mindspore():
    code = "import sys, mg.models.reading; sys.exit('mindspore' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
