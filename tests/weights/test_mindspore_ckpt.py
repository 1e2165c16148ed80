"""MindSpore checkpoints: bit-equal with MindSpore's own reader and writer, and strict."""

import mindspore as ms
import numpy as np
import pytest

import mg.weights.mindspore_ckpt as module
from mg.weights.mindspore_ckpt import read_mindspore_ckpt, write_mindspore_ckpt


def make_tensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "a.weight": random.standard_normal((3, 4, 1, 3)).astype(np.float32),
        "half": random.standard_normal(5).astype(np.float16),
        "double": random.standard_normal((2, 2)),
        "int32": np.arange(-2, 4, dtype=np.int32),
        "int64": np.array([2**40], np.int64),
        "uint8": np.arange(250, 256, dtype=np.uint8),
        "bool": np.array([[True, False]]),
        "scalar": np.array(2.5, np.float32),
        "transposed": random.standard_normal((3, 4)).astype(np.float32).T,
    }


def assert_same(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(actual) == list(expected)
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype, name
        assert actual[name].shape == array.shape, name
        assert actual[name].tobytes() == array.tobytes(), name


def test_what_is_written_is_read_back(tmp_path):
    tensors = make_tensors() | {"empty": np.empty((0, 3), np.float32)}
    write_mindspore_ckpt(tmp_path / "a.ckpt", tensors)
    assert_same(read_mindspore_ckpt(tmp_path / "a.ckpt"), tensors)


def test_mindspore_reads_what_is_written(tmp_path):
    tensors = make_tensors()
    write_mindspore_ckpt(tmp_path / "a.ckpt", tensors)
    loaded = ms.load_checkpoint(str(tmp_path / "a.ckpt"), crc_check=True)
    assert_same({name: value.asnumpy() for name, value in loaded.items()}, tensors)


@pytest.mark.parametrize("crc_check", [False, True])
def test_what_mindspore_writes_is_read(tmp_path, crc_check):
    tensors = make_tensors()
    parameters = [{"name": name, "data": ms.Tensor(array)} for name, array in tensors.items()]
    extras = {"epoch_num": 3, "learning_rate": 0.5, "note": "höhe"}
    path = str(tmp_path / "a.ckpt")
    ms.save_checkpoint(parameters, path, append_dict=extras, crc_check=crc_check)
    loaded = read_mindspore_ckpt(path)
    assert [loaded.pop(name).item() for name in extras] == [3, 0.5, "höhe"]
    assert_same(loaded, tensors)


def test_bfloat16_is_exact_in_both_directions(tmp_path):
    values = ms.Tensor(np.linspace(-3, 3, 24, dtype=np.float32).reshape(2, 3, 4), ms.bfloat16)
    exact = values.float().asnumpy()
    ms.save_checkpoint([{"name": "w", "data": values}], str(tmp_path / "theirs.ckpt"))
    write_mindspore_ckpt(tmp_path / "ours.ckpt", {"w": values.asnumpy()})
    for name in ("theirs.ckpt", "ours.ckpt"):
        np.testing.assert_array_equal(read_mindspore_ckpt(tmp_path / name)["w"], exact)
    loaded = ms.load_checkpoint(str(tmp_path / "ours.ckpt"))["w"]
    assert loaded.dtype == ms.bfloat16
    np.testing.assert_array_equal(loaded.float().asnumpy(), exact)


def test_large_tensors_in_slices(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SLICE_BYTES", 100)
    tensors = {"a": np.arange(999, dtype=np.float32).reshape(27, 37), "b": np.ones(3, np.float16)}
    write_mindspore_ckpt(tmp_path / "a.ckpt", tensors)
    assert_same(read_mindspore_ckpt(tmp_path / "a.ckpt"), tensors)
    loaded = ms.load_checkpoint(str(tmp_path / "a.ckpt"))
    assert_same({name: value.asnumpy() for name, value in loaded.items()}, tensors)


def test_truncation_is_noticed_everywhere(tmp_path):
    """Without a checksum, a cut between two tensors leaves a valid, shorter file; no other does."""
    whole, cut = tmp_path / "whole.ckpt", tmp_path / "cut.ckpt"
    arrays = {"a": np.arange(40, dtype=np.float32), "b": np.ones((2, 3), np.float32)}
    write_mindspore_ckpt(whole, arrays)
    content = whole.read_bytes()
    boundary = content.index(b"\x0a\x01b") - 2
    for length in range(len(content)):
        cut.write_bytes(content[:length])
        if length in (boundary, len(content) - 17):
            assert len(read_mindspore_ckpt(cut)) == (1 if length == boundary else 2)
            continue
        with pytest.raises(ValueError, match=r"cut\.ckpt"):
            read_mindspore_ckpt(cut)


def test_damage_is_noticed(tmp_path):
    path = tmp_path / "a.ckpt"
    write_mindspore_ckpt(path, {"a": np.zeros(100, np.float32)})
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        read_mindspore_ckpt(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"PK\x03\x04 something else", "another format, or encrypted"),
        (b"\x0a\x80", "truncated"),
        (b"\x0a" + b"\xff" * 20, "damaged"),
        (b"\x0a\x04\x0a\x02ab", "no name or no tensor"),
        (b"\x0a\x05\x0a\x01a\x1a\x00", "MapParameter"),
        (b"\x0a\x0a\x0a\x01a\x12\x05\x12\x03Foo", "'Foo'"),
        (b"\x0a\x10\x0a\x01a\x12\x0b\x08\x02\x12\x04Int8\x1a\x01\x00", "instead of 2"),
        (b"\x0a\x07\x0a\x01\xff\x12\x02\x08\x01", "not text"),
    ],
)
def test_other_content_is_refused(tmp_path, content, message):
    path = tmp_path / "a.ckpt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_mindspore_ckpt(path)


def test_a_name_that_occurs_twice_is_refused(tmp_path):
    path = tmp_path / "a.ckpt"
    value = b"\x0a\x10\x0a\x01%s\x12\x0b\x08\x01\x12\x04Int8\x1a\x01\x00"
    path.write_bytes(b"".join(value % name for name in (b"a", b"b", b"a")))
    with pytest.raises(ValueError, match="'a' occurs twice"):
        read_mindspore_ckpt(path)


def test_encrypted_files_are_refused(tmp_path):
    path = str(tmp_path / "a.ckpt")
    parameters = [{"name": "a", "data": ms.Tensor([1.0])}]
    ms.save_checkpoint(parameters, path, enc_key=b"0123456789abcdef")
    with pytest.raises(ValueError, match="encrypted"):
        read_mindspore_ckpt(path)


def test_refusals_when_writing(tmp_path):
    path = tmp_path / "a.ckpt"
    with pytest.raises(ValueError, match="complex64"):
        write_mindspore_ckpt(path, {"a": np.zeros(2, np.complex64)})
    with pytest.raises(ValueError, match="no tensors"):
        write_mindspore_ckpt(path, {})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match=r"a\.ckpt"):
        read_mindspore_ckpt(path)
