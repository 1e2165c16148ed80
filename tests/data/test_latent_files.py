"""Latent files: what is written is read, half-written or foreign ones are refused."""

import json
import os

import numpy as np
import pytest

from mg.data.latent_files import (
    LatentInfo,
    LatentWriter,
    read_latent,
    read_latent_info,
)
from mg.models.tae.config import TAEConfig
from mg.weights.safetensors_file import read_safetensors, write_safetensors

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
    with pytest.raises(ValueError, match="is not a whole"):
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
