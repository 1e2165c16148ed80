"""JSON from outside is read within bounds; what is no plain file is called what it is."""

import json
import os
import re
import sys

import pytest

from mg.input_files import MAX_JSON_DEPTH, check_input_file, parse_json, read_json


@pytest.mark.parametrize(
    "value", [{"a": [1, 2.5, None, True, "x"]}, [], 3, {"deep": json.loads("[" * 30 + "]" * 30)}]
)
def test_json_is_read_as_it_is(tmp_path, value):
    (tmp_path / "a.json").write_text(json.dumps(value))
    assert read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ('{"a": 1, "b": 2, "a": 3}', "is not JSON: it has 'a' twice"),
        ('{"a": NaN}', "the number NaN, which is not finite"),
        ('{"a": [-Infinity]}', "the number -Infinity, which is not finite"),
        ('{"a": 1e999}', "the number 1e999, which is not finite"),
        ("9" * 5000, "is not JSON"),
        ("[" * 100_000, "more than 32 lists and objects inside one another"),
        ("[" * 33 + "]" * 33, "more than 32 lists and objects inside one another"),
        ('{"a":' * 500 + "1" + "}" * 500, "more than 32 lists and objects inside one another"),
    ],
)
def test_other_texts_are_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_text(text)
    for read in (lambda: read_json(path), lambda: parse_json(text, path)):
        with pytest.raises(ValueError, match=re.escape(message)) as caught:
            read()
        assert str(path) in str(caught.value)
        assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


def test_brackets_in_texts_do_not_count():
    value = {"[" * 99: '{"' * 99, "\\": ["\\" * 3, "[" * 40, '"' * 5]}
    assert parse_json(json.dumps(value), "here") == value


def test_depth_is_found_whatever_the_parser_may():
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)  # as other packages do
    try:
        with pytest.raises(ValueError, match="inside one another"):
            parse_json("[" * 10**6, "here")
    finally:
        sys.setrecursionlimit(before)


def test_the_deepest_that_is_read():
    depth = MAX_JSON_DEPTH
    assert parse_json("[" * depth + "]" * depth, "here") == json.loads("[" * depth + "]" * depth)


def test_bytes_that_are_no_text_and_too_many(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ValueError, match=r"a\.json is not JSON: 'utf-8' codec"):
        read_json(tmp_path / "a.json")
    with open(tmp_path / "large.json", "wb") as file:
        file.truncate(2**40)  # takes no place on the disk
    with pytest.raises(ValueError, match="more than 4194304 bytes"):
        read_json(tmp_path / "large.json")


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "nowhere").symlink_to(tmp_path / "none")
    (tmp_path / "plain").write_text("{}")
    (tmp_path / "linked").symlink_to(tmp_path / "plain")
    for name, kind in (("pipe", "a named pipe"), ("device", "a device"), (".", "a folder")):
        for check in (check_input_file, read_json):
            with pytest.raises(ValueError, match=f"is {kind}; a plain file is expected"):
                check(tmp_path / name)
    for name in ("nowhere", "none", "plain/none"):
        with pytest.raises(FileNotFoundError, match="does not exist"):
            read_json(tmp_path / name)
    assert read_json(tmp_path / "linked") == {}
