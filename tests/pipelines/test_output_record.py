"""What outputs were made from: nothing of something else is passed off as finished."""

import json
import os

import pytest

from mg.pipelines.output_paths import output_paths
from mg.pipelines.output_record import (
    differing,
    input_state,
    is_finished,
    mark_begun,
    mark_finished,
    open_output_folder,
    read_record,
)

MADE_FROM = {"input": {"num_bytes": 3, "mtime_ns": 4}, "weights_hash": "a", "settings": {"n": 1}}


@pytest.fixture
def output(tmp_path):
    """Return a finished output."""
    path = tmp_path / "a.mp4"
    mark_begun(path, MADE_FROM)
    path.write_bytes(b"video")
    mark_finished(path, MADE_FROM, frames={"psnr": [1.0]})
    return path


def test_an_output_is_finished_if_it_was_made_from_the_same(output):
    assert is_finished(output, MADE_FROM)
    assert read_record(output) == {
        **MADE_FROM,
        "output": {"name": "a.mp4", "num_bytes": 5},
        "frames": {"psnr": [1.0]},
    }


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"weights_hash": "b"}, "weights_hash"),
        ({"input": {"num_bytes": 3, "mtime_ns": 5}}, r"input\.mtime_ns"),
        ({"settings": {"n": 1, "m": 2}}, r"settings\.m"),
        ({"settings": {}}, r"settings\.n"),
        ({"seed": 1}, "seed"),
    ],
)
def test_an_output_made_otherwise_is_refused_and_what_differs_is_named(output, change, named):
    with pytest.raises(ValueError, match=rf"made with other inputs or settings \({named} differ\)"):
        is_finished(output, {**MADE_FROM, **change})


def test_an_output_that_was_not_finished_may_be_written(output):
    mark_begun(output, MADE_FROM)  # and then the process was killed
    assert not is_finished(output, MADE_FROM)
    with pytest.raises(ValueError, match="weights_hash"):
        is_finished(output, {**MADE_FROM, "weights_hash": "b"})
    mark_finished(output, MADE_FROM)
    output.unlink()
    assert not is_finished(output, MADE_FROM)
    assert not is_finished(output, {**MADE_FROM, "weights_hash": "b"})
    output.with_suffix(".json").write_text(json.dumps({"mine": "a table of something"}))
    with pytest.raises(ValueError, match="made with other inputs or settings"):
        is_finished(output, MADE_FROM)


def test_a_record_of_another_output_of_the_same_name_is_not_replaced(output):
    with pytest.raises(ValueError, match=r"a\.json exists, .* \(name differ\)"):
        is_finished(output.with_suffix(".png"), MADE_FROM)
    with pytest.raises(ValueError, match=r"\(weights_hash differ\)"):
        is_finished(output.with_suffix(".png"), {**MADE_FROM, "weights_hash": "b"})


def test_a_record_of_an_older_version_counts(output):
    output.with_suffix(".json").write_text(json.dumps(MADE_FROM))
    assert is_finished(output, MADE_FROM)


def test_an_output_without_record_or_with_a_damaged_one_is_refused(output):
    output.write_bytes(b"another")
    with pytest.raises(ValueError, match="has changed since it was written"):
        is_finished(output, MADE_FROM)
    output.with_suffix(".json").write_text("[" * 9999)
    with pytest.raises(ValueError, match="nested too deeply"):
        is_finished(output, MADE_FROM)
    output.with_suffix(".json").unlink()
    with pytest.raises(FileExistsError, match=r"without a\.json that would tell"):
        is_finished(output, MADE_FROM)
    output.unlink()
    assert not is_finished(output, MADE_FROM)


def test_what_is_no_record_differs_in_everything():
    assert differing(None, MADE_FROM) == ["input", "weights_hash", "settings"]
    assert differing([1], {"a": {}}) == ["a"]
    assert differing({"a": 3}, {"a": {"b": 3}}) == ["a"]


def test_the_state_of_an_input_is_its_size_and_time(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    before = input_state(path)
    assert before == {"num_bytes": 3, "mtime_ns": path.stat().st_mtime_ns}
    path.write_bytes(b"abcd")
    assert input_state(path)["num_bytes"] == 4


def test_a_folder_of_other_settings_is_refused(tmp_path):
    settings = {"ckpt_path": "a", "input": "x", "overwrite": False, "size": [1, 2]}
    (tmp_path / "decode.yaml").write_text("ckpt_path: a\ninput: y\nsize: [1, 2]\nolder: 3\n")

    def open_with(overwrite=False, **changes):
        open_output_folder(tmp_path, "decode.yaml", {**settings, **changes}, overwrite=overwrite)

    open_with(ckpt_path="b")  # nothing came of the run before
    (tmp_path / "a.mp4").write_bytes(b"")
    open_with()
    open_with(input="z")
    open_with(added_later=1)
    with pytest.raises(ValueError, match=r"decode\.yaml exists, .* \(ckpt_path, size differ\)"):
        open_with(ckpt_path="b", size=[1, 3])
    open_with(overwrite=True, ckpt_path="b")
    (tmp_path / "decode.yaml").write_text("- no settings")
    with pytest.raises(ValueError, match="made with other inputs or settings"):
        open_with()
    open_output_folder(tmp_path / "new" / "one", "decode.yaml", settings, overwrite=False)
    assert not (tmp_path / "new").exists()
    with pytest.raises(NotADirectoryError, match=r"a\.mp4 is a file, not a folder"):
        open_output_folder(tmp_path / "a.mp4" / "b", "decode.yaml", settings, overwrite=True)


def test_names_that_are_no_utf8_are_kept(tmp_path):
    output, made_from = tmp_path / "a.mp4", {"source": os.fsdecode(b"caf\xe9 \xc3\xa9")}
    output.touch()
    mark_finished(output, made_from)
    assert is_finished(output, made_from)
    assert "é" in output.with_suffix(".json").read_text(encoding="utf-8")


def test_what_a_killed_run_left_below_the_folder_is_removed(tmp_path):
    left = tmp_path / "sub" / ".clip.k3_x9abc.tmp.safetensors"
    left.parent.mkdir()
    left.touch()
    os.utime(left, (1e9, 1e9))
    (tmp_path / "sub" / "clip.safetensors").touch()
    open_output_folder(tmp_path, "encode.yaml", {}, overwrite=False)
    assert [path.name for path in left.parent.iterdir()] == ["clip.safetensors"]


def test_names_that_cannot_be_written_are_refused_before_any_work(tmp_path):
    (tmp_path / "a.mp4").mkdir()
    (tmp_path / "sub").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.mp4 is a folder"):
        output_paths(["a.mov"], tmp_path, ".mp4")
    with pytest.raises(ValueError, match="sub is a file"):
        output_paths(["sub/a.mov"], tmp_path, ".mp4")
