"""The store of checkpoints: complete or not there, the right ones kept, damage reported."""

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mg.training.run import checkpoint_manifest, checkpoint_store
from mg.training.run.checkpoint_store import CheckpointStore
from mg.weights.safetensors_file import read_safetensors_metadata

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "checkpoints", keep=2)


def save(store, step, *, value=None, score=None):
    value = float(step if value is None else value)
    return store.save(
        step,
        tensors={
            "tae": {"kernel": np.full((2, 3), value, np.float32)},
            "state": {"moment": np.full((4,), -value, np.float32)},
        },
        metadata={"tae": {"tae_config": json.dumps({"ch": 32})}},
        documents={"progress": {"step": step}, "config": {"lr": 1e-3}},
        score=score,
    )


def value(checkpoint):
    """Return what was saved as `value`, after a look whether the parts belong together."""
    kernel = checkpoint.tensors("tae")["kernel"]
    assert np.array_equal(checkpoint.tensors("state")["moment"], np.full((4,), -kernel[0, 0]))
    assert checkpoint.document("progress") == {"step": checkpoint.step}
    return kernel[0, 0]


def names(store):
    return sorted(path.name for path in store.folder.iterdir())


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def damage(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def test_tensors_come_back_bit_by_bit(store):
    rng = np.random.default_rng(0)
    arrays = {
        "matrix": rng.standard_normal((3, 5), np.float32),
        "transposed": rng.standard_normal((3, 5)).T,
        "half": rng.standard_normal(7).astype(np.float16),
        "not finite": np.array([np.nan, -np.inf, -0.0], np.float32),
        "zero-dimensional": np.array(2.5, np.float32),
        "scalar": np.float32(0.1),
        "empty": np.zeros((0, 4), np.float32),
        "steps": np.arange(3, dtype=np.int64),
        "flags": np.array([True, False]),
    }
    store.save(7, tensors={"tae": arrays, "none": {}}, documents={})
    loaded = store.load().tensors("tae")
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype and loaded[name].shape == array.shape, name
        assert loaded[name].tobytes() == array.tobytes(), name
    loaded["matrix"][0, 0] = 1.0  # may be written to
    assert store.load().tensors("none") == {}


def test_documents_metadata_step_and_score_come_back(store):
    path = save(store, 3, score=np.float32(31.5))
    checkpoint = store.load()
    assert (checkpoint.path, checkpoint.step, checkpoint.manifest.score) == (path, 3, 31.5)
    assert checkpoint.document("config") == {"lr": 1e-3}
    assert read_safetensors_metadata(path / "tae.safetensors")["tae_config"] == '{"ch": 32}'
    assert "tae_config" not in read_safetensors_metadata(path / "state.safetensors")
    assert (store.folder / "LATEST").read_text() == "step_00000003\n"
    with pytest.raises(ValueError, match=r"holds no discriminator\.safetensors; it has .*tae"):
        checkpoint.tensors("discriminator")


def test_the_newest_few_are_kept(store):
    for step in (1, 2, 5, 100_000_000):
        save(store, step)
    assert store.steps() == [5, 100_000_000]
    assert names(store) == ["LATEST", "step_00000005", "step_100000000"]
    assert value(store.load(5)) == 5.0
    with pytest.raises(
        FileNotFoundError, match=r"of step 2 in .*; there are those of 5, 100000000"
    ):
        store.load(2)


def test_the_best_is_kept_besides_the_newest(store):
    for step, score in ((1, 20.0), (2, 30.0), (3, None), (4, 29.0), (5, float("nan"))):
        save(store, step, score=score)
    assert store.steps() == [2, 4, 5]
    save(store, 6, score=31.0)
    assert store.steps() == [5, 6]
    save(store, 7)
    save(store, 8)
    assert store.steps() == [6, 7, 8]


def test_the_same_step_is_saved_again_without_touching_the_older_one_first(store, monkeypatch):
    save(store, 1)
    save(store, 2, value=5.0)
    before = snapshot(store.folder)
    commit = CheckpointStore._commit

    def look_then_commit(self, temporary, target):
        kept = {p: c for p, c in snapshot(store.folder).items() if temporary not in p.parents}
        assert kept == before
        commit(self, temporary, target)
        assert all(path.exists() for path in before)

    monkeypatch.setattr(CheckpointStore, "_commit", look_then_commit)
    save(store, 2, value=6.0)
    monkeypatch.undo()
    assert value(store.load()) == value(store.load(2)) == 6.0
    assert names(store) == ["LATEST", "step_00000001", "step_00000002_2"]
    save(store, 2, value=7.0)
    assert value(store.load()) == 7.0
    assert names(store) == ["LATEST", "step_00000001", "step_00000002"]


def test_a_run_that_went_back_goes_on_from_what_it_saved_since(store):
    save(store, 10)
    save(store, 20)
    assert store.load(10).step == 10
    save(store, 15)
    assert store.load().step == 15
    save(store, 20, value=21.0)
    assert value(store.load()) == 21.0
    assert store.steps() == [15, 20]


def test_a_damaged_checkpoint_is_not_kept_for_a_good_one(store):
    save(store, 10)
    damage(save(store, 20) / "tae.safetensors")
    assert store.load().step == 10
    save(store, 15)
    assert store.steps() == [10, 15]
    save(store, 20)  # under the name that the damaged one had
    assert store.steps() == [15, 20]
    assert value(store.load()) == 20.0


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("tae.safetensors", "tae.safetensors is damaged: its sha256 is"),
        ("progress.json", "progress.json is damaged: its sha256 is"),
        ("manifest.json", "manifest.json is damaged"),
    ],
)
def test_damage_is_told_once_and_an_older_one_is_loaded(store, caplog, name, fault):
    save(store, 1)
    damage(save(store, 2) / name)
    with caplog.at_level(logging.WARNING, "mg"):
        assert value(store.load()) == 1.0
    (record,) = caplog.records
    assert f"step_00000002: {fault}" in record.getMessage()
    assert "Going on from" in record.getMessage() and "step_00000001" in record.getMessage()
    assert "LATEST" not in record.getMessage()
    with pytest.raises(ValueError, match=r"whole:\n  step_00000002: .*damaged"):
        store.load(2)


def test_truncated_and_missing_files_are_told(store):
    first, second = save(store, 1), save(store, 2)
    (first / "state.safetensors").write_bytes((first / "state.safetensors").read_bytes()[:-5])
    (second / "config.json").unlink()
    expected = (
        r"is whole:\n  step_00000001: state\.safetensors is damaged: its size is \d+ instead of "
        r"\d+\n  step_00000002: config\.json is missing$"
    )
    with pytest.raises(ValueError, match=expected):
        store.load()


def test_damage_after_loading_is_noticed_when_the_file_is_read(store):
    path = save(store, 1)
    checkpoint = store.load()
    damage(path / "tae.safetensors")
    with pytest.raises(ValueError, match=r"tae\.safetensors is damaged: its sha256"):
        checkpoint.tensors("tae")


@pytest.mark.parametrize("content", [None, b"", b"step_00000001\n", b"step_00000002", b"\xff"])
def test_a_wrong_latest_is_told_and_does_not_matter(store, caplog, content):
    save(store, 1)
    save(store, 2)
    if content is None:
        (store.folder / "LATEST").unlink()
    else:
        (store.folder / "LATEST").write_bytes(content)
    with caplog.at_level(logging.WARNING, "mg"):
        assert store.load().step == 2
    assert "LATEST" in caplog.text
    save(store, 3)
    caplog.clear()
    assert store.load().step == 3
    assert caplog.text == ""


def test_a_committed_checkpoint_counts_though_latest_does_not_name_it(store, monkeypatch):
    save(store, 1)

    def cut(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        flush = checkpoint_store._flush_folder
        patch.setattr(
            checkpoint_store, "_flush_folder", lambda f: cut() if f == store.folder else flush(f)
        )
        with pytest.raises(KeyboardInterrupt):
            save(store, 2)
    assert (store.folder / "LATEST").read_text() == "step_00000001\n"
    assert value(store.load()) == 2.0


def test_a_manifest_of_another_version_or_with_a_path_is_refused(store):
    path = save(store, 1)
    original = json.loads((path / "manifest.json").read_text())
    del original["sha256"]
    outside = {**original["files"], "../config.yaml": original["files"]["config.json"]}
    for change, message in (
        ({"format_version": 2}, "has format 2, only 1 is known"),
        ({"files": outside}, "names '../config.yaml', which is not a plain file name"),
    ):
        text = checkpoint_manifest._sealed_text({**original, **change})
        (path / "manifest.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            store.load()


@pytest.mark.parametrize(
    "change",
    [{"colour": "red"}, {"files": {"a": {"size": 1}}}, {"files": {"a": 7}}, {"files": [1]}],
)
def test_a_manifest_with_unknown_values_is_told_in_one_line(store, change):
    path = save(store, 1) / "manifest.json"
    content = {**json.loads(path.read_text()), **change}
    del content["sha256"]
    path.write_text(checkpoint_manifest._sealed_text(content))
    with pytest.raises(
        ValueError, match=r"is whole:\n  step_00000001: manifest.json holds other.*$"
    ):
        store.load()


def test_nothing_to_resume(store):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint in .*nothing to resume"):
        store.load()
    (store.folder / ".writing_step_00000001").mkdir(parents=True)
    (store.folder / "step_new").mkdir()
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        store.load(1)
    assert store.steps() == []


def test_leftovers_of_a_killed_run_are_cleared_and_nothing_else(store):
    save(store, 1)
    for name in (".writing_step_00000002", ".removing_step_00000000", "step_00000009", "mine"):
        (store.folder / name).mkdir()
        (store.folder / name / "tae.safetensors").write_bytes(b"half")
    (store.folder / ".LATEST.abc.tmp").write_text("step")
    save(store, 2)
    assert names(store) == ["LATEST", "mine", "step_00000001", "step_00000002", "step_00000009"]
    assert value(store.load()) == 2.0


FILES = [
    "tae.safetensors",
    "state.safetensors",
    "progress.json",
    "config.json",
    "manifest.json",
]


@pytest.mark.parametrize("failing", [*FILES, "folder"])
def test_a_full_disk_leaves_the_older_checkpoints_intact(store, monkeypatch, failing):
    save(store, 1)
    save(store, 2)
    before = snapshot(store.folder)

    def failing_on(original):
        def write(path, *args, **kwargs):
            if path.name == (".writing_step_00000003" if failing == "folder" else failing):
                if failing != "folder":
                    path.with_name("." + path.name).write_bytes(b"half of it")
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(path, *args, **kwargs)

        return write

    with monkeypatch.context() as patch:
        for module, name in (
            (checkpoint_store, "write_weights"),
            (checkpoint_store, "write_text"),
            (checkpoint_store, "_flush_folder"),
            (checkpoint_manifest, "write_text"),
        ):
            patch.setattr(module, name, failing_on(getattr(module, name)))
        message = (
            r"^could not save .*step_00000003 \(No space left on device\); older ones are intact$"
        )
        with pytest.raises(OSError, match=message):
            save(store, 3)
    assert snapshot(store.folder) == before and not list(store.folder.glob(".*"))
    assert value(store.load()) == 2.0
    save(store, 4)  # there is room again
    assert value(store.load()) == 4.0


@pytest.mark.parametrize("is_done", [False, True])
def test_could_not_save_is_said_only_of_what_is_not_there(store, monkeypatch, caplog, is_done):
    """Each call to the file system fails in turn, or does its work and fails all the same (NFS)."""
    outcomes = []
    while True:
        shutil.rmtree(store.folder, ignore_errors=True)
        save(store, 1)
        save(store, 2)
        left = [len(outcomes)]
        caplog.clear()
        with monkeypatch.context() as patch:
            for name in ("open", "chmod", "fsync", "replace"):
                patch.setattr(os, name, failing_once(getattr(os, name), left, is_done))
            try:
                save(store, 3)
                outcomes.append("saved")
            except OSError as error:
                assert "could not save" in str(error) and "; older ones are intact" in str(error)
                outcomes.append("not saved")
        assert (3 in store.steps()) == (outcomes[-1] == "saved")
        assert value(store.load()) == (3.0 if outcomes[-1] == "saved" else 2.0)
        if left != [-1]:  # there was no such call
            break
        assert outcomes[-1] == "not saved" or "Disk quota exceeded" in caplog.text
    commit = outcomes.index("saved")
    assert commit > 20 and set(outcomes[commit:]) == {"saved"} and len(outcomes) > commit + 5


def failing_once(call, left, is_done):
    """Return a function that fails when none of its calls (and of its kin's) is left, once."""

    def wrapper(*args, **kwargs):
        is_this = left[0] == 0
        left[0] -= left[0] >= 0
        if not is_this:
            return call(*args, **kwargs)
        if is_done:
            result = call(*args, **kwargs)
            if isinstance(result, int):
                os.close(result)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    return wrapper


def test_a_value_that_cannot_be_stored_leaves_nothing(store):
    with pytest.raises(ValueError, match="complex"):
        store.save(1, tensors={"tae": {"a": np.zeros(2, np.complex64)}}, documents={})
    with pytest.raises(TypeError):
        store.save(1, tensors={}, documents={"progress": {"step": object()}})
    assert names(store) == []


def test_old_checkpoints_that_cannot_be_removed_are_told(store, monkeypatch, caplog):
    save(store, 1)
    save(store, 2)

    def refuse(path, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "mg"):
        patch.setattr(shutil, "rmtree", refuse)
        save(store, 3)
    assert "Could not remove old checkpoints" in caplog.text and "step_00000001" in caplog.text
    assert value(store.load()) == 3.0 and store.steps() == [2, 3]
    save(store, 4)
    assert names(store) == ["LATEST", "step_00000003", "step_00000004"]


def test_everything_is_on_disk_before_the_next_thing_relies_on_it(store, monkeypatch):
    """A power cut may undo whatever was not flushed."""
    save(store, 1)
    save(store, 2)
    calls = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor):
        calls.append(("flush", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def note_replace(source, target):
        source, target = Path(source), Path(target)
        if source.is_dir() and target.name == "step_00000003":
            for path in (*source.iterdir(), source):  # all of it is on disk
                assert ("flush", path.stat().st_ino) in calls, path
            # the names of the files, too: the folder comes after the last of them
            assert calls[-1] == ("flush", source.stat().st_ino)
        replace(source, target)
        calls.append(("rename", target.name))

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    save(store, 3)
    parent = ("flush", store.folder.stat().st_ino)
    commit = calls.index(("rename", "step_00000003"))
    latest = (store.folder / "LATEST").stat().st_ino
    assert calls[commit:] == [
        ("rename", "step_00000003"),
        parent,
        ("flush", latest),
        ("rename", "LATEST"),
        parent,
        ("rename", ".removing_step_00000001"),
    ]


def test_all_checkpoints_are_removed(store):
    store.remove_all()  # there is no folder yet
    save(store, 1)
    save(store, 2)
    (store.folder / ".writing_step_00000003").mkdir()
    (store.folder / "mine").mkdir()
    store.remove_all()
    assert names(store) == ["mine"]


def test_wrong_arguments_are_refused(store, tmp_path):
    with pytest.raises(ValueError, match="keep=1: at least 2"):
        CheckpointStore(tmp_path, keep=1)
    for arguments, message in (
        ({"step": -1}, "at least 0"),
        ({"tensors": {"../tae": {}}}, "cannot be a file"),
        ({"documents": {"manifest": {}}}, "is taken"),
        ({"metadata": {"tea": {}}}, r"metadata for \['tea'\]"),
    ):
        values = {"step": 1, "tensors": {}, "documents": {}, **arguments}
        with pytest.raises(ValueError, match=message):
            store.save(values.pop("step"), **values)
    assert not store.folder.exists()


def test_no_mindspore_is_needed():
    program = (
        "import sys, mg.training.run.checkpoint_store, mg.training.run.signals; "
        "sys.exit('mindspore' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
