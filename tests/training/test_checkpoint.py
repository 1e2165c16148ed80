"""Checkpoints: complete or not there, the newest few kept, the right one loaded."""

import errno
import json

import numpy as np
import pytest
from mindspore import Parameter, Tensor

from mg.models.tae.tae import TemporalAutoencoder
from mg.training import checkpoint
from mg.training.checkpoint import (
    Progress,
    load_newest_checkpoint,
    remove_checkpoints,
    save_checkpoint,
    save_final_weights,
)

CONFIG = {
    "ch": 32,
    "ch_mult": [1],
    "num_res_blocks": 1,
    "z_channels": 4,
    "attn_type": "spat_only",
    "temporal_downsample_level": [],
    "temporal_upsample_level": [],
}


@pytest.fixture(scope="module")
def tae():
    return TemporalAutoencoder(CONFIG)


def make_state(value=0.0):
    return {"moment": Parameter(Tensor(np.full((2, 3), value, np.float32)), name="moment")}


def save(folder, tae, step, *, keep=2, value=None):
    state = make_state(step if value is None else value)
    progress = Progress(step=step, loss_scale=8.0, num_good_steps=3)
    return save_checkpoint(folder, tae, state, progress, keep=keep)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_few_are_kept(tae, tmp_path):
    for step in (1, 2, 10, 3):
        save(tmp_path, tae, step)
    assert names(tmp_path) == ["step_00000003", "step_00000010"]


def test_weights_state_and_progress_come_back(tae, tmp_path):
    original = tae.tensors()
    save(tmp_path, tae, 1)
    save(tmp_path, tae, 2, value=5.0)
    other, state = TemporalAutoencoder(CONFIG), make_state()
    progress = load_newest_checkpoint(tmp_path, other, state)
    assert progress == Progress(step=2, loss_scale=8.0, num_good_steps=3)
    assert np.array_equal(state["moment"].asnumpy(), np.full((2, 3), 5.0))
    assert all(np.array_equal(original[name], value) for name, value in other.tensors().items())


@pytest.mark.parametrize("failing", ["tae.safetensors", "state.safetensors"])
def test_a_full_disk_leaves_the_older_checkpoints_intact(tae, tmp_path, monkeypatch, failing):
    save(tmp_path, tae, 1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    write_weights = checkpoint.write_weights

    def full_disk(path, *args, **kwargs):
        if path.name == failing:
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        write_weights(path, *args, **kwargs)

    monkeypatch.setattr(checkpoint, "write_weights", full_disk)
    with pytest.raises(OSError, match=r"No space left on device.*older ones are intact") as caught:
        save(tmp_path, tae, 2)
    assert caught.value.errno == errno.ENOSPC
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert names(tmp_path) == ["step_00000001"]


def test_leftovers_of_a_killed_run_are_neither_loaded_nor_kept(tae, tmp_path):
    save(tmp_path, tae, 1, value=1.0)
    (tmp_path / ".writing_step_00000002").mkdir()
    (tmp_path / "step_00000003").mkdir()  # incomplete: it has no progress.json
    state = make_state()
    assert load_newest_checkpoint(tmp_path, tae, state).step == 1
    save(tmp_path, tae, 4)
    assert ".writing_step_00000002" not in names(tmp_path)


def test_the_step_of_a_resumed_run_may_be_saved_again(tae, tmp_path):
    save(tmp_path, tae, 1, value=1.0)
    save(tmp_path, tae, 1, value=2.0)
    state = make_state()
    load_newest_checkpoint(tmp_path, tae, state)
    assert state["moment"].asnumpy()[0, 0] == 2.0


def test_nothing_to_resume_and_other_settings_are_told(tae, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        load_newest_checkpoint(tmp_path, tae, make_state())
    save(tmp_path, tae, 1)
    with pytest.raises(ValueError, match="average"):
        load_newest_checkpoint(tmp_path, tae, {**make_state(), "average": make_state()["moment"]})
    with pytest.raises(ValueError, match="z_channels"):
        load_newest_checkpoint(
            tmp_path, TemporalAutoencoder({**CONFIG, "z_channels": 8}), make_state()
        )


def test_a_truncated_state_is_an_error_that_names_the_file(tae, tmp_path):
    path = save(tmp_path, tae, 1) / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"state\.safetensors"):
        load_newest_checkpoint(tmp_path, tae, make_state())


def test_all_checkpoints_are_removed(tae, tmp_path):
    save(tmp_path, tae, 1)
    (tmp_path / ".writing_step_00000002").mkdir()
    remove_checkpoints(tmp_path)
    assert names(tmp_path) == []
    remove_checkpoints(tmp_path / "missing")


def test_final_weights_carry_their_config(tae, tmp_path):
    path = tmp_path / "tae.safetensors"
    for _ in range(2):  # the second run replaces the first one's
        save_final_weights(path, tae.tensors(), tae.config.to_dict())
    assert json.loads(path.with_suffix(".json").read_text()) == tae.config.to_dict()
    path.with_suffix(".json").unlink()
    assert TemporalAutoencoder(pretrained=path).config == tae.config
