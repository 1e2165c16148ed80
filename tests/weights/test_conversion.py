"""Conversion between formats and number types, and the two tools."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from safetensors.numpy import save_file

from mg.weights.bfloat16 import narrow_to_bfloat16, widen_bfloat16
from mg.weights.checkpoint_file import list_tensors, read_weights, write_weights
from mg.weights.conversion import convert_weights
from mg.weights.safetensors_file import read_safetensors_metadata, write_safetensors

ROOT = Path(__file__).parents[2]
KLBIN = ROOT / "tests" / "fixtures" / "vaes" / "klbin" / "diffusion_pytorch_model.bin"
TENSORS = {
    "w": np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32),
    "half": narrow_to_bfloat16(np.linspace(-3, 3, 7)),
    "steps": np.array([2**40]),
}


def tool(name: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "tools" / name, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_rounding_to_bfloat16_is_mindspores():
    rng = np.random.default_rng(0)
    powers = np.float32(10) ** rng.integers(-38, 38, 10_000)
    numbers = rng.standard_normal(10_000).astype(np.float32) * powers
    special = [0, -0.0, np.inf, -np.inf, 1 + 2**-8, 1 + 3 * 2**-8, 3.4e38, 1e-40, 65504]
    numbers = np.concatenate([numbers, np.array(special, np.float32)])
    ours = widen_bfloat16(narrow_to_bfloat16(numbers)["bfloat16"])
    theirs = ms.Tensor(numbers).astype(ms.bfloat16).float().asnumpy()
    np.testing.assert_array_equal(ours, theirs)
    nan = np.array([np.nan, -np.nan, np.uint32(0x7F800001).view(np.float32)], np.float32)
    assert np.isnan(widen_bfloat16(narrow_to_bfloat16(nan)["bfloat16"])).all()


def test_types_stay_through_all_formats(tmp_path):
    names = ("1.safetensors", "2.pt", "3.ckpt", "4.bin", "5.safetensors")
    write_weights(tmp_path / names[0], TENSORS)
    for source, target in itertools.pairwise(names):
        convert_weights(tmp_path / source, tmp_path / target)
        entries = {name: entry.dtype for name, entry in list_tensors(tmp_path / target).items()}
        assert entries == {"w": "float32", "half": "bfloat16", "steps": "int64"}
    assert (tmp_path / names[0]).read_bytes() == (tmp_path / names[-1]).read_bytes()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_other_types(tmp_path, dtype, tolerance):
    convert_weights(KLBIN, tmp_path / "a.safetensors", dtype=dtype)
    entries = list_tensors(tmp_path / "a.safetensors")
    expected, loaded = read_weights(KLBIN), read_weights(tmp_path / "a.safetensors")
    assert entries.keys() == loaded.keys() == expected.keys()
    for name, array in expected.items():
        assert entries[name] == (dtype, array.shape)
        np.testing.assert_allclose(loaded[name], array, rtol=tolerance, atol=1e-7)
    convert_weights(tmp_path / "a.safetensors", tmp_path / "b.pt", dtype="float32")
    assert {entry.dtype for entry in list_tensors(tmp_path / "b.pt").values()} == {"float32"}


def test_numbers_out_of_range_are_refused(tmp_path):
    write_weights(tmp_path / "a.pt", {"w": np.array([1e6, np.inf], np.float32)})
    with pytest.raises(ValueError, match="'w' holds numbers beyond float16's range"):
        convert_weights(tmp_path / "a.pt", tmp_path / "b.pt", dtype="float16")
    assert not (tmp_path / "b.pt").exists()
    convert_weights(tmp_path / "a.pt", tmp_path / "b.pt", dtype="bfloat16")
    assert read_weights(tmp_path / "b.pt")["w"].tolist() == [999424.0, np.inf]
    with pytest.raises(ValueError, match="unknown dtype 'float8'"):
        convert_weights(tmp_path / "a.pt", tmp_path / "c.pt", dtype="float8")
    with pytest.raises(ValueError, match="extension decides"):
        convert_weights(tmp_path / "a.pt", tmp_path / "c.npz")


def test_metadata_go_along(tmp_path):
    texts = {"format": "pt", "note": "hello"}
    write_safetensors(tmp_path / "a.safetensors", TENSORS, metadata=texts)
    convert_weights(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert read_safetensors_metadata(tmp_path / "b.safetensors") == {
        "format": "np",
        "note": "hello",
    }


def test_safetensors_are_written_as_the_package_does(tmp_path):
    kinds = ("?", "u1", "i1", "i2", "u2", "f2", "i4", "u4", "f4", "f8", "i8", "u8")
    tensors = {f"{kind}{n}": np.ones((n, 2), kind) for kind in kinds for n in (0, 1, 3)}
    tensors['ü "\\\n\x01/'] = np.array(2.5, np.float32)
    save_file(tensors, tmp_path / "theirs.safetensors", metadata={"format": "np"})
    write_safetensors(tmp_path / "ours.safetensors", tensors)
    ours, theirs = ((tmp_path / f"{who}.safetensors").read_bytes() for who in ("ours", "theirs"))
    assert ours == theirs
    with pytest.raises(ValueError, match="__metadata__"):
        write_safetensors(tmp_path / "c.safetensors", {"__metadata__": np.ones(1)})


def test_tools(tmp_path):
    target = tmp_path / "new" / "a.safetensors"
    converted = tool("convert_weights.py", KLBIN, target, "--dtype", "float16")
    assert converted.returncode == 0, converted.stderr
    assert "124 tensors, float16 (124)" in converted.stdout
    again = tool("convert_weights.py", KLBIN, target)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "exists already" in again.stderr
    assert tool("convert_weights.py", KLBIN, target, "--overwrite").returncode == 0

    shown = tool("inspect_checkpoint.py", target)
    assert shown.returncode == 0, shown.stderr
    assert "tensors     124: float32 (124)" in shown.stdout
    report = json.loads(tool("inspect_checkpoint.py", target.parent, "--json", "--sha256").stdout)
    assert report["family"] == "sd" and report["num_parameters"] == 167_959
    assert report["files"][0]["num_bytes"] == target.stat().st_size
    assert report["files"][0]["sha256"] in tool("inspect_checkpoint.py", target, "--sha256").stdout
    wrong = tool("inspect_checkpoint.py", tmp_path / "none.pt")
    assert wrong.returncode == 1 and "none.pt does not exist" in wrong.stderr
