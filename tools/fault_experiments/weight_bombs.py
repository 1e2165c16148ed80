"""Weight files and configs made to fill the memory or take for ever: what reading them costs.

Each is of a few kilobytes to megabytes.
"""

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fault_experiments.apart import Outcome, fault_of, run_apart
from fault_experiments.experiment import Experiment, Trials

__all__ = ["BOMBS", "EXPERIMENTS", "read_apart"]

IMPORTS = """
from mg.weights.checkpoint_file import read_weights
from mg.weights.stored_config import stored_vae_fields
"""


def read_apart(path: Path) -> Outcome:
    """Return what it takes another process to read a weight file or a config."""
    name = "stored_vae_fields" if path.name == "config.json" else "read_weights"
    return run_apart(IMPORTS, f"{name}(path)", path)


# --- pieces of PyTorch's pickles -----------------------------------------------------------------


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _number(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)


def _tuple(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def _storage(num_elements: int, kind: str) -> bytes:
    name = b"ctorch\n" + kind.encode() + b"\n"
    return _tuple(_text("storage"), name, _text("0"), _text("cpu"), _number(num_elements)) + b"Q"


def _view(storage: bytes, num_elements: int) -> bytes:
    sizes = (_tuple(_number(num_elements)), _tuple(_number(1)))
    hooks = b"ccollections\nOrderedDict\n)R"
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n"
        + _tuple(storage, _number(0), *sizes, b"\x89", hooks)
        + b"R"
    )


def _archive(pickled: bytes, numbers: bytes = bytes(16)) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + pickled + b".")
        archive.writestr("archive/data/0", numbers)
    return content.getvalue()


def _nested(num_levels: int, beside: bytes) -> bytes:
    """Return a dict under `state_dict` in a dict, and so on, each with a tensor and more beside."""
    level = b"}(" + _text("x") + b"h\x00" + beside + _text("state_dict")
    return level * num_levels + b"}(" + _text("x") + b"h\x00u" + b"u" * num_levels


TENSOR = _view(_storage(4, "FloatStorage"), 4)


def chain() -> bytes:
    """3000 dicts inside one another, 40 names beside each."""
    beside = b"".join(_text(f"y{number}") + b"N" for number in range(40))
    return _archive(TENSOR + b"q\x00" + _nested(3000, beside))


def decoy() -> bytes:
    """100 dicts inside one another; beside each, 14 times, a dict of 190,000 names."""
    wide = b"}(" + b"".join(_text(f"k{number}") + b"N" for number in range(190_000)) + b"uq\x01"
    names = "ema_state_dict model gen_model ema_model model_ema ema module net network generator"
    names += " params params_ema weights vae"
    beside = b"".join(_text(name) + b"h\x01" for name in names.split())
    return _archive(TENSOR + b"q\x00" + wide + _nested(100, beside))


def shared(kind: str, num_bytes: int) -> bytes:
    """500 tensors that are views of one storage of a million numbers."""
    count = 1 << 20
    views = b"".join(_text(f"k{i}") + _view(b"h\x00", count) for i in range(500))
    return _archive(_storage(count, kind) + b"q\x00}(" + views + b"u", bytes(num_bytes * count))


def many_members() -> bytes:
    """A zip directory that names 300,000 members."""
    entry = struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\x01\x02", *[0] * 15, 0)
    names = (f"a{number:07}" for number in range(300_000))
    entries = b"".join(
        entry[:28] + struct.pack("<H", 8) + entry[30:] + name.encode() for name in names
    )
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, len(entries), 4, 0)
    return b"PK\x03\x04" + entries + end


# --- other formats -------------------------------------------------------------------------------


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def many_axes(size: int = 2**63) -> bytes:
    """A MindSpore checkpoint with a tensor of 40,000 axes."""
    shape = _field(1, _varint(size) * 40_000)
    tensor = shape + _field(2, b"Float32") + _field(3, bytes(16))
    return _field(1, _field(1, b"a") + _field(2, tensor))


def many_fields() -> bytes:
    """A MindSpore checkpoint with a million empty contents of one tensor."""
    tensor = _field(1, b"\x01") + _field(2, b"Float32") + _field(3, b"") * 1_000_000
    return _field(1, _field(1, b"a") + _field(2, tensor))


def many_tensors() -> bytes:
    """A MindSpore checkpoint of a million empty tensors."""
    tensor = _field(2, _field(1, b"\0") + _field(2, b"Int8") + _field(3, b""))
    return b"".join(_field(1, _field(1, f"{n:07}".encode()) + tensor) for n in range(1_000_000))


def large_header() -> bytes:
    """A safetensors file with a header of 60 MB."""
    entry = '"%07d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    text = "{" + ",".join(entry % number for number in range(1_000_000)) + "}"
    return struct.pack("<Q", len(text)) + text.encode()


class Bomb(NamedTuple):
    """A file made to do harm: its name, its content, and how the refusal begins ("" if none)."""

    name: str
    content: Callable[[], bytes]
    refusal: str


BOMBS = {
    "chain": Bomb("chain.pt", chain, "more than 8 dicts inside one another"),
    "decoy": Bomb("decoy.pt", decoy, "items in dicts inside one another"),
    "lists": Bomb(
        "lists.pt", lambda: _archive(b"]" * 400_000 + b"a" * 399_999), "inside one another"
    ),
    "shared_bfloat16": Bomb("a.pt", lambda: shared("BFloat16Storage", 2), ""),
    "shared_bool": Bomb("a.pt", lambda: shared("BoolStorage", 1), ""),
    "shared_half": Bomb("a.pt", lambda: shared("HalfStorage", 2), ""),
    "many_members": Bomb("a.pt", many_members, "its zip directory"),
    "many_axes": Bomb("dims_bomb.ckpt", many_axes, "the size 9223372036854775808"),
    "many_axes_of_1": Bomb("dims_bomb.ckpt", lambda: many_axes(1), "more than 32 axes"),
    "many_fields": Bomb("a.ckpt", many_fields, "the field 3, unknown or twice"),
    "many_tensors": Bomb("a.ckpt", many_tensors, "more than 50000 tensors"),
    "large_header": Bomb("a.safetensors", large_header, "states a header of"),
    "deep_index": Bomb(
        "deep_index.safetensors.index.json", lambda: b"[" * 3000, "nested too deeply"
    ),
    "deep_config": Bomb(
        "config.json", lambda: b'{"a":' * 900 + b"1" + b"}" * 900, "nested too deeply"
    ),
    "large_config": Bomb(
        "config.json", lambda: b"[" + b"{}," * 2_000_000 + b"0]", "the most that is read here"
    ),
    "wide_config": Bomb(
        "config.json", lambda: b"[" + b"{}," * 340_000 + b"0]", "a JSON object is expected"
    ),
}


def weight_bombs(folder: Path, num_trials: int | None) -> Trials:
    """Read each file that is made to do harm."""
    for name in list(BOMBS)[:num_trials]:
        bomb = BOMBS[name]
        path = folder / name / bomb.name
        path.parent.mkdir()
        path.write_bytes(bomb.content())
        outcome = read_apart(path)
        path.unlink()
        yield fault_of(name, bomb.refusal, outcome)


EXPERIMENTS = {
    "weight_bombs": Experiment(
        "A weight file or config made to fill the memory (dicts inside dicts, 500 views of one "
        "storage, 40,000 axes, a million tensors, deep JSON): refused, or read, within 1 s of "
        "processor time and a peak of 200 MB for the whole process",
        None,
        weight_bombs,
    ),
}
