"""numpy archives: read without pickles, checked before memory is taken."""

import io
import struct
import zipfile

import numpy as np
import pytest

from mg.weights.checkpoint_file import list_tensors, read_weights
from mg.weights.npz_file import list_npz, read_npz

TENSORS = {
    "a.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "transposed": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big_endian": np.arange(3, dtype=">i4"),
    "flags": np.array([True, False]),
    "scalar": np.array(2, np.int64),
    "empty": np.empty((0, 3), np.float16),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_round_trip(tmp_path, save):
    path = tmp_path / "a.npz"
    save(path, **TENSORS)
    for loaded, listed in (
        (read_npz(path), list_npz(path)),
        (read_weights(tmp_path), list_tensors(path)),
    ):
        assert list(loaded) == list(listed) == list(TENSORS)
        for name, array in TENSORS.items():
            assert listed[name] == (array.dtype.name, array.shape)
            assert loaded[name].dtype == array.dtype.newbyteorder("=")
            np.testing.assert_array_equal(loaded[name], array)


def npy(header: str, numbers: bytes = bytes(16)) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + numbers


def described(descr: str, shape: str) -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"


def pickled() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickled(), "holds object, not numbers"),
        (npy(described("'|O'", "(4,)")), "holds object, not numbers"),
        (npy(described("'<U4'", "(1,)")), "holds <U4, not numbers"),
        (npy(described("[('a', '<f4')]", "(4,)")), "not numbers"),
        (npy(described("'<f4'", "(5,)")), "16 bytes of numbers instead of 20"),
        (npy(described("'<f4'", "(3,)")), "16 bytes of numbers instead of 12"),
        (npy(described("'<f4'", "(1099511627776,)")), "instead of 4398046511104"),
        (npy(described("'<f4'", "(4294967296, 4294967296)")), "16 bytes of numbers instead"),
        (npy(described("'<f4'", "(-4,)")), "impossible shape"),
        (npy(described("'<f4'", "(-2, -2)")), "impossible shape"),
        (npy(described("'<f4'", "'4'")), "shape is not valid"),
        (npy(described("'<q9'", "(4,)")), "descr"),
        (npy("__import__('os').system('false')"), "numpy archive"),
        (npy("{"), "numpy archive"),
        (b"\x93NUMPY\x09\x00" + bytes(20), "version"),
        (b"not numpy", "magic string"),
        (b"", "magic string"),
    ],
)
def test_arrays_that_lie(tmp_path, content, message):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", content)
    for read in (read_npz, list_npz):
        with pytest.raises(ValueError, match=rf"a\.npz cannot be read .*{message}"):
            read(path)


def test_sizes_that_no_compression_explains(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", npy(described("'<f4'", "(268435456,)")))
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", 2**30 + 100)  # the unpacked size
    path.write_bytes(content)
    with pytest.raises(ValueError, match="impossible"):
        read_npz(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_never_gives_wrong_numbers(tmp_path, save):
    path = tmp_path / "a.npz"
    save(path, w=TENSORS["a.weight"])
    content = path.read_bytes()
    for length in range(0, len(content), 3):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="cannot be read as a numpy archive"):
            read_npz(path)
    num_refused = 0
    for position in range(0, len(content) * 8, 7):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        try:
            np.testing.assert_equal(list(read_npz(path).values()), [TENSORS["a.weight"]])
        except ValueError:
            num_refused += 1
    assert num_refused > len(content) / 4


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        read_npz(tmp_path / "none.npz")
