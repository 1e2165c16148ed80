"""PyTorch checkpoints made to do harm, or damaged: nothing runs, and nothing wrong is returned."""

import pickle
import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mg.weights.safe_pickle import MAX_INSTRUCTIONS
from mg.weights.torch_zip import MAX_PICKLE_BYTES, list_torch_zip, read_torch_zip
from mg.weights.torch_zip_writer import write_torch_zip

REAL = Path(__file__).parents[1] / "fixtures" / "vaes" / "klbin" / "diffusion_pytorch_model.bin"
NUMBERS = np.arange(24, dtype=np.float32)


def plain(value: object) -> bytes:
    """The pickle instructions that push a plain value."""
    return pickle.dumps(value, protocol=2)[2:-1]


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


def storage(key: object = "0", num_elements: object = 24, kind: str = "FloatStorage") -> bytes:
    parts = [plain("storage"), name("torch", kind), plain(key), plain("cpu"), plain(num_elements)]
    return b"(" + b"".join(parts) + b"tQ"


def tensor(
    offset: object = 0, shape: object = (2, 3), strides: object = (3, 1), held: bytes | None = None
) -> bytes:
    arguments = [plain(value) for value in (offset, shape, strides, False)]
    function = name("torch._utils", "_rebuild_tensor_v2")
    return call(function, storage() if held is None else held, *arguments, b"}")


def state_dict(value: bytes) -> bytes:
    return b"}(" + plain("w") + value + b"u"


def archive(
    path: Path,
    tree: bytes,
    *,
    members: dict[str, bytes] | None = None,
    numbers: bytes = NUMBERS.tobytes(),
    numbers_method: int = zipfile.ZIP_STORED,
    pickle_method: int = zipfile.ZIP_STORED,
) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", b"\x80\x02" + tree + b".", pickle_method)
        file.writestr("a/data/0", numbers, numbers_method)
        for member, content in (members or {}).items():
            file.writestr(member, content)
    return path


def assert_refused(path: Path, message: str) -> None:
    for read in (read_torch_zip, list_torch_zip):
        with pytest.raises(ValueError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_a_harmless_archive_of_the_same_making_is_read(tmp_path):
    loaded = read_torch_zip(archive(tmp_path / "a.pt", state_dict(tensor())))
    assert loaded["w"].tolist() == [[0, 1, 2], [3, 4, 5]]


# --- programs ------------------------------------------------------------------------------------


def test_the_attack_below_is_real(tmp_path):
    sentinel = tmp_path / "ran"
    touch = call(name("os", "system"), plain(f"touch {sentinel}"))
    pickle.loads(b"\x80\x02" + touch + b".")
    assert sentinel.exists()


@pytest.mark.parametrize(
    ("module", "function"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("subprocess", "Popen"),
        ("subprocess", "check_output"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("builtins", "__import__"),
        ("__builtin__", "eval"),
        ("runpy", "run_path"),
        ("shutil", "rmtree"),
        ("importlib", "import_module"),
        ("pickle", "loads"),
        ("codecs", "decode"),
        ("operator", "attrgetter"),
        ("torch", "load"),
        ("torch.serialization", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("torch.jit", "load"),
        ("torch.hub", "load"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch.nn.modules.container", "Sequential"),
        ("numpy.core.multiarray", "fromfile"),
        ("argparse", "ArgumentParser"),
        ("argparse", "_sys.exit"),
        ("pathlib", "os.system"),
        ("torch.optim", "os.system"),
        ("omegaconf", "OmegaConf.load()"),
        ("omegaconfig", "OmegaConf"),
        ("collections", "OrderedDict.fromkeys"),
        ("mg.weights.safe_pickle", "read_pickle"),
        ("mg.weights.torch_zip", "_rebuild_tensor"),
    ],
)
def test_names_outside_the_list(tmp_path, module, function):
    sentinel = tmp_path / "ran"
    for tree in (
        call(name(module, function), plain(f"touch {sentinel}")),
        state_dict(call(name(module, function), plain(f"touch {sentinel}"))),
        plain(module) + plain(function) + b"\x93" + plain((f"touch {sentinel}",)) + b"R",
    ):
        archive(tmp_path / "a.pt", tree)
        named = re.escape(f"names {module}.{function}, which is not on the list")
        assert_refused(tmp_path / "a.pt", named)
    assert not sentinel.exists()


@pytest.mark.parametrize(
    "tree",
    [
        b"(" + plain("touch {}") + b"ios\nsystem\n",  # INST
        b"(" + name("collections", "OrderedDict") + b"o",  # OBJ
        b"\x82\x01",  # EXT1
        b"Ptouch\n",  # PERSID, a text
        b"\x97",  # NEXT_BUFFER
        b"I5\n",
        b"L5L\n",
        b"S'text'\n",
        b"}0",  # POP
        b"\x8f",  # EMPTY_SET
        b"\xff",
    ],
)
def test_instructions_that_are_not_needed(tmp_path, tree):
    assert_refused(archive(tmp_path / "a.pt", tree), "has the instruction")


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (plain("os.system") + plain(("touch",)) + b"R", "calls what is not a function"),
        (name("collections", "OrderedDict") + b")\x81", "an object of no class"),
        (name("collections", "OrderedDict") + b")}\x92", "an object of no class"),
        (name("torch", "FloatStorage") + b")\x81", "an object of no class"),
        (call(name("torch", "FloatStorage"), plain(3)), "calls what is not a function"),
        (call(name("torch", "float32"), plain(3)), "calls what is not a function"),
        (name("collections", "OrderedDict") + plain([1]) + b"R", "calls what is not a function"),
        (call(name("collections", "OrderedDict"), plain([(1, 2)])), "wrong arguments"),
        (call(name("torch._utils", "_rebuild_tensor_v2"), storage()), "wrong arguments"),
        (name("torch._utils", "_rebuild_tensor_v2") + b"}b", "no dict at byte"),
        (name("torch", "FloatStorage") + b"}b", "no dict at byte"),
        (
            call(name("torch._utils", "_rebuild_parameter"), plain(3)),
            "parameter that is not a tens",
        ),
        (call(name("torch", "Size"), plain([1])), "torch.Size that is not a tuple"),
        (b"]" + plain(1) + plain(2) + b"s", "no dict at byte"),
        (b"}" + plain(1) + b"a", "no list at byte"),
        (b"}(" + plain(1) + b"u", "a key without value"),
        (b"}" + plain((1, 2)) + plain(3) + b"s", "tuple as the key"),
        (b"}(" + plain("a") + plain(1) + plain("a") + plain(2) + b"u", "key 'a' of a dict twice"),
        (b"h\x05", "nothing is kept under 5"),
        (b"t", "no mark"),
        (b"a", "nothing to take"),
        (b"(.", "nothing to take"),
        (b"\x8a\xff" + bytes(255), "integer of 255 bytes"),
        (b"X\xff\xff\xff\xffabc", "ends in the middle"),
        (b"X\x02\x00\x00\x00\xff\xfe", "no text"),
        (b"cos", "no name"),
        (b"\x80\x00", "protocol 0"),
        (b"", "nothing to take"),
    ],
)
def test_malformed_pickles(tmp_path, tree, message):
    assert_refused(archive(tmp_path / "a.pt", tree), message)


# --- bombs ---------------------------------------------------------------------------------------


def test_large_memo_indices_cost_nothing(tmp_path):
    tree = state_dict(tensor() + b"r\xff\xff\xff\xff")
    assert read_torch_zip(archive(tmp_path / "a.pt", tree)).keys() == {"w"}


def test_pickles_that_are_too_large(tmp_path):
    assert_refused(
        archive(tmp_path / "a.pt", bytes(MAX_PICKLE_BYTES)), f"at most {MAX_PICKLE_BYTES} are due"
    )
    archive(tmp_path / "b.pt", b"]" * (MAX_INSTRUCTIONS + 1))
    with pytest.raises(ValueError, match=f"more than {MAX_INSTRUCTIONS} instructions"):
        list_torch_zip(tmp_path / "b.pt")


def test_dicts_that_contain_themselves_or_repeat(tmp_path):
    itself = b"}q\xc8" + plain("a") + b"h\xc8s"
    assert_refused(archive(tmp_path / "a.pt", itself), "dicts inside one another")
    deep = b"]" * 100_000 + b"a" * 99_999
    assert_refused(archive(tmp_path / "b.pt", deep), "dicts inside one another")
    # Each dict holds 100 times the one before: 100**6 tensors out of a few kilobytes.
    repeated = state_dict(tensor())
    for level in range(6):
        index = bytes([100 + level])
        items = b"".join(plain(str(number)) + b"h" + index for number in range(100))
        repeated += b"q" + index + b"}(" + items + b"u"
    assert_refused(archive(tmp_path / "c.pt", repeated), "items")


def test_long_names(tmp_path):
    tree = b"}" + plain("n" * 600) + tensor() + b"s"
    assert_refused(archive(tmp_path / "a.pt", tree), "a name of 600 characters")


# --- tensors that lie ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "message"),
    [
        (24, (1,), (1,), "leaves its storage"),
        (0, (25,), (1,), "leaves its storage"),
        (20, (2, 3), (3, 1), "leaves its storage"),
        (0, (2, 2), (23, 1), "leaves its storage"),
        (2**63, (1,), (1,), "leaves its storage"),
        (2**62, (2, 2), (2**62, 1), "leaves its storage"),
        (0, (2,), (2**63 - 1,), "leaves its storage"),
        (0, (5, 2), (2**62, 1), "leaves its storage"),
        (2**255 - 1, (1,), (1,), "leaves its storage"),
        (2**255, (1,), (1,), "integer of 33 bytes"),  # no such offset can be written down
        (0, (2**40,), (0,), "repeats its storage"),
        (0, (5, 5), (1, 1), "repeats its storage"),
        (0, (2**40, 2**40), (0, 0), "impossible shape"),
        (0, (2**32, 2**32), (1, 1), "impossible shape"),
        (0, (0, 2**62), (1, 1), "impossible shape"),
        (-1, (1,), (1,), "are none"),
        (0, (-1,), (1,), "are none"),
        (5, (2,), (-1,), "are none"),
        (0, (2, 3), (3,), "are none"),
        (0, (True, 3), (3, 1), "are none"),
        (0, (2.0, 3), (3, 1), "are none"),
        (0, [2, 3], [3, 1], "are none"),
        (None, (2, 3), (3, 1), "are none"),
        (0, (1,) * 33, (1,) * 33, "are none"),
        (0, ("2",), (1,), "are none"),
    ],
)
def test_views_outside_their_storage(tmp_path, offset, shape, strides, message):
    assert_refused(archive(tmp_path / "a.pt", state_dict(tensor(offset, shape, strides))), message)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (storage(num_elements=25), "96 bytes instead of 25 numbers"),
        (storage(num_elements=23), "96 bytes instead of 23 numbers"),
        (storage(num_elements=2**61), "96 bytes instead of"),
        (storage(kind="DoubleStorage"), "96 bytes instead of 24 numbers of type float64"),
        (storage(num_elements=-24), "refers to a storage in a way"),
        (storage(num_elements=24.0), "refers to a storage in a way"),
        (storage(key=0), "refers to a storage in a way"),
        (storage("1"), "no member 'a/data/1'"),
        (storage("../data/0"), "calls a storage '../data/0'"),
        (storage("/etc/passwd"), "calls a storage '/etc/passwd'"),
        (storage("0/../0"), "calls a storage"),
        (storage(""), "calls a storage ''"),
        (storage("\N{DEVANAGARI DIGIT ZERO}"), "calls a storage"),
        (storage("0" * 21), "calls a storage"),
        (plain(("storage", "FloatStorage", "0", "cpu", 24)) + b"Q", "refers to a storage in a way"),
        (plain("storage") + b"Q", "refers to a storage in a way"),
        (plain(("module", 1)) + b"Q", "refers to a storage in a way"),
        (b")Q", "refers to a storage in a way"),
        (plain(3), "tensor without a storage"),
        (b"}", "tensor without a storage"),
    ],
)
def test_storages_that_lie(tmp_path, held, message):
    assert_refused(archive(tmp_path / "a.pt", state_dict(tensor(held=held))), message)


def test_one_storage_with_two_types(tmp_path):
    other = tensor(held=storage(kind="IntStorage"))
    tree = b"}(" + plain("a") + tensor() + plain("b") + other + b"u"
    assert_refused(archive(tmp_path / "a.pt", tree), "storage 0 in two different ways")


def test_types_that_numpy_lacks(tmp_path):
    kind = name("torch", "float8_e4m3fn")
    held = b"(" + plain("storage") + name("torch.storage", "UntypedStorage")
    held += plain("0") + plain("cpu") + plain(96) + b"tQ"
    function = name("torch._utils", "_rebuild_tensor_v3")
    view = [plain(0), plain((96,)), plain((1,)), plain(False), b"}"]
    archive(tmp_path / "a.pt", state_dict(call(function, held, *view, kind)))
    assert_refused(tmp_path / "a.pt", "type float8_e4m3fn, which is not supported; convert")
    view[1] = plain((48,))
    archive(tmp_path / "b.pt", state_dict(call(function, held, *view, name("torch", "uint16"))))
    assert read_torch_zip(tmp_path / "b.pt")["w"].tobytes() == NUMBERS.tobytes()
    archive(tmp_path / "c.pt", state_dict(tensor(held=held)))
    assert_refused(tmp_path / "c.pt", "without a storage of numbers")


# --- archives that lie ---------------------------------------------------------------------------

GOOD = state_dict(tensor())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"numbers_method": zipfile.ZIP_DEFLATED, "numbers": bytes(96)}, "is compressed"),
        ({"pickle_method": zipfile.ZIP_DEFLATED}, "is compressed"),
        ({"members": {"b/data.pkl": b"\x80\x02}."}}, "2 members called data.pkl"),
        ({"members": {"data.pkl": b"\x80\x02}."}}, "2 members called data.pkl"),
        ({"members": {"a/byteorder": b"big"}}, "big-endian"),
        ({"members": {"a/byteorder": b"little" * 9}}, "at most 16 are due"),
        ({"members": {"a/constants.pkl": b""}}, "TorchScript"),
        ({"numbers": bytes(95)}, "95 bytes instead of 24 numbers"),
    ],
)
def test_archives_that_lie(tmp_path, settings, message):
    assert_refused(archive(tmp_path / "a.pt", GOOD, **settings), message)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("repeated", ["a/data.pkl", "a/data/0", "a/other"])
def test_members_named_twice(tmp_path, repeated):
    archive(tmp_path / "a.pt", GOOD, members={"a/other": b"1"})
    with zipfile.ZipFile(tmp_path / "a.pt", "a") as file:
        file.writestr(repeated, b"2")
    assert_refused(tmp_path / "a.pt", f"names '{repeated}' twice")


@pytest.mark.parametrize("root", ["", "/", "../", "a/b/", "a\\b/", "./"])
def test_folders_inside_the_archive(tmp_path, root):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as file:
        file.writestr(f"{root}data.pkl", b"\x80\x02" + GOOD + b".")
        file.writestr(f"{root}data/0", NUMBERS.tobytes())
    assert_refused(tmp_path / "a.pt", "one plain folder is expected")


def edited(path: Path, member: str, field: int, change: bytes, *, local: bool) -> Path:
    """Overwrite bytes of a member's header, its own or the one in the directory at the end."""
    content = bytearray(archive(path, GOOD).read_bytes())
    signature = b"PK\x03\x04" if local else b"PK\x01\x02"
    begin = content.index(member.encode()) if local else content.rindex(member.encode())
    header = content.rindex(signature, 0, begin)
    content[header + field : header + field + len(change)] = change
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("member", "field", "change", "local", "message"),
    [
        ("a/data/0", 30, b"b", True, "header of its member 'a/data/0' is damaged"),
        ("a/data/0", 0, b"XX", True, "header of its member 'a/data/0' is damaged"),
        ("a/data/0", 8, b"\x08", True, "header of its member 'a/data/0' is damaged"),
        ("a/data/0", 6, b"\x01", True, "header of its member 'a/data/0' is damaged"),
        ("a/data/0", 8, b"\x01", False, "header of its member 'a/data/0' is damaged"),
        ("a/data/0", 28, b"\x10", True, "reaches into what follows"),
        ("a/data/0", 42, b"\xff\xff\xff\x7f", False, "header of its member"),
        ("a/data/0", 42, b"\x00\x00\x00\x00", False, "is damaged|reaches into"),
        ("a/data/0", 20, struct.pack("<II", 10**6, 10**6), False, "reaches into what follows"),
        ("a/data.pkl", 20, struct.pack("<II", 10**6, 10**6), False, "reaches into what follows"),
        ("a/data.pkl", 16, b"\0\0\0\0", False, "has the checksum"),
    ],
)
def test_headers_that_lie(tmp_path, member, field, change, local, message):
    path = edited(tmp_path / "a.pt", member, field, change, local=local)
    assert_refused(path, message)


# --- damage --------------------------------------------------------------------------------------

TENSORS = {
    "weight": np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32),
    "half": np.arange(5, dtype=np.float16),
    "steps": np.array(7, np.int64),
    "flags": np.array([True, False]),
}


def test_truncation_is_noticed_everywhere(tmp_path):
    path = tmp_path / "a.pt"
    write_torch_zip(path, TENSORS)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"a\.pt cannot be read as a PyTorch checkpoint"):
            read_torch_zip(path)


def same(loaded: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    return list(loaded) == list(expected) and all(
        (loaded[name].dtype, loaded[name].shape) == (array.dtype, array.shape)
        and loaded[name].tobytes() == array.tobytes()
        for name, array in expected.items()
    )


def test_no_flipped_bit_gives_wrong_tensors(tmp_path):
    """Samples of the bits of a small file and of a real one: refused, or exactly right."""
    path, real = tmp_path / "a.pt", REAL.read_bytes()
    write_torch_zip(path, TENSORS)
    small = path.read_bytes()
    rng = np.random.default_rng(0)
    cases = [(small, TENSORS, rng.permutation(len(small) * 8)[:1500])]
    cases += [(real, read_torch_zip(REAL), rng.integers(0, len(real) * 8, 100))]
    for content, expected, positions in cases:
        num_refused = 0
        for position in positions.tolist():
            flipped = bytearray(content)
            flipped[position // 8] ^= 1 << position % 8
            path.write_bytes(flipped)
            try:
                assert same(read_torch_zip(path), expected), f"bit {position}"
            except ValueError:
                num_refused += 1
        assert num_refused > len(positions) / 4


def test_random_changes_of_the_pickle_are_refused_or_harmless(tmp_path):
    """With a checksum that fits: nothing but ValueError comes out, and no view leaves the data."""
    path = tmp_path / "a.pt"
    whole = b"}(" + plain("a") + tensor() + plain("b") + tensor(6, (4, 4), (1, 4)) + b"u"
    rng = np.random.default_rng(0)
    num_refused = 0
    for _ in range(600):
        changed = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            begin, other, length = rng.integers(0, len(whole), 3).tolist()
            if length % 2:
                changed[begin : begin + 1] = bytes([other % 256])
            else:
                changed[begin : begin + length // 8] = whole[other : other + length // 8]
        archive(path, bytes(changed))
        try:
            loaded = read_torch_zip(path)
        except ValueError:
            num_refused += 1
            continue
        assert all(np.isin(array, NUMBERS).all() for array in loaded.values())
    assert 300 < num_refused < 600
