"""What is not a plain file, or not the file that was meant, is called what it is."""

import os

import pytest

from mg.input_files import check_input_file
from mg.json_file import read_json


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "nowhere").symlink_to(tmp_path / "none")
    (tmp_path / "plain").write_text("{}")
    (tmp_path / "linked").symlink_to(tmp_path / "plain")
    for name, kind in (("pipe", "a named pipe"), ("device", "a device"), (".", "a folder")):
        for check in (check_input_file, read_json):
            with pytest.raises(ValueError, match=f"is {kind}; a regular file is expected"):
                check(tmp_path / name)
    for name in ("nowhere", "none", "plain/none"):
        with pytest.raises(FileNotFoundError, match="does not exist"):
            read_json(tmp_path / name)
    assert read_json(tmp_path / "linked") == {}
