"""What is said about weight files without reading them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from mg.weights import inspect_checkpoint, load_state_dict_from_file, save_state_dict_to_file
from mg.weights.bfloat16 import narrow_to_bfloat16
from mg.weights.checkpoint_file import list_tensors, read_weights, write_weights
from mg.weights.tensor_entry import TensorEntry

VAES = Path(__file__).parents[1] / "fixtures" / "vaes"
TENSORS = {
    "encoder.blocks.10.weight": np.ones((2, 3), np.float32),
    "encoder.blocks.9.weight": narrow_to_bfloat16(np.ones(4)),
    "encoder.blocks.9.bias": np.ones((), np.float16),
    "steps": np.array([7]),
}
ENTRIES = {
    "encoder.blocks.10.weight": TensorEntry("float32", (2, 3)),
    "encoder.blocks.9.weight": TensorEntry("bfloat16", (4,)),
    "encoder.blocks.9.bias": TensorEntry("float16", ()),
    "steps": TensorEntry("int64", (1,)),
}


@pytest.mark.parametrize(
    ("name", "kind"), [("a.safetensors", "safetensors"), ("a.pt", "pt"), ("a.ckpt", "ckpt")]
)
def test_every_format(tmp_path, name, kind):
    path = tmp_path / name
    write_weights(path, TENSORS)
    report = inspect_checkpoint(tmp_path, sha256=True)
    assert (report.path, report.format, report.family) == (path, kind, None)
    assert report.tensors == ENTRIES == list_tensors(path)
    assert report.num_parameters == 6 + 4 + 1 + 1
    assert report.dtypes == {"float32": 1, "bfloat16": 1, "float16": 1, "int64": 1}
    (file,) = report.files
    content = path.read_bytes()
    assert (file.num_bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert json.loads(json.dumps(report.as_dict()))["tensors"]["encoder.blocks.9.weight"] == {
        "dtype": "bfloat16",
        "shape": [4],
    }
    assert inspect_checkpoint(path).files[0].sha256 is None


def test_text(tmp_path):
    write_weights(tmp_path / "a.safetensors", TENSORS)
    text = str(inspect_checkpoint(tmp_path))
    assert "family      unknown\n" in text
    assert "parameters  12\n" in text
    assert "sha256" not in text
    tree = [
        "encoder  (11)",
        "  blocks  (11)",
        "    9  (5)",
        "      bias  [] float16",
        "      weight  [4] bfloat16",
        "    10  (6)",
        "      weight  [2, 3] float32",
        "steps  [1] int64",
    ]
    assert text.endswith("\n\n" + "\n".join(tree))


def test_families_of_files():
    for folder in ("kl", "klbin"):
        report = inspect_checkpoint(VAES / folder)
        assert (report.family, len(report.tensors), report.num_parameters) == ("sd", 124, 167_959)
        assert "family      sd: 2-D VAE" in str(report)


def test_what_loading_takes_off_is_told(tmp_path):
    tensors = {f"module.{name}": array for name, array in TENSORS.items()}
    write_weights(tmp_path / "a.pt", tensors)
    assert "prefix      module. (taken off by loading)\n" in str(inspect_checkpoint(tmp_path))
    tensors |= {"loss.logvar": np.zeros(()), "discriminator.main.0.bias": np.zeros(3)}
    write_weights(tmp_path / "a.pt", tensors, overwrite=True)
    text = str(inspect_checkpoint(tmp_path))
    assert "beside it   2 tensors (left out by loading)\n" in text and "prefix      module" in text


def test_names_cannot_steer_the_terminal(tmp_path):
    write_weights(tmp_path / "a.safetensors", {"a\x1b[2J.w\n": np.ones(1, np.float32)})
    text = str(inspect_checkpoint(tmp_path))
    assert "\x1b" not in text and "'a\\x1b[2J'" in text and "'w\\n'" in text


def test_nothing_but_the_header_is_read(tmp_path):
    """A damaged tensor does not show in a listing, and does when the file is read."""
    for name in ("a.pt", "a.ckpt"):
        path = tmp_path / name
        write_weights(path, {"w": np.zeros(1000, np.float32)})
        content = bytearray(path.read_bytes())
        content[2000] ^= 1
        path.write_bytes(content)
        assert inspect_checkpoint(path).tensors == {"w": TensorEntry("float32", (1000,))}
        with pytest.raises(ValueError, match="checksum"):
            read_weights(path)


def test_state_dicts_in_files(tmp_path):
    state_dict = {"w": np.arange(3, dtype=np.float32)}
    for name, format in (("a.pt", "pt"), ("b.bin", "pt"), ("c.pth", None), ("d.ckpt", "ckpt")):
        save_state_dict_to_file(state_dict, tmp_path / name, format=format)
        assert load_state_dict_from_file(tmp_path / name)["w"].tolist() == [0, 1, 2]
        with pytest.raises(FileExistsError):
            save_state_dict_to_file(state_dict, tmp_path / name)
    assert (tmp_path / "b.bin").read_bytes() == (tmp_path / "a.pt").read_bytes()
    with pytest.raises(ValueError, match="unknown format 'npy'; known are safetensors, pt, ckpt"):
        save_state_dict_to_file(state_dict, tmp_path / "e.pt", format="npy")
    with pytest.raises(ValueError, match=r"written to files ending in \.pt, \.pth, \.bin, not to"):
        save_state_dict_to_file(state_dict, tmp_path / "e.safetensors", format="pt")


def test_safetensors_are_preferred_in_folders(tmp_path):
    for number, name in enumerate(
        (
            "a.npz",
            "diffusion_pytorch_model.bin",
            "vae.safetensors",
            "diffusion_pytorch_model.safetensors",
        )
    ):
        tensors = {"w": np.array([number])}
        if name == "a.npz":
            np.savez(tmp_path / name, **tensors)
        else:
            write_weights(tmp_path / name, tensors)
        assert read_weights(tmp_path)["w"].tolist() == [number]


def test_of_a_training_checkpoint_the_averaged_weights_are_shown():
    path = VAES.parent / "causal_vae" / "v1.2"
    report = inspect_checkpoint(path)
    assert report.family == "causalvae"
    assert "prefix      module. (taken off by loading)" in str(report)
    assert all(name.startswith("module.") for name in report.tensors)
    plain = inspect_checkpoint(path, key="state_dict")
    assert "encoder.conv_in.weight" in plain.tensors
