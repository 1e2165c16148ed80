"""Training on the clips of shards: a bad one is passed over, a resumed run is the same."""

import dataclasses
import io
import shutil
import tarfile

import numpy as np
import pytest

from mg.cli import config_to_yaml, parse_config
from mg.models.families import AUTOENCODERS
from mg.training.autoencoder.autoencoder_config import (
    DataSettings,
    LossSettings,
    OptimSettings,
    TrainVAEConfig,
)
from mg.training.autoencoder.autoencoder_trainer import AutoencoderTrainer
from mg.weights.checkpoint_file import find_weights, read_weights


@pytest.fixture
def shards(tmp_path):
    """Return the pattern of two shards of three clips; what follows is not an array."""
    rng = np.random.default_rng(0)
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for key in ("a", "b", "c"):
                content = io.BytesIO()
                np.save(content, rng.integers(0, 255, (6, 16, 16, 3), np.uint8))
                member = tarfile.TarInfo(f"{key}.npy")
                member.size = len(content.getvalue())
                tar.addfile(member, io.BytesIO(content.getvalue()))
            tar.addfile(tarfile.TarInfo("empty.mp4"))
    return str(tmp_path / "{0..1}.tar")


@pytest.mark.usefixtures("in_graph_mode")
def test_a_run_on_shards_resumes_bit_by_bit(shards, tmp_path, monkeypatch):
    monkeypatch.setitem(AUTOENCODERS, "exercise", "tests.contract.exercise")
    config = TrainVAEConfig(
        output_path=str(tmp_path / "whole"),
        video_folder=[shards],
        device="CPU",
        steps=6,
        checkpoint_interval=2,
        keep_checkpoints=5,
        data=DataSettings(sample_n_frames=4, size=16, crop="random", num_workers=0),
        loss=LossSettings(perceptual_loss_weight=0.0),
        optim=OptimSettings(lr=1e-3),
        model={"family": "exercise"},
    )
    (tmp_path / "config.yaml").write_text(config_to_yaml(config))
    given = ["--config", str(tmp_path / "config.yaml")]
    assert parse_config(TrainVAEConfig, given, description="") == config
    trainer = AutoencoderTrainer(config)
    manifest = trainer.task.dataset.manifest
    names = [f"{number}.tar/{key}.npy" for number in (0, 1) for key in "abc"]
    assert [clip.name for clip in manifest.clips] == names
    rejected = [f"{number}.tar/empty.mp4" for number in (0, 1)]
    assert [entry.name for entry in manifest.rejected] == rejected
    final = trainer.run()
    broken = tmp_path / "broken"
    shutil.copytree(tmp_path / "whole", broken)
    for number in (4, 6):
        shutil.rmtree(broken / "checkpoints" / f"step_{number:08d}")
    again = dataclasses.replace(config, output_path=str(broken), resume=True)
    resumed = AutoencoderTrainer(again)
    assert resumed.step == 2
    first, second = (read_weights(find_weights(path)) for path in (final, resumed.run()))
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)
