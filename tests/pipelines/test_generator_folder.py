"""A generator's folder: written whole, read back as it was, and refused when it is not."""

import json
import re
import shutil

import numpy as np
import pytest

from mg.conditions.text.build import build_text_encoder
from mg.files import sha256_of_file
from mg.models.tae.tae import TemporalAutoencoder
from mg.pipelines.generated_files import describe_videos
from mg.pipelines.generator_defaults import GeneratorDefaults
from mg.pipelines.generator_folder import load_generator, open_generator
from mg.pipelines.generator_lora import with_lora
from mg.pipelines.generator_writer import save_generator
from mg.pipelines.sampling_checks import check_request
from mg.pipelines.sampling_settings import SamplingSettings
from mg.pipelines.visual_inputs import VisualInputs
from mg.tiling.sizes import Tiling
from mg.weights.lora_file import LORA_FILE, LowRankMap, write_lora

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def copy(generator_folder, tmp_path):
    """Return a copy of the generator's folder, at another place."""
    return shutil.copytree(generator_folder, tmp_path / "moved")


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_is_saved_is_loaded(copy, generator_parts):
    parts = load_generator(copy)
    assert parts.transformer_config == generator_parts["transformer_config"]
    expected = generator_parts["transformer_tensors"]
    assert set(parts.transformer_tensors) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(parts.transformer_tensors[name], values)
    assert parts.defaults == GeneratorDefaults(8, (16, 24), 12, guidance=3.0, steps=3)
    assert [encoder.spec for encoder in parts.text_encoders] == generator_parts["text_encoders"]
    assert parts.sha256 == {
        name: sha256_of_file(copy / name)
        for name in (f"denoiser/{WEIGHTS}", f"autoencoder/{WEIGHTS}")
    }


def test_a_folder_of_before_has_other_names_and_says_less(copy, generator_parts):
    index = json.loads((copy / "model_index.json").read_text())
    older_names = {"denoiser": "transformer", "autoencoder": "tae", "conditions": "text"}
    for name, older in older_names.items():
        (copy / name).rename(copy / older)
        index["sha256"] = {
            path.replace(f"{name}/", f"{older}/"): value for path, value in index["sha256"].items()
        }
    for name in ("families", "latents"):
        del index[name]
    (copy / "model_index.json").write_text(json.dumps(index))
    parts = load_generator(copy)
    assert parts.transformer_config == generator_parts["transformer_config"]
    assert set(parts.sha256) == {f"transformer/{WEIGHTS}", f"tae/{WEIGHTS}"}
    for name, values in generator_parts["transformer_tensors"].items():
        np.testing.assert_array_equal(parts.transformer_tensors[name], values)


def test_the_tae_inside_is_one_by_itself(copy, generator_parts):
    tae = TemporalAutoencoder(pretrained=copy / "autoencoder" / WEIGHTS)
    expected = TemporalAutoencoder(pretrained=generator_parts["autoencoder"])
    assert tae.config == expected.config
    assert json.loads((copy / "autoencoder" / "config.json").read_text())["z_channels"] == 4
    for name, values in expected.tensors().items():
        np.testing.assert_array_equal(tae.tensors()[name], values)


def test_networks_and_encoders_can_be_given_instead_of_paths_and_specs(
    copy, generator_parts, tmp_path
):
    save_generator(
        tmp_path / "new",
        **{
            **generator_parts,
            "autoencoder": TemporalAutoencoder(pretrained=generator_parts["autoencoder"]),
            "text_encoders": [build_text_encoder(s) for s in generator_parts["text_encoders"]],
            "transformer_config": generator_parts["transformer_config"].to_dict(),
            "defaults": GeneratorDefaults(8, (16, 24), 12, guidance=3.0, steps=3),
        },
    )
    for path in copy.rglob("*.*"):
        new = tmp_path / "new" / path.relative_to(copy)
        assert new.read_bytes() == path.read_bytes(), path


def test_a_folder_is_replaced_only_when_asked_and_only_if_it_is_a_generator(
    copy, generator_parts, tmp_path
):
    changed = {**generator_parts, "defaults": {**generator_parts["defaults"], "steps": 7}}
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        save_generator(copy, **changed)
    save_generator(copy, **changed, overwrite=True)
    assert load_generator(copy).defaults.steps == 7
    other = tmp_path / "holiday"
    other.mkdir()
    (other / "photo.jpg").write_bytes(b"dear")
    with pytest.raises(FileExistsError, match="is not a generator"):
        save_generator(other, **changed, overwrite=True)
    assert (other / "photo.jpg").read_bytes() == b"dear"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["holiday", "moved"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_encoders": ["word,width=64,max_tokens=12"]}, r"\[\(64, 12\)\]; the transformer"),
        ({"text_encoders": ["byte", "word"]}, "the transformer takes"),
        ({"transformer_tensors": {}}, "missing"),
        ({"defaults": {"num_frames": 8, "size": [16, 16]}}, "missing keys .*fps"),
        ({"defaults": {"num_frames": 8, "size": 16, "fps": 8}}, "size=16"),
        ({"defaults": {"num_frames": 8, "size": [16, 16], "fps": 8, "a": 1}}, "unknown keys"),
        ({"defaults": {"num_frames": 8, "size": [16, 0], "fps": 8}}, "width=0"),
        ({"defaults": {"num_frames": 8, "size": [8, 8], "fps": 8, "guidance": -1}}, "guidance=-1"),
    ],
)
def test_parts_that_do_not_fit_are_not_written(generator_parts, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        save_generator(tmp_path / "new", **{**generator_parts, **changes})
    assert list(tmp_path.iterdir()) == []


def test_a_tae_of_other_latents_is_refused(generator_parts, tmp_path):
    config = {**generator_parts["transformer_config"].to_dict(), "latent_channels": 8}
    tensors = dict(generator_parts["transformer_tensors"])
    for name in ("patch_embedding.weight", "final_linear.weight"):
        axis = 1 if name.startswith("patch") else 0
        tensors[name] = np.repeat(tensors[name], 2, axis=axis)
    changes = {"transformer_config": config, "transformer_tensors": tensors}
    with pytest.raises(ValueError, match="latents have 4 channels, the transformer takes 8"):
        save_generator(tmp_path / "new", **{**generator_parts, **changes})


def damage(folder):
    """Flip one bit of a generator's denoiser."""
    weights = folder / "denoiser" / WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)


def test_damaged_weights_are_refused(copy):
    damage(copy)
    with pytest.raises(ValueError, match="is not the file that was written: SHA-256"):
        load_generator(copy)


def test_a_request_is_refused_before_weights_are_read(copy, tmp_path):
    """Hashing them is what shows the damage, so whoever is told of something else came first."""
    damage(copy)
    parts = open_generator(copy)
    assert not parts.transformer_tensors and not parts.autoencoder.tensors and not parts.sha256
    settings = SamplingSettings.of(parts.defaults)
    with pytest.raises(ValueError, match="this generator was not trained with one"):
        check_request(parts, ["x"], settings, inputs=[VisualInputs(source="clip.mp4")])
    write_lora(tmp_path / LORA_FILE, {"x": LowRankMap(np.ones((1, 2)), np.ones((2, 1)), 1.0)})
    with pytest.raises(ValueError, match="1 of its 1 maps are not in this one, such as x"):
        with_lora(parts, tmp_path)
    with pytest.raises(ValueError, match="is not the file that was written: SHA-256"):
        parts.with_weights()
    entry = {"spec": "t5:/nowhere/t5,max_tokens=12", "identity": "t5"}
    edit(copy / "conditions" / "config.json", encoders=[entry])
    with pytest.raises(FileNotFoundError, match="/nowhere/t5"):
        load_generator(copy)


@pytest.mark.parametrize(
    ("file", "field"),
    [("denoiser", "num_layers"), ("denoiser", "ffn_dim"), ("autoencoder", "num_res_blocks")],
)
def test_sizes_that_no_weights_have_are_refused(copy, file, field):
    edit(copy / file / "config.json", **{field: 10**9})
    with pytest.raises(
        ValueError, match=f"{field}=1000000000(; that is more than its|: no network is that)"
    ):
        load_generator(copy)


def test_another_text_encoder_than_in_training_is_refused(copy):
    entry = {"spec": "word,width=32,max_tokens=12", "identity": "word of another version"}
    edit(copy / "conditions" / "config.json", encoders=[entry])
    with pytest.raises(ValueError, match="not the one that the transformer was trained with"):
        load_generator(copy)


def test_a_pretrained_text_encoder_that_was_moved_is_named(copy):
    entry = {"spec": "t5:/nowhere/t5,max_tokens=12", "identity": "t5"}
    edit(copy / "conditions" / "config.json", encoders=[entry])
    with pytest.raises(FileNotFoundError, match=r"/nowhere/t5.* write its new path there"):
        load_generator(copy)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("denoiser/config.json", {"num_layer": 3}, "did you mean 'num_layers'"),
        ("denoiser/config.json", {"num_layers": 2}, "does not fit its config.json"),
        ("autoencoder/config.json", {"z_channels": "x"}, "z_channels='x'"),
        ("conditions/config.json", {"encoders": "word"}, "expected a list `encoders`"),
        ("conditions/config.json", {"encoders": []}, "no text encoder is given"),
        ("model_index.json", {"sha256": {}}, "expected `sha256` of"),
        ("model_index.json", {"defaults": {}}, "missing keys"),
        ("model_index.json", {"families": None}, "has families=None, but by config.json"),
        (
            "model_index.json",
            {"families": {"denoiser": "unet", "autoencoder": "tae"}},
            "they are {'denoiser': 'movie_gen', 'autoencoder': 'tae'}",
        ),
    ],
)
def test_wrong_contents_are_refused_by_the_name_of_the_file(copy, file, changes, message):
    edit(copy / file, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        load_generator(copy)
    assert str(copy / file.split("/")[0]) in str(caught.value)


@pytest.mark.parametrize(
    "file",
    [
        "model_index.json",
        f"autoencoder/{WEIGHTS}",
        "conditions/config.json",
        "denoiser/config.json",
    ],
)
def test_a_missing_file_is_named(copy, file):
    (copy / file).unlink()
    with pytest.raises(FileNotFoundError, match=file.rsplit("/", 1)[-1]):
        load_generator(copy)


def test_what_is_no_generator_is_told_from_what_does_not_exist(tmp_path):
    expected = (
        "expected a folder that training wrote, with the folders denoiser, autoencoder, conditions"
    )
    for path, message in (
        (tmp_path, "is not a generator: there is no model_index.json"),
        (tmp_path / "nowhere", "does not exist"),
    ):
        line = re.escape(f"{path} {message}; {expected}")
        with pytest.raises(FileNotFoundError, match=f"^{line}$"):
            load_generator(path)


@pytest.mark.parametrize("drops", ["frame", "text,sources", ","])
def test_guidance_without_what_is_no_condition_is_refused_at_once(drops):
    with pytest.raises(ValueError, match="expected some of text, source, frames"):
        GeneratorDefaults(8, (16, 24), 12, guidance_drops=drops)
    defaults = GeneratorDefaults(8, (16, 24), 12, guidance_drops="text,source")
    assert SamplingSettings.of(defaults).dropped == ("text", "source")
    with pytest.raises(ValueError, match="expected some of text, source, frames"):
        SamplingSettings.of(defaults, guidance_drops=drops)


def test_the_record_tells_loras_of_one_weight_apart(generator_folder, tmp_path):
    parts = load_generator(generator_folder)
    for name, number in (("a", 0.1), ("b", 0.2)):
        change = LowRankMap(np.full((1, 32), number, np.float32), np.ones((32, 1), np.float32), 1)
        write_lora(tmp_path / name / LORA_FILE, {"blocks.0.self_attention.value": change})
    hashes = {name: sha256_of_file(tmp_path / name / LORA_FILE) for name in "ab"}
    once = with_lora(parts, tmp_path / "a")  # by its folder
    assert once.sha256 == {**parts.sha256, "lora x 1": hashes["a"]}
    assert with_lora(parts, tmp_path / "a" / LORA_FILE).sha256 == once.sha256
    both = with_lora(once, tmp_path / "b")
    assert both.sha256 == {**once.sha256, "lora 2 x 1": hashes["b"]}
    twice = with_lora(once, tmp_path / "a")
    close = [with_lora(parts, tmp_path / "a", weight=w) for w in (0.12345678, 0.12345679)]
    records = [
        describe_videos(
            each,
            ["a"],
            [0],
            SamplingSettings.of(parts.defaults),
            dtype="float32",
            decode_dtype="float32",
            tiling=Tiling(),
        )[0]["sha256"]
        for each in (parts, once, with_lora(parts, tmp_path / "b"), both, twice, *close)
    ]
    assert all(a != b for i, a in enumerate(records) for b in records[:i])
