"""Training on clips of several sizes: a graph for each, resumed bit by bit."""

import dataclasses
import shutil

import numpy as np
import pytest

from mg.cli import config_to_yaml, parse_config
from mg.data.video_writer import write_video
from mg.models.discriminator_config import DiscriminatorConfig
from mg.models.families import AUTOENCODERS
from mg.training.autoencoder.autoencoder_config import (
    AdversarialSettings,
    DataSettings,
    LossSettings,
    OptimSettings,
    TrainVAEConfig,
)
from mg.training.autoencoder.autoencoder_trainer import AutoencoderTrainer
from mg.training.run.run_log import read_log
from mg.weights.checkpoint_file import find_weights, read_weights
from tests.tiny import AUTOENCODERS as TINY

# Wide clips of 4 frames; square ones of 2, of which half sit an epoch out.
BUCKETS = {"8x16": {4: [1.0, 1]}, "16x8": {2: [0.5, 2]}}
TIMES = ("seconds", "data_seconds")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Return a folder of two wide and three upright videos."""
    folder = tmp_path_factory.mktemp("videos")
    for number, (height, width) in enumerate([(8, 16)] * 2 + [(16, 8)] * 3):
        frames = np.random.default_rng(number).integers(0, 255, (5, height, width, 3), np.uint8)
        write_video(folder / f"{number}.mp4", frames, fps=25, lossless=True)
    return folder


def make_config(videos, output_path, **changes):
    return TrainVAEConfig(
        output_path=str(output_path),
        video_folder=str(videos),
        device="CPU",
        steps=8,
        checkpoint_interval=3,
        keep_checkpoints=5,
        data=DataSettings(bucket_config=BUCKETS, num_workers=0),
        loss=LossSettings(perceptual_loss_weight=0.0),
        optim=OptimSettings(lr=1e-3),
        **{"model": {"family": "exercise"}, **changes},
    )


@pytest.fixture(autouse=True)
def exercise(monkeypatch):
    """Have the smallest family among the others."""
    monkeypatch.setitem(AUTOENCODERS, "exercise", "tests.contract.exercise")


@pytest.mark.usefixtures("in_graph_mode")
def test_each_bucket_trains_and_a_resumed_run_is_the_same_bit_by_bit(videos, tmp_path):
    """Resumed in the middle of an epoch, whose buckets differ from those of the next."""
    config = make_config(videos, tmp_path / "whole")
    trainer = AutoencoderTrainer(config)
    step = trainer.task.steps["exercise"]
    final = trainer.run()
    buckets = [str(trainer.task.dataset.bucket(number)) for number in range(8)]
    assert set(buckets) == {"4x8x16", "2x16x8"}
    assert len(step.compile_cache) == 2  # a graph for each
    log = read_log(tmp_path / "whole" / "log.jsonl")
    assert [entry["num_frames"] for entry in log] == [int(bucket[0]) for bucket in buckets]

    broken = tmp_path / "broken"
    shutil.copytree(tmp_path / "whole", broken)
    for number in (6, 8):
        shutil.rmtree(broken / "checkpoints" / f"step_{number:08d}")
    changes = {"output_path": str(broken), "resume": True}
    resumed = AutoencoderTrainer(dataclasses.replace(config, **changes))
    assert resumed.step == 3
    first, second = (read_weights(find_weights(path)) for path in (final, resumed.run()))
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)
    logs = (log, read_log(broken / "log.jsonl"))
    one, other = ([{k: v for k, v in e.items() if k not in TIMES} for e in log] for log in logs)
    assert one == other


def test_the_config_comes_back_from_its_file_and_from_a_flag(videos, tmp_path):
    config = make_config(videos, tmp_path / "out")
    (tmp_path / "config.yaml").write_text(config_to_yaml(config))
    given = ["--config", str(tmp_path / "config.yaml")]
    assert parse_config(TrainVAEConfig, given, description="") == config
    given += ["--bucket_config", '{"256px_ar1:1": {32: [1.0, 1]}}']
    again = parse_config(TrainVAEConfig, given, description="")
    assert [str(size) for size in again.clip_sizes()] == ["32x256x256"]


@pytest.mark.parametrize(
    ("buckets", "message"),
    [
        ({"256px": {32: 1}}, r"data\.bucket_config: '256px': 32: 1; expected frames: \[keep"),
        ({"8x15": {4: [1, 1]}}, r"data\.bucket_config, 4x8x15; the network needs a multiple of 2"),
        ({"64x64": {4: [1, 1]}}, r"no clip fits a bucket \(4x64x64\)"),
    ],
)
def test_buckets_that_cannot_work_are_refused(videos, tmp_path, buckets, message):
    with pytest.raises(ValueError, match=message):
        data = DataSettings(bucket_config=buckets, num_workers=0)
        AutoencoderTrainer(dataclasses.replace(make_config(videos, tmp_path), data=data))


def test_sizes_follow_the_network_and_losses_look_at_the_smallest(videos, tmp_path):
    settings = {"output_path": str(tmp_path / "out"), "video_folder": str(videos)}
    data = DataSettings(bucket_config={"256px_ar16:9": {32: [1.0, 1]}, "16x64": {4: [1.0, 1]}})
    loss = LossSettings(perceptual_loss_weight=0.0)
    sizes = {}
    for family in ("dc_ae", "wan"):
        wide = DataSettings(bucket_config={"256px_ar16:9": {33: [1.0, 1]}})
        config = TrainVAEConfig(model={"family": family}, data=wide, loss=loss, **settings)
        sizes[family] = [str(size) for size in config.clip_sizes()]
    assert sizes == {"dc_ae": ["33x192x352"], "wan": ["33x192x336"]}
    model = {"family": "dc_ae", **TINY["dc_ae"]}
    judge = AdversarialSettings(network=DiscriminatorConfig(num_layers=5))
    with pytest.raises(ValueError, match=r"crops of at least .* but some are 16x64"):
        TrainVAEConfig(model=model, data=data, loss=loss, adversarial=judge, **settings)


def test_lengths_that_a_family_cannot_take_are_refused(videos, tmp_path):
    config = TrainVAEConfig(
        output_path=str(tmp_path / "out"),
        video_folder=str(videos),
        model={"family": "wan", **TINY["wan"]},
        data=DataSettings(bucket_config={"16x8": {4: [1.0, 1]}}),
        loss=LossSettings(perceptual_loss_weight=0.0),
    )
    with pytest.raises(ValueError, match=r"bucket_config, 4x16x8: .*'wan' takes clips of 1 \+"):
        AutoencoderTrainer(config)
