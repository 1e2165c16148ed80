"""Files made to fill the memory are refused, or read, in little of it; waiting is for nobody."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fault_experiments.apart import MAX_MEGABYTES
from fault_experiments.weight_bombs import BOMBS, read_apart
from mg.weights.checkpoint_file import list_tensors, read_weights
from mg.weights.inspection import inspect_checkpoint
from mg.weights.safetensors_file import read_safetensors
from mg.weights.torch_zip import read_torch_zip


def written(folder: Path, name: str) -> Path:
    path = folder / BOMBS[name].name
    path.write_bytes(BOMBS[name].content())
    return path


# The peaks of all of them are measured by `python tools/fault_inject.py --only weight_bombs`.
@pytest.mark.parametrize("name", ["chain", "shared_bfloat16"])
def test_the_peak_of_memory_is_small(tmp_path, name):
    reading = read_apart(written(tmp_path, name))
    assert BOMBS[name].refusal in reading.refusal
    assert 20 < reading.peak_megabytes < MAX_MEGABYTES


@pytest.mark.parametrize(
    "name",
    ["chain", "decoy", "many_axes", "many_axes_of_1", "many_fields", "many_members", "deep_index"],
)
def test_small_files_of_large_claims_are_refused(tmp_path, name):
    path = written(tmp_path, name)
    with pytest.raises(ValueError, match=BOMBS[name].refusal) as caught:
        list_tensors(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "copied"), [("bfloat16", True), ("bool", True), ("half", False)])
def test_views_of_a_storage_share_one_copy(tmp_path, kind, copied):
    arrays = list(read_torch_zip(written(tmp_path, f"shared_{kind}")).values())
    assert len(arrays) == 500 and all(array.shape == (1 << 20,) for array in arrays)
    assert all(np.shares_memory(array, arrays[0]) for array in arrays[1:])
    assert not arrays[0].flags.writeable
    assert arrays[0].dtype == {"bfloat16": "f4", "bool": "?", "half": "f2"}[kind]


WAITING = {"FIFO": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero")}


@pytest.mark.parametrize("kind", WAITING)
@pytest.mark.parametrize(
    "name", ["a.safetensors", "a.ckpt", "a.pt", "a.npz", "m.safetensors.index.json", "a"]
)
def test_what_is_no_file_is_not_opened(tmp_path, kind, name):
    WAITING[kind](tmp_path / name)
    places = [tmp_path / name] + ([tmp_path] if name != "a" else [])  # alone in its folder too
    for place in places:
        for read in (read_weights, list_tensors, inspect_checkpoint):
            with pytest.raises(ValueError, match=r"is a (named pipe|device); a regular file"):
                read(place)
    if name.endswith((".safetensors", ".json")):
        with pytest.raises(ValueError, match=r"is a (named pipe|device); a regular file"):
            read_safetensors(tmp_path / name)


PLACEHOLDERS = {
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n": "a Git LFS pointer",
    b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html>": "a web page",
    b'<script>{"error": "not found"}</script>': "a web page",  # looks like a safetensors header
}


@pytest.mark.parametrize("content", PLACEHOLDERS)
@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt", "a.pt", "a.bin", "a.npz", "a"])
def test_what_is_saved_in_place_of_a_file(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is {PLACEHOLDERS[content]}, not the file"):
        read_weights(tmp_path / name)


def test_a_header_whose_length_begins_like_a_web_page_is_read(tmp_path):
    """Its first byte is that of `<`: the length 60 of a small header."""
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(60)
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert (tmp_path / "a.safetensors").read_bytes()[:1] == b"<"
    assert read_weights(tmp_path)["a"].tolist() == [0]


def test_the_tools_answer_in_one_line(tmp_path):
    os.mkfifo(tmp_path / "a.safetensors")
    tool = Path(__file__).parents[2] / "tools" / "inspect_checkpoint.py"
    finished = subprocess.run([sys.executable, tool, tmp_path], capture_output=True, text=True)
    assert finished.returncode == 1
    assert finished.stderr == (
        f"error: {tmp_path / 'a.safetensors'} is a named pipe; a regular file is expected here\n"
    )
