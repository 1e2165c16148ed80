"""safetensors files: every number type, shards, and damaged headers."""

import json
import struct

import mindspore as ms
import numpy as np
import pytest

from mg.weights.safetensors_file import (
    list_safetensors,
    read_safetensors,
    read_safetensors_metadata,
    write_safetensors,
)


def pack(header: dict | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_what_is_written_is_read_back(tmp_path):
    tensors = {
        "float": np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 3, 4),
        "transposed": np.arange(12, dtype=np.float32).reshape(3, 4).T,
        "zero_stride": np.broadcast_to(np.float32(3), (4, 2)),
        "big_endian": np.arange(5, dtype=">f4"),
        "half": np.arange(5, dtype=np.float16),
        "bool": np.array([True, False, True]),
        "byte": np.arange(3, dtype=np.uint8),
        "int": np.arange(-3, 3, dtype=np.int64),
        "scalar": np.array(1.5, np.float32),
        "empty": np.empty((0, 2), np.float32),
    }
    path = tmp_path / "new" / "a.safetensors"
    write_safetensors(path, tensors, metadata={"made_by": "a test"})
    loaded = read_safetensors(path)
    assert loaded.keys() == tensors.keys()
    for name, array in tensors.items():
        assert loaded[name].dtype == array.dtype.newbyteorder("="), name
        assert loaded[name].shape == array.shape, name
        np.testing.assert_array_equal(loaded[name], array)
    assert read_safetensors_metadata(path) == {"format": "np", "made_by": "a test"}
    assert not loaded["float"].flags.owndata


def test_mindspore_reads_what_is_written_and_the_reverse(tmp_path):
    exact = ms.Tensor(np.linspace(-3, 3, 12, dtype=np.float32), ms.bfloat16)
    scalar = np.array(2, np.int32)
    ours, theirs = str(tmp_path / "ours.safetensors"), str(tmp_path / "theirs.safetensors")
    write_safetensors(ours, {"w": exact.asnumpy(), "s": scalar})
    loaded = ms.load_checkpoint(ours, format="safetensors")
    assert (loaded["w"].dtype, loaded["s"].shape) == (ms.bfloat16, ())
    parameters = [{"name": "w", "data": exact}, {"name": "s", "data": ms.Tensor(scalar)}]
    ms.save_checkpoint(parameters, theirs, format="safetensors")
    for path in (ours, theirs):
        tensors = read_safetensors(path)
        assert tensors["w"].dtype == np.float32
        np.testing.assert_array_equal(tensors["w"], exact.float().asnumpy())
        assert (tensors["s"].shape, int(tensors["s"])) == ((), 2)
        types = {name: entry.dtype for name, entry in list_safetensors(path).items()}
        assert types == {"w": "bfloat16", "s": "int32"}


def test_unaligned_tensors(tmp_path):
    path = tmp_path / "a.safetensors"
    header = {"a": entry("U8", [1], 0, 1), "b": entry("F32", [2], 1, 9)}
    path.write_bytes(pack(header, b"\x07" + np.array([1.5, 2.5], "<f4").tobytes()))
    loaded = read_safetensors(path)
    assert loaded["a"].tolist() == [7]
    assert loaded["b"].tolist() == [1.5, 2.5]
    assert loaded["b"].flags.aligned


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01\x02",
        pack({}, length=1 << 60),
        pack(b"not json at all"),
        pack(b"[1]"),
        pack({"a": entry("F32", [2], 0, 8)}, b"\0" * 7),
        pack({"a": entry("F32", [2], 0, 8)}, b"\0" * 9),
        pack({"a": entry("F32", [3], 0, 8)}, b"\0" * 8),
        pack({"a": entry("F32", [-2], 0, 8)}, b"\0" * 8),
        pack({"a": entry("X32", [2], 0, 8)}, b"\0" * 8),
        pack({"a": entry("F32", [2], 0, 8), "b": entry("F32", [1], 4, 8)}, b"\0" * 8),
        pack({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 8, 12)}, b"\0" * 12),
    ],
    ids=[
        *("empty", "short", "huge_header", "no_json", "list", "cut"),
        *("long", "shape", "negative", "type", "overlap", "hole"),
    ],
)
def test_damaged_files_are_refused(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.safetensors .* not a whole safetensors file"):
        read_safetensors(path)


def test_truncation_is_noticed_everywhere(tmp_path):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"a": np.ones(9, np.float32), "b": np.zeros((2, 2), np.float16)})
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="not a whole safetensors file"):
            read_safetensors(path)


def test_float8_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(pack({"a": entry("F8_E4M3", [4], 0, 4)}, b"\0" * 4))
    with pytest.raises(ValueError, match="a has type F8_E4M3"):
        read_safetensors(path)


def write_shards(folder, weight_map: dict | None = None) -> None:
    names = ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"]
    write_safetensors(folder / names[0], {"a": np.ones(2, np.float32)})
    write_safetensors(folder / names[1], {"b": np.zeros(3, np.float32), "c": np.ones(1, np.int8)})
    if weight_map is None:
        weight_map = {"a": names[0], "b": names[1], "c": names[1]}
    index = {"metadata": {"total_size": 21}, "weight_map": weight_map}
    (folder / "m.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("given", ["", "m.safetensors.index.json"])
def test_shards(tmp_path, given):
    write_shards(tmp_path)
    loaded = read_safetensors(tmp_path / given)
    assert {name: array.shape for name, array in loaded.items()} == {
        "a": (2,),
        "b": (3,),
        "c": (1,),
    }
    types = {name: entry.dtype for name, entry in list_safetensors(tmp_path / given).items()}
    assert types == {"a": "float32", "b": "float32", "c": "int8"}


def test_one_shard_alone_is_refused(tmp_path):
    write_shards(tmp_path)
    with pytest.raises(ValueError, match=r"m\.safetensors\.index\.json instead"):
        read_safetensors(tmp_path / "m-00001-of-00002.safetensors")


@pytest.mark.parametrize(
    ("weight_map", "error", "message"),
    [
        ({"a": "../m-00001-of-00002.safetensors"}, ValueError, "plain file names"),
        ({"a": "/etc/passwd"}, ValueError, "plain file names"),
        ({"a": "..\\x.safetensors"}, ValueError, "plain file names"),
        ({"a": 3}, ValueError, "plain file names"),
        ({"a": ".."}, ValueError, "plain file names"),
        ({"a": "m-00003-of-00003.safetensors"}, FileNotFoundError, "not beside it"),
        ({"b": "m-00002-of-00002.safetensors"}, ValueError, "disagree .* 'c'"),
        ([], ValueError, "weight_map"),
    ],
)
def test_bad_indices_are_refused(tmp_path, weight_map, error, message):
    write_shards(tmp_path, weight_map)
    with pytest.raises(error, match=message):
        read_safetensors(tmp_path / "m.safetensors.index.json")


def test_index_that_is_no_json(tmp_path):
    (tmp_path / "m.safetensors.index.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        read_safetensors(tmp_path)


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        read_safetensors(tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        read_safetensors(tmp_path)


def test_types_without_a_place_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'a' has type <U1"):
        write_safetensors(tmp_path / "a.safetensors", {"a": np.array("x")})
    assert list(tmp_path.iterdir()) == []
