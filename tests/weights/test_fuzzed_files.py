"""Random changes of weight files and their configs: a documented error in one line, or tensors."""

import io
import json
import pickle
import zipfile
from argparse import Namespace
from pathlib import PurePosixPath

import numpy as np
import pytest

from mg.models.tae.config import TAEConfig
from mg.weights.checkpoint_file import read_weights, write_weights
from mg.weights.inspection import inspect_checkpoint
from mg.weights.own_tensors import read_own_tensors
from mg.weights.tae_layers import tae_shapes
from tests.tae_files import read_tae

TENSORS = {
    "module.encoder.conv_in.weight": np.arange(72, dtype=np.float32).reshape(2, 4, 3, 3),
    "module.half": np.ones(3, np.float16),
    "step": np.array(7),
}
NUM_CASES = 150
NUM_CONFIGS = 60
# What changes of single bytes seldom come to: instructions, names, lengths and numbers.
PIECES = (
    *(b"\xff" * 9, b"\x80" * 5, b"h\x00", b"}(", b"u", b"b", b"\x81", b"R", b"(", b"t", b"]"),
    *(b"cargparse\nNamespace\n", b"cpathlib\nPosixPath\n", b"\x8a\x20" + b"\xff" * 32),
    *(b"[[[[", b"1e999", b"-1", b"9" * 30, b"null", b'{"a":', b'"', b"\x00"),
)


def mutated(rng, content):
    """Return bytes with one to four changes: bytes, repeats, gaps, insertions, an earlier end."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        place, other, length = rng.integers(0, max(len(changed), 1), 3).tolist()
        match rng.integers(6):
            case 0:
                changed[place : place + 1] = bytes([rng.integers(256)])
            case 1:
                changed[place:place] = changed[other : other + length % 40]
            case 2:
                del changed[place : place + length % 20]
            case 3 | 4:
                changed[place:place] = PIECES[rng.integers(len(PIECES))]
            case 5 if length % 4 == 0:
                del changed[place:]
    return bytes(changed)


def pickled(rng):
    """Return a PyTorch archive whose pickle is changed and has a checksum that fits."""
    settings = {"args": Namespace(a=1), "path": PurePosixPath("/x"), "best": np.float64(3)}
    tree = pickle.dumps({"settings": settings, "list": [1, 2, {3: 4}]}, protocol=2)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a/data.pkl", mutated(rng, tree))
        archive.writestr("a/data/0", bytes(400))
    return content.getvalue()


def header(rng, content):
    """Return a safetensors file whose header is changed and has a length that fits."""
    end = 8 + int.from_bytes(content[:8], "little")
    text = mutated(rng, content[8:end])
    return len(text).to_bytes(8, "little") + text + content[end:]


CHANGES = {
    "a.safetensors": lambda rng, content: header(rng, content),
    "a.ckpt": lambda rng, content: mutated(rng, content[:-17]),  # without its checksum
    "a.pt": lambda rng, content: mutated(rng, content),
    "b.pt": lambda rng, content: pickled(rng),
    "a.npz": lambda rng, content: mutated(rng, content),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_files(tmp_path, name):
    path, rng = tmp_path / name, np.random.default_rng(0)
    if name == "a.npz":
        np.savez(path, **TENSORS)
    else:
        write_weights(path, TENSORS)
    content, num_refused = path.read_bytes(), 0
    for _ in range(NUM_CASES):
        path.write_bytes(CHANGES[name](rng, content))
        for read in (read_own_tensors, read_weights, lambda path: str(inspect_checkpoint(path))):
            try:
                read(path)
            except ValueError as error:
                num_refused += 1
                assert str(path) in str(error)
                assert len(str(error)) < 2000 and "\n" not in str(error)
    assert NUM_CASES < num_refused <= 3 * NUM_CASES


VALUES = (
    *(None, True, -1, 0, 10**9, 2**70, 1.5, "x", "", [], [1], ["a"], {}, {"a": 1}, [[1]]),
    *([10**9] * 4, [None] * 4, -(10**30), [0, 1], "published"),
)


def test_changed_configs(tmp_path):
    """Beside a TAE: refused, or one that the network's config can be made of."""
    tiny = {"ch": 4, "ch_mult": [1, 1], "num_res_blocks": 1, "z_channels": 2, "norm_groups": 2}
    tiny |= {"temporal_downsample_level": [0], "temporal_upsample_level": [1]}
    config = TAEConfig.from_mapping(tiny).to_dict()
    shapes = tae_shapes(config)
    write_weights(tmp_path / "a.ckpt", {n: np.zeros(s, np.float32) for n, s in shapes.items()})
    rng, num_refused = np.random.default_rng(0), 0
    for _ in range(NUM_CONFIGS):
        changed = dict(config)
        for key in rng.choice(list(config), rng.integers(1, 3)):
            changed[key] = VALUES[rng.integers(len(VALUES))]
        (tmp_path / "a.json").write_text(json.dumps(changed))
        try:
            TAEConfig.from_mapping(read_tae(tmp_path / "a.ckpt")[1])
        except ValueError:
            num_refused += 1
    assert NUM_CONFIGS / 2 < num_refused < NUM_CONFIGS
