"""Latent files: what is written is read, half-written or foreign ones are refused."""

import dataclasses
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mg.data.latent_files import (
    LatentInfo,
    LatentWriter,
    read_latent,
    read_latent_info,
)
from mg.data.video import BrokenVideoError, probe_video
from mg.latent_spec import LatentSpec
from mg.models.tae.config import TAEConfig
from mg.weights.safetensors_file import read_safetensors, write_safetensors

HOSTILE = Path(__file__).parents[1] / "fixtures" / "hostile"
CONFIG = TAEConfig(ch=32)
INFO = LatentInfo(
    num_frames=35,
    height=16,
    width=24,
    fps=29.97,
    source="sub/clip.mp4",
    config=CONFIG.to_dict(),
    config_hash="1" * 64,
    weights_hash="0" * 64,
    settings={"tiling": {"frames": 32}},
)
SHAPE = (16, 5, 2, 3)


def random_moments():
    rng = np.random.default_rng(0)
    return [rng.standard_normal(SHAPE).astype(np.float32) for _ in range(2)]


def write(path, mean, logvar, **options):
    with LatentWriter(path, INFO, **options) as writer:
        writer.write(mean[:, :4], logvar[:, :4])
        writer.write(mean[:, 4:], logvar[:, 4:])


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_round_trip_is_bit_equal(tmp_path, suffix):
    path = tmp_path / f"clip{suffix}"
    mean, logvar = random_moments()
    write(path, mean, logvar)
    latent = read_latent(path)
    np.testing.assert_array_equal(latent.mean, mean)
    np.testing.assert_array_equal(latent.logvar, logvar)
    assert latent.info == read_latent_info(path) == INFO
    assert INFO.latent_shape() == SHAPE
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_safetensors_written_in_pieces_is_a_plain_safetensors_file(tmp_path):
    mean, logvar = random_moments()
    write(tmp_path / "a.safetensors", mean, logvar)
    tensors = read_safetensors(tmp_path / "a.safetensors")
    assert sorted(tensors) == ["logvar", "mean"]
    np.testing.assert_array_equal(tensors["mean"], mean)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_incomplete_latent_leaves_nothing_behind(tmp_path, suffix):
    mean, logvar = random_moments()
    with (
        pytest.raises(ValueError, match="4 of 5 latent frames"),
        LatentWriter(tmp_path / f"a{suffix}", INFO) as writer,
    ):
        writer.write(mean[:, :4], logvar[:, :4])
    with (
        pytest.raises(KeyboardInterrupt),
        LatentWriter(tmp_path / f"a{suffix}", INFO) as writer,
    ):
        writer.write(mean, logvar)
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_too_many_or_misshapen_frames_are_refused(tmp_path):
    mean, logvar = random_moments()
    for bad in (mean[:, :, :1], np.concatenate((mean, mean), axis=1)):
        with (
            pytest.raises(ValueError, match="cannot be of the shapes"),
            LatentWriter(tmp_path / "a.npz", INFO) as writer,
        ):
            writer.write(bad, bad)
    assert logvar.shape == SHAPE and os.listdir(tmp_path) == []


def test_existing_file_is_kept_unless_overwritten(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"precious")
    mean, logvar = random_moments()
    with pytest.raises(FileExistsError, match="exists already"):
        write(path, mean, logvar)
    assert path.read_bytes() == b"precious"
    write(path, mean, logvar, overwrite=True)
    np.testing.assert_array_equal(read_latent(path).mean, mean)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_truncated_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write(path, *random_moments())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"is not a whole|cannot be read as a numpy archive"):
        read_latent(path)


def test_files_of_other_kinds_are_refused(tmp_path):
    write_safetensors(tmp_path / "weights.safetensors", {"w": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match="not a latent file"):
        read_latent(tmp_path / "weights.safetensors")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="not a latent file"):
        read_latent(tmp_path / "other.npz")
    with pytest.raises(ValueError, match=r"ends in \.safetensors or \.npz"):
        read_latent(tmp_path / "latent.pt")
    with pytest.raises(FileNotFoundError, match="latent file not found"):
        read_latent(tmp_path / "absent.npz")


def test_tensors_that_contradict_the_metadata_are_refused(tmp_path):
    write(tmp_path / "a.npz", *random_moments())
    with np.load(tmp_path / "a.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "b.npz", **{**arrays, "mean": arrays["mean"][:, 1:]})
    with pytest.raises(ValueError, match="expected 'mean' as float32"):
        read_latent(tmp_path / "b.npz")
    text = json.loads(str(arrays["latent_info"]))
    del text["fps"]
    np.savez(tmp_path / "c.npz", **{**arrays, "latent_info": np.array(json.dumps(text))})
    with pytest.raises(ValueError, match=r"metadata cannot be used.*fps"):
        read_latent(tmp_path / "c.npz")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("unknown_compression", "compression method is not supported"),
        ("odd_header", "cannot be read as a numpy archive"),
        ("bool_shape", "not a text|holds float32"),
    ],
)
def test_hostile_archives_are_refused_in_one_line(name, reason):
    with pytest.raises(ValueError, match=reason) as refusal:
        read_latent(HOSTILE / f"{name}.npz")
    assert "\n" not in str(refusal.value)


def test_a_prepared_clip_that_claims_a_huge_shape_is_refused():
    with pytest.raises(BrokenVideoError, match=r"huge_shape\.npy: not a readable"):
        probe_video(HOSTILE / "huge_shape.npy")


def test_a_file_that_unpacks_to_far_more_is_refused(tmp_path):
    """The latent of a claimed hour of black, which compresses to a thousandth."""
    shape, path = (16, 4000, 16, 16), tmp_path / "a.npz"
    info = dataclasses.replace(INFO, num_frames=32000, height=128, width=128)
    text = json.dumps(dataclasses.asdict(info))
    arrays = {name: np.zeros(shape, np.float32) for name in ("mean", "logvar")}
    np.savez_compressed(path, latent_info=np.array(text), **arrays)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(ValueError, match="with 131072000 of latent is not a latent file"):
        read_latent(path)


def test_an_array_of_another_size_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "a.npz"
    write(path, *random_moments())
    with zipfile.ZipFile(path, "a") as archive, archive.open("other.npy", "w") as file:
        np.save(file, np.zeros(1 << 20, np.float32))
    assert read_latent(path).info == INFO  # what is not asked for is not read
    np.savez(path, mean=np.zeros(9, np.float32), latent_info=np.array(json.dumps(vars(INFO))))
    with pytest.raises(ValueError, match=r"expected 'mean' as float32 .* found float32 \(9,\)"):
        read_latent(path)


@pytest.mark.parametrize(
    "change",
    [
        {"num_frames": 0},
        {"num_frames": "35"},
        {"num_frames": True},
        {"height": 1.5},
        {"fps": None},
        {"source": 3},
        {"config": []},
        {"config": {}},
        {"config": {**CONFIG.to_dict(), "ch_mult": [1] * 10**4}},
        {"config": {**CONFIG.to_dict(), "z_channels": -1}},
        {"weights_hash": {}},
        {"settings": None},
        {"spec": {}},
        {"spec": {**INFO.spec, "t": 0}},
        {"spec": {**INFO.spec, "factor": [1.0, 2.0]}},
        {"spec": {**INFO.spec, "h": 32}},
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_descriptions_with_wrong_types_are_refused(tmp_path, change, suffix):
    path = tmp_path / f"a{suffix}"
    without_spec = {name: value for name, value in vars(INFO).items() if name != "spec"}
    text = json.dumps({**without_spec, **change})
    if suffix == ".npz":
        np.savez(path, latent_info=np.array(text))
    else:
        write_safetensors(path, {"mean": np.zeros(1, np.float32)}, metadata={"latent_info": text})
    with pytest.raises(ValueError, match=r"a\.\w+: its metadata cannot be used") as refusal:
        read_latent_info(path)
    assert len(str(refusal.value)) < 500


def test_files_of_before_there_was_a_spec_have_that_of_their_config(tmp_path):
    older = {name: value for name, value in vars(INFO).items() if name not in ("spec", "family")}
    np.savez(tmp_path / "a.npz", latent_info=np.array(json.dumps(older)))
    info = read_latent_info(tmp_path / "a.npz")
    assert info == INFO
    assert info.latent_spec == CONFIG.spec and info.family == "tae"


def test_the_spec_says_what_shape_the_latent_has(tmp_path):
    spec = LatentSpec(4, t=4, h=8, w=16, head=1, step=4, factor=(1.0, 2.0, 3.0, 4.0))
    info = dataclasses.replace(INFO, num_frames=9, height=16, width=32, spec=spec.to_dict())
    assert info.latent_shape() == (4, 3, 2, 2)
    with LatentWriter(tmp_path / "a.safetensors", info) as writer:
        writer.write(np.zeros((4, 3, 2, 2), np.float32), np.zeros((4, 3, 2, 2), np.float32))
    assert read_latent(tmp_path / "a.safetensors").info.latent_spec == spec
