"""scripts/train_vae.py on two nodes of one rank each: the run of one rank with twice the batch."""

import os
import subprocess
import sys

import numpy as np
import pytest

from mg.cli import save_config
from mg.data.video_writer import write_video
from mg.training.autoencoder.autoencoder_config import (
    DataSettings,
    LossSettings,
    OptimSettings,
    TrainVAEConfig,
)
from mg.training.autoencoder.autoencoder_trainer import AutoencoderTrainer
from mg.training.run.run_log import read_log
from mg.weights.checkpoint_file import find_weights, read_weights
from tests.parallel.conftest import ROOT
from tests.tiny import AUTOENCODERS as TINY

LIMIT = 1e-6
NUM_STEPS = 3
SIZES = ("16x8", "8x16")  # of the buckets, height x width


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Return a folder of two upright and two wide videos."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(4):
        height, width = map(int, SIZES[number // 2].split("x"))
        frames = np.random.default_rng(number).integers(0, 255, (4, height, width, 3), np.uint8)
        write_video(folder / f"{number}.mp4", frames, fps=25, lossless=True)
    return folder


def make_config(videos, output_path, *, batch_size):
    buckets = {size: {4: [1.0, batch_size]} for size in SIZES}
    return TrainVAEConfig(
        output_path=str(output_path),
        video_folder=str(videos),
        model={"family": "dc_ae", **TINY["dc_ae"]},
        device="CPU",
        mode="pynative",  # compiled steps of two ranks: test_training_on_two_ranks.py
        steps=NUM_STEPS,
        data=DataSettings(bucket_config=buckets, num_workers=0),
        loss=LossSettings(perceptual_loss_weight=0.0, kl_loss_weight=0.0),
        optim=OptimSettings(lr=1e-3, eps=1e-2, weight_decay=0.1),
    )


@pytest.fixture
def run_on_two_nodes(run_limited, free_port):
    """Return a function that runs a command on two nodes of this machine: (exit code, output).

    The second msrun of one machine would start a scheduler of its own, since the master's address
    is this machine's: so the second node is what msrun makes of it, its variables and its rank.
    """

    def run(command, folder):
        second = {
            "MS_ROLE": "MS_WORKER",
            "MS_WORKER_NUM": "2",
            "MS_SCHED_HOST": "127.0.0.1",
            "MS_SCHED_PORT": str(free_port),
            "MS_NODE_ID": "1",
            "RANK_ID": "1",
            "DEVICE_ID": "0",
        }
        # fmt: off
        first = [
            "msrun", "--worker_num=2", "--local_worker_num=1", "--node_rank=0",
            "--master_addr=127.0.0.1", f"--master_port={free_port}", "--join=True",
            f"--log_dir={folder}", *command,
        ]
        # fmt: on
        variables = {**os.environ, **second, "PYTHONPATH": str(ROOT), "GLOG_v": "3"}
        with (
            (folder / "rank_1.log").open("w") as log,
            subprocess.Popen(
                [sys.executable, *map(str, command)], env=variables, stdout=log, stderr=log
            ) as other,
        ):
            try:
                code, output = run_limited(first, log_folder=folder)
                other_code = other.wait(timeout=60)
            finally:
                other.kill()
        return code or other_code, output + (folder / "rank_1.log").read_text()

    return run


@pytest.mark.usefixtures("pynative_mode")
def test_two_nodes_train_like_one_rank_with_twice_the_batch(videos, run_on_two_nodes, tmp_path):
    config = make_config(videos, tmp_path / "two", batch_size=1)
    save_config(tmp_path / "config.yaml", config)
    script = ROOT / "scripts" / "train_vae.py"
    code, output = run_on_two_nodes([script, "--config", tmp_path / "config.yaml"], tmp_path)
    assert code == 0, output
    one = AutoencoderTrainer(make_config(videos, tmp_path / "one", batch_size=2))
    one.run()
    buckets = {str(one.task.dataset.bucket(step)) for step in range(NUM_STEPS)}
    assert buckets == {f"4x{size}" for size in SIZES}
    first, second = (read_log(tmp_path / name / "log.jsonl") for name in ("one", "two"))
    assert len(first) == len(second) == NUM_STEPS
    for a, b in zip(first, second, strict=True):
        for key in ("loss", "l1", "grad_norm"):
            assert a[key] == pytest.approx(b[key], rel=LIMIT)
    weights = [read_weights(find_weights(tmp_path / name / "vae")) for name in ("one", "two")]
    assert weights[0].keys() == weights[1].keys()
    for name, array in weights[0].items():
        assert np.abs(array - weights[1][name]).max() <= LIMIT, name
    # Only rank 0 writes.
    listed = [
        sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*"))
        for name in ("one", "two")
    ]
    assert listed[0] == listed[1]
