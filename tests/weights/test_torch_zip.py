"""PyTorch checkpoints: a real one, what is written here, views, and dicts inside dicts."""

import argparse
import collections
import datetime
import logging
import pickle
import sys
import zipfile
from pathlib import Path, PosixPath, PureWindowsPath

import numpy as np
import pytest

from mg.weights.bfloat16 import narrow_to_bfloat16, widen_bfloat16
from mg.weights.checkpoint_file import find_weights, read_weights
from mg.weights.conversion import convert_weights
from mg.weights.safetensors_file import read_safetensors
from mg.weights.tensor_entry import TensorEntry
from mg.weights.torch_zip import list_torch_zip, read_torch_zip
from mg.weights.torch_zip_writer import ALIGNMENT, write_torch_zip

VAES = Path(__file__).parents[1] / "fixtures" / "vaes"
REAL = VAES / "klbin" / "diffusion_pytorch_model.bin"
NUMBERS = np.arange(24, dtype=np.float32)


def plain(value: object) -> bytes:
    """The pickle instructions that push a plain value."""
    return pickle.dumps(value, protocol=2)[2:-1]


def tensor(offset: int, shape: tuple, strides: tuple, kind: str = "FloatStorage") -> bytes:
    """The instructions that push a view of storage 0, which has 24 numbers."""
    storage = b"(" + plain("storage") + b"ctorch\n" + kind.encode() + b"\n" + plain("0")
    storage += plain("cpu") + plain(24) + b"tQ"
    arguments = storage + plain(offset) + plain(shape) + plain(strides) + plain(False)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"}tR"


def table(items: dict[str, bytes]) -> bytes:
    return b"}(" + b"".join(plain(key) + value for key, value in items.items()) + b"u"


def write_archive(path: Path, tree: bytes, numbers: np.ndarray = NUMBERS) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + tree + b".")
        archive.writestr("a/data/0", numbers.tobytes())
    return path


def test_a_file_that_pytorch_wrote():
    loaded, expected = read_torch_zip(REAL), read_safetensors(VAES / "kl")
    assert loaded.keys() == expected.keys() and len(loaded) == 124
    for name, array in expected.items():
        assert loaded[name].dtype == np.float32
        np.testing.assert_array_equal(loaded[name], array)
    assert not loaded["encoder.conv_in.weight"].flags.owndata
    assert not loaded["encoder.conv_in.weight"].flags.writeable
    listed = {name: TensorEntry("float32", array.shape) for name, array in expected.items()}
    assert list_torch_zip(REAL) == listed
    assert read_weights(REAL.parent).keys() == expected.keys()


def test_what_is_written_is_read_back(tmp_path):
    tensors = {
        "float": np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 3, 4),
        "transposed": np.arange(12, dtype=np.float64).reshape(3, 4).T,
        "big_endian": np.arange(5, dtype=">i4"),
        "half": np.arange(5, dtype=np.float16),
        "bool": np.array([True, False, True]),
        "byte": np.arange(3, dtype=np.uint8),
        "short": np.arange(3, dtype=np.int16),
        "char": np.arange(-3, 3, dtype=np.int8),
        "long": np.array([-(2**62), 2**40]),
        "complex": np.array([1 + 2j, 3], np.complex64),
        "scalar": np.array(1.5, np.float32),
        "empty": np.empty((0, 2), np.float32),
        "名": np.ones(1, np.float32),
    }
    path = tmp_path / "new" / "a.pt"
    write_torch_zip(path, tensors)
    loaded, listed = read_torch_zip(path), list_torch_zip(path)
    assert list(loaded) == list(tensors) == list(listed)
    for name, array in tensors.items():
        assert loaded[name].dtype == array.dtype.newbyteorder("="), name
        assert listed[name] == (array.dtype.name, array.shape), name
        np.testing.assert_array_equal(loaded[name], array, err_msg=name)


def test_layout_of_what_is_written(tmp_path):
    """What PyTorch's reader relies on: member names, no compression, aligned storages."""
    write_torch_zip(tmp_path / "a.pt", {"a": np.ones(3, np.float32), "b": np.zeros(1, np.int8)})
    content = (tmp_path / "a.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        names = [f"archive/{name}" for name in ("data.pkl", "byteorder", "data/0", "data/1")]
        assert archive.namelist() == [*names, "archive/version"]
        assert archive.read("archive/byteorder") == b"little"
        assert archive.read("archive/version") == b"3\n"
        assert archive.testzip() is None
        for entry in archive.infolist():
            assert entry.compress_type == zipfile.ZIP_STORED
            lengths = content[entry.header_offset + 26 : entry.header_offset + 30]
            begin = entry.header_offset + 30 + sum(np.frombuffer(lengths, "<u2").tolist())
            assert begin % ALIGNMENT == 0
    write_torch_zip(tmp_path / "b.pt", {"a": np.ones(3, np.float32), "b": np.zeros(1, np.int8)})
    assert (tmp_path / "b.pt").read_bytes() == content


def test_pickle_of_what_is_written(tmp_path):
    """Python's own reader sees the calls that PyTorch's writer makes, argument by argument."""

    class Reader(pickle.Unpickler):
        def find_class(self, module, name):
            return lambda *arguments: (f"{module}.{name}", *arguments)

        def persistent_load(self, reference):
            return (reference[0], reference[1]()[0], *reference[2:])

    write_torch_zip(tmp_path / "a.pt", {"w": np.ones((2, 3, 4), np.float16)})
    with zipfile.ZipFile(tmp_path / "a.pt") as archive, archive.open("archive/data.pkl") as file:
        found = Reader(file).load()
    storage = ("storage", "torch.HalfStorage", "0", "cpu", 24)
    hooks = ("collections.OrderedDict",)
    arguments = (storage, 0, (2, 3, 4), (12, 4, 1), False, hooks)
    assert found == {"w": ("torch._utils._rebuild_tensor_v2", *arguments)}


def test_bfloat16(tmp_path):
    numbers = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    narrow = narrow_to_bfloat16(numbers)
    write_torch_zip(tmp_path / "a.pt", {"w": narrow})
    assert list_torch_zip(tmp_path / "a.pt") == {"w": TensorEntry("bfloat16", (5, 7))}
    loaded = read_torch_zip(tmp_path / "a.pt")["w"]
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, widen_bfloat16(narrow["bfloat16"]))
    np.testing.assert_allclose(loaded, numbers, rtol=2**-8)


def test_types_without_a_place_are_refused(tmp_path):
    for array in (np.array("x"), np.zeros(2, np.uint32), np.array([{}])):
        with pytest.raises(ValueError, match="'a' has type"):
            write_torch_zip(tmp_path / "a.pt", {"a": array})
    with pytest.raises(ValueError, match="no tensors"):
        write_torch_zip(tmp_path / "a.pt", {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "expected"),
    [
        (0, (2, 3, 4), (12, 4, 1), NUMBERS.reshape(2, 3, 4)),
        (12, (3, 4), (4, 1), NUMBERS.reshape(2, 3, 4)[1]),
        (0, (4, 3, 2), (1, 4, 12), NUMBERS.reshape(2, 3, 4).T),
        (1, (2, 2), (12, 2), NUMBERS.reshape(2, 12)[:, 1:5:2]),
        (23, (), (), NUMBERS[23]),
        (5, (1, 5), (0, 1), NUMBERS[None, 5:10]),
        (5, (1, 5), (2**62, 1), NUMBERS[None, 5:10]),  # a stride that is never used
        (0, (2, 12), (0, 1), NUMBERS[None, :12].repeat(2, axis=0)),
        (24, (0, 3), (3, 1), np.empty((0, 3))),
    ],
)
def test_views(tmp_path, offset, shape, strides, expected):
    path = write_archive(tmp_path / "a.pt", table({"w": tensor(offset, shape, strides)}))
    loaded = read_torch_zip(path)["w"]
    assert loaded.shape == expected.shape
    np.testing.assert_array_equal(loaded, expected)


def test_parameters_attributes_and_unaligned_storages(tmp_path):
    parameter = b"ctorch._utils\n_rebuild_parameter\n(" + tensor(0, (4,), (1,)) + b"\x88}tR"
    ordered = b"ccollections\nOrderedDict\n)R(" + plain("p") + parameter + b"u"
    metadata = plain({"_metadata": {"": {"version": 1}}}) + b"b"
    for name_length in range(4):  # moves the storage
        path = tmp_path / f"{'x' * name_length}.pt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", b"\x80\x02" + ordered + metadata + b".")
            archive.writestr("a/" + "x" * name_length, "")
            archive.writestr("a/data/0", NUMBERS.tobytes())
        loaded = read_torch_zip(path)["p"]
        assert loaded.tolist() == [0, 1, 2, 3]
        assert loaded.flags.aligned


def test_bytes_of_booleans(tmp_path):
    numbers = np.arange(24, dtype=np.uint8) % 3
    tree = table({"w": tensor(0, (24,), (1,), kind="BoolStorage")})
    loaded = read_torch_zip(write_archive(tmp_path / "a.pt", tree, numbers))["w"]
    assert loaded.dtype == np.bool_ and loaded.view(np.uint8).max() == 1
    np.testing.assert_array_equal(loaded, numbers != 0)


def one(number: int) -> bytes:
    return tensor(number, (1,), (1,))


def test_wrappers_are_taken_off(tmp_path, caplog):
    weights = table({"layer.w": one(3)})
    tree = {
        "epoch": plain(7),
        "state_dict": table({"gen_model": weights, "dics_model": table({"w": one(9)})}),
        "optimizer_state": table({"w": one(8)}),
    }
    path = write_archive(tmp_path / "a.pt", table(tree))
    with caplog.at_level(logging.INFO, logger="mg"):
        assert {name: a.item() for name, a in read_torch_zip(path).items()} == {"layer.w": 3}
    assert "left out" in caplog.text
    for name in ("epoch", "optimizer_state", "state_dict.dics_model"):
        assert name in caplog.text
    for key, expected in (
        ("state_dict.dics_model", {"w": 9}),
        ("optimizer_state", {"w": 8}),
        ("state_dict", {"layer.w": 3}),
        ("state_dict.gen_model", {"layer.w": 3}),
    ):
        loaded = read_weights(path, key=key)
        assert {name: a.item() for name, a in loaded.items()} == expected
        assert list_torch_zip(path, key=key).keys() == expected.keys()
    with pytest.raises(ValueError, match=r"no key='ema'; there are epoch, state_dict"):
        read_torch_zip(path, key="ema")
    with pytest.raises(ValueError, match="no tensors under key='epoch'"):
        read_torch_zip(path, key="epoch")


BESIDE = {
    "args": argparse.Namespace(lr=1e-4, nested={"a": [1, 2]}),
    "path": PosixPath("/data/run"),
    "windows": PureWindowsPath("C:/data"),
    "score": np.float64(0.25),
    "flag": np.bool_(True),
    "random": np.random.default_rng(0).bit_generator.state,
    "numbers": np.arange(3),
    "when": datetime.datetime(2026, 11, 28, tzinfo=datetime.timezone.utc),
    "counts": collections.defaultdict(list, {"a": [1]}),
    "names": {"a", "b"},
    "span": range(3),
    "complex": 1j,
    "bytes": b"\x00\xff",
    "large": 2**100,
}


@pytest.mark.parametrize("protocol", [2, 3])  # what PyTorch writes, and may be asked to write
def test_what_stands_beside_weights_is_left_out_and_listed(tmp_path, caplog, protocol):
    beside = {name: pickle.dumps(value, protocol)[2:-1] for name, value in BESIDE.items()}
    weights = {"w": one(3), "epoch": plain(np.int64(7)), "best": plain(np.float32(0.5))}
    for name, tree in {
        "wrapped.pt": {**beside, "state_dict": table(weights), "step": one(5)},
        "flat.pt": {**beside, **weights},
    }.items():
        path = write_archive(tmp_path / name, table(tree))
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="mg"):
            assert {name: a.item() for name, a in read_torch_zip(path).items()} == {"w": 3}
        for listed in ("args (argparse.Namespace)", "path (pathlib.PosixPath)", "score (numpy."):
            assert listed in caplog.text
        assert list_torch_zip(path).keys() == {"w"}


def test_settings_of_training_frameworks_are_never_imported(tmp_path):
    """Names of packages that are not even installed: what they hold is left out."""
    config = b"comegaconf.dictconfig\nDictConfig\n)\x81}" + plain("_content") + plain({"a": 1})
    schedule = b"ctorch.optim.lr_scheduler\nLambdaLR\n(" + plain(3) + b"tR"
    tree = {"w": one(3), "config": config + b"sb", "schedule": schedule}
    path = write_archive(tmp_path / "a.pt", table(tree))
    before = set(sys.modules)
    assert {name: a.item() for name, a in read_torch_zip(path).items()} == {"w": 3}
    assert not {"omegaconf", "torch"} & (set(sys.modules) - before)


def test_an_average_converts_to_clean_names(tmp_path):
    """The layout of CausalVideoVAE's training checkpoints, version 1.2."""
    generator = {"encoder.conv_in.weight": one(1), "decoder.conv_out.weight": one(2)}
    average = {f"module.{name}": one(5) for name in generator}
    tree = {
        "epoch": plain(7),
        "state_dict": table(
            {"gen_model": table(generator), "dics_model": table({"main.0.weight": one(9)})}
        ),
        "ema_state_dict": table({**average, "module.loss.logvar": tensor(0, (), ())}),
    }
    path = write_archive(tmp_path / "a.ckpt", table(tree))
    for key, expected in ((None, [5, 5]), ("ema_state_dict", [5, 5]), ("state_dict", [1, 2])):
        target = tmp_path / f"{key}.safetensors"
        convert_weights(path, target, key=key)
        converted = read_safetensors(target)
        assert sorted(converted) == sorted(generator)
        assert [converted[name].item() for name in generator] == expected


def test_averaged_weights_are_taken_unless_others_are_asked_for(tmp_path, caplog):
    tree = {"state_dict": table({"w": one(1)}), "ema_state_dict": table({"w": one(2)})}
    path = write_archive(tmp_path / "a.pt", table(tree))
    with caplog.at_level("INFO"):
        assert read_torch_zip(path)["w"].item() == 2
    assert "the averaged ones are taken, ema_state_dict (key='state_dict' takes" in caplog.text
    assert read_torch_zip(path, key="state_dict")["w"].item() == 1
    without = {**tree, "ema_state_dict": table({})}
    assert read_torch_zip(write_archive(tmp_path / "b.pt", table(without)))["w"].item() == 1


def test_a_choice_is_the_callers(tmp_path):
    path = write_archive(
        tmp_path / "a.pt", table({"model": table({"w": one(1)}), "vae": table({"w": one(2)})})
    )
    with pytest.raises(ValueError, match=r"several sets of weights: model, vae; .* key='model'"):
        read_torch_zip(path)
    tree = {name: table({"w": one(1)}) for name in ("state_dict", "ema", "ema_model")}
    with pytest.raises(ValueError, match=r"state_dict, ema_model, ema; .* key='ema_model'"):
        read_torch_zip(write_archive(tmp_path / "b.pt", table(tree)))


def test_names_of_layers_are_no_wrappers(tmp_path):
    """A flat state dict stays whole, whatever its names begin with; nested dicts are joined."""
    flat = {"model.w": one(1), "module.b": one(2), "steps": plain([1, 2])}
    loaded = read_torch_zip(write_archive(tmp_path / "a.pt", table(flat)))
    assert {name: a.item() for name, a in loaded.items()} == {"model.w": 1, "module.b": 2}
    nested = {"encoder": table({"w": one(1)}), "decoder": table({"w": one(2)})}
    loaded = read_torch_zip(write_archive(tmp_path / "b.pt", table(nested)))
    assert {name: a.item() for name, a in loaded.items()} == {"encoder.w": 1, "decoder.w": 2}
    listed = table({"w": b"](" + one(4) + one(5) + b"e"})
    loaded = read_torch_zip(write_archive(tmp_path / "c.pt", listed))
    assert {name: a.item() for name, a in loaded.items()} == {"w.0": 4, "w.1": 5}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (plain({"epoch": 3}), "holds no tensors"),
        (plain([]), "holds no tensors"),
        (one(0), "a single tensor without a name"),
        (table({"a": table({"b": one(0)}), "a.b": one(1)}), "two tensors called 'a.b'"),
    ],
)
def test_no_state_dict(tmp_path, tree, message):
    path = write_archive(tmp_path / "a.pt", tree)
    with pytest.raises(ValueError, match=rf"a\.pt cannot be read .*{message}"):
        read_torch_zip(path)


def test_a_key_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no key='model'; there are decoder, encoder"):
        read_weights(VAES / "kl", key="model")


def test_reading_without_checksums_is_lazy(tmp_path):
    """Listing and reading with verify=False do not look at the numbers; reading checks them."""
    path = tmp_path / "a.pt"
    write_torch_zip(path, {"w": np.zeros(1000, np.float32)})
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    assert list_torch_zip(path) == {"w": TensorEntry("float32", (1000,))}
    assert np.count_nonzero(read_torch_zip(path, verify=False)["w"]) == 1
    with pytest.raises(ValueError, match=r"'archive/data/0' has the checksum .* it is damaged"):
        read_torch_zip(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        read_torch_zip(tmp_path / "none.pt")
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        find_weights(tmp_path / "none.pt")
