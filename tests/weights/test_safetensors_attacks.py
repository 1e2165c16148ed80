"""safetensors files made to do harm, or damaged: each is refused, none gives wrong tensors."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from mg.weights.safetensors_file import list_safetensors, read_safetensors, write_safetensors

KIB = bytes(1024)
REFUSED = r"not a whole safetensors file|damaged header"


def entry(dtype: object, shape: object, offsets: object, **more: object) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def pack(header: object, data: bytes = KIB, length: int | None = None) -> bytes:
    """A file of this header (as JSON, or as it is) that states this length of it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


WHOLE = {"a": entry("F32", [256], [0, 1024])}
ATTACKS = {
    # the header's length
    "length_zero": pack(WHOLE, length=0),
    "length_short": pack(WHOLE, length=20),
    "length_long": pack(WHOLE, length=500),
    "length_beyond": pack(WHOLE, length=10**6),
    "length_huge": pack(WHOLE, length=2**63),
    "length_all_ones": pack(WHOLE, length=2**64 - 1),
    "length_over_limit": pack(WHOLE, length=100_000_001),
    # the header's text
    "no_json": pack(b"{" * 40),
    "list": pack([WHOLE]),
    "null": pack(b"null"),
    "not_utf8": pack(b'{"\xff\xfe":1}'),
    "byte_order_mark": pack(b"\xef\xbb\xbf" + json.dumps(WHOLE).encode()),
    "deep_nesting": pack(b'{"a":' * 20_000 + b"1" + b"}" * 20_000),
    "not_a_number": pack(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,1024]}}'),
    "after_the_json": pack(json.dumps(WHOLE).encode() + b"{}"),
    # repeated keys
    "tensor_twice": pack(
        b'{"a":{"dtype":"F32","shape":[256],"data_offsets":[0,1024]},'
        b'"a":{"dtype":"I32","shape":[256],"data_offsets":[0,1024]}}'
    ),
    "dtype_twice": pack(
        b'{"a":{"dtype":"I32","dtype":"F32","shape":[256],"data_offsets":[0,1024]}}'
    ),
    "offsets_twice": pack(
        b'{"a":{"dtype":"F32","shape":[256],"data_offsets":[0,8],"data_offsets":[0,1024]}}'
    ),
    "escaped_twice": pack(
        b'{"a":{"dtype":"F32","shape":[128],"data_offsets":[0,512]},'
        b'"\\u0061":{"dtype":"F32","shape":[128],"data_offsets":[512,1024]}}'
    ),
    # types
    "dtype_unknown": pack({"a": entry("F31", [256], [0, 1024])}),
    "dtype_number": pack({"a": entry(3, [256], [0, 1024])}),
    "dtype_too_large": pack({"a": entry("F64", [256], [0, 1024])}),
    "dtype_too_small": pack({"a": entry("F16", [256], [0, 1024])}),
    "dtype_missing": pack({"a": {"shape": [256], "data_offsets": [0, 1024]}}),
    # shapes
    "shape_too_large": pack({"a": entry("F32", [257], [0, 1024])}),
    "shape_product_wraps": pack({"a": entry("F32", [2**32, 2**32, 256], [0, 1024])}),
    "shape_bytes_wrap": pack({"a": entry("F32", [2**62 + 256], [0, 1024])}),
    "shape_beyond_64_bits": pack({"a": entry("F32", [2**64 + 256], [0, 1024])}),
    "shape_negative": pack({"a": entry("F32", [-16, -16], [0, 1024])}),
    "shape_fraction": pack({"a": entry("F32", [256.0], [0, 1024])}),
    "shape_text": pack({"a": entry("F32", ["256"], [0, 1024])}),
    "shape_boolean": pack({"a": entry("F32", [True, 256], [0, 1024])}),
    "shape_nested": pack({"a": entry("F32", [[256]], [0, 1024])}),
    "shape_missing": pack({"a": {"dtype": "F32", "data_offsets": [0, 1024]}}),
    # offsets
    "overlap": pack({"a": entry("F32", [192], [0, 768]), "b": entry("F32", [192], [256, 1024])}),
    "the_same_twice": pack({**WHOLE, "b": entry("F32", [256], [0, 1024])}),
    "hole": pack({"a": entry("F32", [64], [0, 256]), "b": entry("F32", [64], [768, 1024])}),
    "hole_at_the_start": pack({"a": entry("F32", [192], [256, 1024])}),
    "hole_at_the_end": pack({"a": entry("F32", [192], [0, 768])}),
    "beyond_the_end": pack({"a": entry("F32", [512], [0, 2048])}),
    "reversed": pack({"a": entry("F32", [256], [1024, 0])}),
    "negative": pack({"a": entry("F32", [256], [-1024, 0])}),
    "wraps": pack({"a": entry("F32", [256], [2**64 - 512, 512])}),
    "three_offsets": pack({"a": entry("F32", [256], [0, 512, 1024])}),
    "offsets_missing": pack({"a": {"dtype": "F32", "shape": [256]}}),
    # other
    "metadata_number": pack({"__metadata__": {"a": 3}, **WHOLE}),
    "metadata_tensor": pack({"__metadata__": entry("F32", [256], [0, 1024])}),
    "tensor_null": pack({"a": None}),
    "metadata_null": pack({"__metadata__": None, **WHOLE}),
    "dtype_object": pack({"a": entry({"F32": None}, [256], [0, 1024])}),
    "tensor_list": pack({"a": ["F32", [256], [0, 1024]]}),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_headers_that_lie(tmp_path, attack):
    path = tmp_path / "a.safetensors"
    path.write_bytes(ATTACKS[attack])
    for read in (read_safetensors, list_safetensors):
        with pytest.raises(ValueError, match=REFUSED) as told:
            read(path)
        assert str(path) in str(told.value)


def test_a_file_of_the_same_making_is_read(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(pack(WHOLE))
    assert read_safetensors(tmp_path / "a.safetensors")["a"].shape == (256,)


@pytest.mark.parametrize("length", [100_000_000, 100_000_001, 2**30])
def test_large_headers_are_refused(tmp_path, length):
    path = tmp_path / "a.safetensors"
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", length) + b'{"a":')
        file.truncate(8 + length)  # zeros, which take no place on the disk
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        read_safetensors(path)


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2"])
def test_float8_is_listed_but_not_read(tmp_path, kind):
    path = tmp_path / "a.safetensors"
    path.write_bytes(pack({"a": entry(kind, [1024], [0, 1024])}))
    assert list_safetensors(path) == {"a": (kind, (1024,))}
    with pytest.raises(ValueError, match=f"type {kind}, which is not supported; convert the file"):
        read_safetensors(path)


def write_example(path: Path) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    tensors = {name: rng.standard_normal((2, 3)).astype(np.float32) for name in ("w", "v", "u")}
    write_safetensors(path, tensors, overwrite=True)
    return tensors


def test_a_flipped_bit_in_the_header_is_refused_or_shows(tmp_path):
    """The format has no checksum: a bit may change a name or a type, but never values in secret."""
    path = tmp_path / "a.safetensors"
    tensors = write_example(path)
    content = path.read_bytes()
    header_bits = 8 * (8 + int.from_bytes(content[:8], "little"))
    num_refused = 0
    for position in range(header_bits):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        try:
            loaded = read_safetensors(path)
        except ValueError:
            num_refused += 1
            continue
        for name in loaded.keys() & tensors.keys():
            if (loaded[name].dtype, loaded[name].shape) == (np.float32, (2, 3)):
                np.testing.assert_array_equal(loaded[name], tensors[name], f"bit {position}")
    assert num_refused > 0.7 * header_bits
