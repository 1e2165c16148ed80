"""What a checkpoint says of its run, and the weights that a run ends with."""

import dataclasses
import json

import pytest

from mg.models.tae.tae import TemporalAutoencoder
from mg.training.run.checkpoint import Progress, changed_settings, save_final_weights
from tests.tiny import TAE_OF_IMAGES


def test_final_weights_carry_their_config(tmp_path):
    tae = TemporalAutoencoder(TAE_OF_IMAGES)
    path = tmp_path / "tae.safetensors"
    for _ in range(2):  # the second run replaces the first one's
        save_final_weights(path, tae.tensors(), tae.config.to_dict())
    assert json.loads(path.with_suffix(".json").read_text()) == tae.config.to_dict()
    path.with_suffix(".json").unlink()
    assert TemporalAutoencoder(pretrained=path).config == tae.config


def test_changed_settings_are_told_apart_by_what_they_change():
    before = {
        "batch_size": 2,
        "batch_size_of_all_ranks": 2,
        "steps": 10,
        "log_interval": 5,
        "optim": {"lr": 1e-4, "betas": [0.9, 0.99]},
        "validation": {"size": 64},
        "data": {"num_workers": 1, "size": 64},
    }
    now = {
        "batch_size": 1,
        "batch_size_of_all_ranks": 8,
        "steps": 20,
        "log_interval": 6,
        "optim": {"lr": 2e-4, "betas": [0.9, 0.99]},
        "validation": {"size": 32},
        "data": {"num_workers": 0, "size": 64},
        "adversarial": {"weight": 0.5},
    }
    harmless, telling = changed_settings(before, now)
    assert harmless == [
        "batch_size: 2 -> 1",
        "data.num_workers: 1 -> 0",
        "log_interval: 5 -> 6",
        "validation.size: 64 -> 32",
    ]
    assert telling == [
        "adversarial.weight: None -> 0.5",
        "batch_size_of_all_ranks: 2 -> 8",
        "optim.lr: 0.0001 -> 0.0002",
        "steps: 10 -> 20",
    ]
    assert changed_settings(before, before) == ([], [])


def test_progress_survives_json_exactly():
    progress = Progress(step=3, running_means={"real": 0.1 + 0.2, "fake": -1 / 3})
    text = json.dumps(progress.__dict__)
    assert Progress(**json.loads(text)) == progress


def test_progress_of_another_version_is_refused_in_one_line():
    document = dataclasses.asdict(Progress(step=4))
    assert Progress.from_document(json.loads(json.dumps(document))) == Progress(step=4)
    with pytest.raises(
        ValueError, match=r"^progress\.json holds 'phase', 'zeal', which is unknown"
    ):
        Progress.from_document({**document, "zeal": 1, "phase": 2})
