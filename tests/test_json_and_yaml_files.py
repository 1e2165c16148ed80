"""Tests of `mg.json_file` and `mg.yaml_file`: what others wrote is read within bounds."""

import os
import random
from pathlib import Path

import pytest
import yaml

from mg.json_file import parse_json, read_json, read_json_object
from mg.yaml_file import parse_yaml, read_yaml

HOSTILE = Path(__file__).parent / "fixtures" / "hostile"
CONFIGS = sorted((Path(__file__).parents[1] / "configs").rglob("*.yaml"))

JSON_FAULTS = {
    "deep list": ("[" * 100_000, "nested too deeply"),
    "too deep by one": ("[" * 65 + "]" * 65, "nested too deeply"),
    "deep object": ('{"a":' * 65 + "1" + "}" * 65, "nested too deeply"),
    "repeated key": ('{"x": {"a": 1, "a": 2}}', "'a' twice"),
    "not a number": ('{"a": NaN}', "NaN is not finite"),
    "infinity by name": ("[-Infinity]", "-Infinity is not finite"),
    "infinity by size": ("[1e999]", "1e999 is not finite"),
    "many digits": ("9" * 5000, "5000 digits"),
    "truncated": ('{"a": ', "Expecting value"),
    "bytes": (b"\xff\xfe{}", "not UTF-8"),
}

YAML_FAULTS = {
    "deep list": ("[" * 100_000, "nested too deeply"),
    "deep block": ("- " * 33 + "a", "nested too deeply"),
    "many values": ("[" + "a," * 10_000 + "]", "more than 10000 values"),
    "merges": (
        "a: &a {x: 1}\nb: &b {<<: [" + "*a," * 99 + "]}\nc: {<<: [" + "*b," * 99 + "]}",
        "more than 10000 values",
    ),
    "anchor in itself": ("&a [*a]", "holds itself"),
    "unknown alias": ("*a", "undefined alias"),
    "repeated key": ("x:\n  a: 1\n  a: 2", r"'a' twice \(line 3\)"),
    "infinity": ("a: .inf", "not finite"),
    "not a number": ("a: .nan", "not finite"),
    "large number": (f"a: {2**64 + 1}", r"beyond 2\^64"),
    "many digits": ("a: " + "9" * 5000, "5000 digits"),
    "sixty by sixty": ("a: 1" + ":59" * 1000, "3001 digits"),
    "empty int": ('a: !!int ""', "is not YAML that can be read"),
    "odd bool": ("a: !!bool maybe", "is not YAML that can be read"),
    "odd time": ("a: !!timestamp now", "is not YAML that can be read"),
    "python object": ("a: !!python/name:os.system x", "could not determine a constructor"),
    "bytes": (b"\xff\xfea", "not UTF-8"),
}


def assert_one_short_line(message: str) -> None:
    assert "\n" not in message and len(message) < 500


@pytest.mark.parametrize("name", JSON_FAULTS)
def test_json_that_nobody_should_send_is_refused_in_one_line(name):
    text, reason = JSON_FAULTS[name]
    with pytest.raises(ValueError, match=reason) as refusal:
        parse_json(text, "file.json")
    assert_one_short_line(str(refusal.value))


@pytest.mark.parametrize("name", YAML_FAULTS)
def test_yaml_that_nobody_should_send_is_refused_in_one_line(name):
    text, reason = YAML_FAULTS[name]
    with pytest.raises(ValueError, match=reason) as refusal:
        parse_yaml(text, "file.yaml")
    assert_one_short_line(str(refusal.value))


def test_the_deep_index_and_the_yaml_bomb_are_refused():
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(HOSTILE / "deep_index.safetensors.index.json")
    with pytest.raises(ValueError, match="more than 10000 values, counting what aliases repeat"):
        read_yaml(HOSTILE / "aliases.yaml")


def test_a_json_text_means_what_it_says():
    text = '\ufeff{"a": [1, -2.5, true, null, "\\u00e9"], "seed": 18446744073709551615}'
    expected = {"a": [1, -2.5, True, None, "é"], "seed": 2**64 - 1}
    assert parse_json(text.encode(), "x") == expected
    assert parse_json("[" * 64 + "]" * 64, "x") is not None


def test_yaml_reads_what_the_safe_loader_reads():
    text = "base: &b {lr: 1.0e-4, n: 3}\nrun: {<<: *b, n: 4}\nlist: [*b, yes, ~, 2001-02-03]"
    assert parse_yaml(text, "x") == yaml.safe_load(text)
    for config in CONFIGS:
        assert read_yaml(config) == yaml.safe_load(config.read_text(encoding="utf-8"))
    assert len(CONFIGS) > 5


@pytest.mark.parametrize("read", [read_json, read_yaml])
def test_what_is_no_small_regular_file_is_refused_without_waiting(read, tmp_path):
    pipe, large = tmp_path / "pipe", tmp_path / "large"
    os.mkfifo(pipe)
    with open(large, "wb") as file:
        file.truncate(1 << 40)  # a hole: takes no space
    for path, reason in {
        tmp_path: "a folder",
        pipe: "a named pipe",
        Path("/dev/zero"): "a device",
        large: "more than",
    }.items():
        with pytest.raises(ValueError, match=reason):
            read(path)
    with pytest.raises(FileNotFoundError, match=r"missing\.x does not exist"):
        read(tmp_path / "missing.x")


def test_a_json_object_is_asked_for(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[1]")
    with pytest.raises(ValueError, match=r"holds no JSON object"):
        read_json_object(path)
    path.write_text('{"a": 1}')
    assert read_json_object(path) == {"a": 1}


@pytest.mark.parametrize("parse", [parse_json, parse_yaml])
def test_damaged_texts_give_values_or_one_line(parse):
    text = b'{"a": [1, 2.5e3, "b\\n"], "c": {"d": null, "e": true}, "f": "!!int &x *x"}'
    generator, num_refused = random.Random(0), 0
    for _ in range(400):
        damaged = bytearray(text)
        for _ in range(generator.randint(1, 4)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        try:
            parse(bytes(damaged), "x")
        except ValueError as error:
            num_refused += 1
            assert_one_short_line(str(error))
    assert num_refused > 100
