"""Choosing the format, round trips between formats, and a disk that runs full."""

import contextlib
import resource
import zipfile
from collections.abc import Iterator

import numpy as np
import pytest

from mg.weights.checkpoint_file import read_weights, write_weights

TENSORS = {
    "weight": np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32),
    "half": np.arange(3, dtype=np.float16),
    "steps": np.array(7, np.int64),
    "flags": np.array([True, False]),
}
FORMATS = ["a.safetensors", "a.ckpt", "a.pt"]


@contextlib.contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """Let the system refuse to let any file grow further, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("first", FORMATS)
@pytest.mark.parametrize("second", FORMATS)
def test_round_trip_is_bit_equal(tmp_path, first, second):
    write_weights(tmp_path / "1" / first, TENSORS)
    write_weights(tmp_path / "2" / second, read_weights(tmp_path / "1" / first))
    for path in (tmp_path / "2" / second, tmp_path / "2"):
        loaded = read_weights(path)
        assert loaded.keys() == TENSORS.keys()
        for name, array in TENSORS.items():
            assert (loaded[name].dtype, loaded[name].shape) == (array.dtype, array.shape)
            assert loaded[name].tobytes() == array.tobytes()


def test_content_decides_where_the_extension_does_not(tmp_path):
    write_weights(tmp_path / "a.safetensors", TENSORS)
    (tmp_path / "a.safetensors").rename(tmp_path / "a.ckpt")
    assert read_weights(tmp_path / "a.ckpt").keys() == TENSORS.keys()


@pytest.mark.parametrize("name", ["a.ckpt", "a.bin", "a.safetensors", "a.pt"])
def test_old_pytorch_files_are_refused(tmp_path, name):
    tar = bytes(257) + b"ustar\0" + bytes(300)
    for content in (b"\x80\x02rest of it", tar):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"PyTorch file of before .* convert it with torch"):
            read_weights(tmp_path / name)


@pytest.mark.parametrize("name", ["a.ckpt", "a.bin", "a.safetensors", "a.npz"])
def test_zip_archives_of_something_else_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04rest of it")
    with pytest.raises(ValueError, match="zip directory cannot be read"):
        read_weights(tmp_path / name)
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr("README.txt", "hello")
    with pytest.raises(ValueError, match="neither a PyTorch checkpoint nor numpy"):
        read_weights(tmp_path / name)


def test_safetensors_header_length_that_begins_like_a_pickle(tmp_path):
    path = tmp_path / "a.safetensors"
    for padding in range(256):
        write_weights(path, {"x" * padding: TENSORS["weight"]}, overwrite=True)
        if path.read_bytes()[:1] == b"\x80":
            break
    assert path.read_bytes()[:1] == b"\x80"
    assert read_weights(path).keys() == {"x" * padding}


def test_unknown_files_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("hello, world")
    with pytest.raises(ValueError, match="not a recognised weight file"):
        read_weights(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="extension decides"):
        write_weights(tmp_path / "a.npz", TENSORS)
    with pytest.raises(ValueError, match="no metadata"):
        write_weights(tmp_path / "a.ckpt", TENSORS, metadata={"a": "b"})
    with pytest.raises(FileNotFoundError, match=r"b\.ckpt"):
        read_weights(tmp_path / "b.ckpt")
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        read_weights(tmp_path)


def test_folder_with_a_choice_is_refused(tmp_path):
    write_weights(tmp_path / "a.safetensors", TENSORS)
    write_weights(tmp_path / "b.safetensors", TENSORS)
    with pytest.raises(ValueError, match=r"a\.safetensors, b\.safetensors; name one"):
        read_weights(tmp_path)


@pytest.mark.parametrize("name", FORMATS)
def test_existing_files_stay_unless_asked(tmp_path, name):
    path = tmp_path / name
    write_weights(path, TENSORS)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="overwrite"):
        write_weights(path, {"other": np.zeros(2, np.float32)})
    assert path.read_bytes() == before
    write_weights(path, {"other": np.zeros(2, np.float32)}, overwrite=True)
    assert list(read_weights(path)) == ["other"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("num_bytes", [0, 50, 10_000])
def test_full_disk_leaves_nothing_and_keeps_the_old_file(tmp_path, name, num_bytes):
    large = {"large": np.zeros(100_000, np.float32)}
    with file_size_limit(num_bytes), pytest.raises(OSError):
        write_weights(tmp_path / name, large)
    assert list(tmp_path.iterdir()) == []
    write_weights(tmp_path / name, TENSORS)
    with file_size_limit(num_bytes), pytest.raises(OSError):
        write_weights(tmp_path / name, large, overwrite=True)
    assert read_weights(tmp_path / name).keys() == TENSORS.keys()
    assert [path.name for path in tmp_path.iterdir()] == [name]
