"""The training loop on latents: batches of changing shape, checkpoints, bad files, signals."""

import json
import signal

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mg.commands.train_tae import TrainTAEConfig
from mg.conditions.text.byte_encoder import ByteEncoder
from mg.conditions.text.sources import EncodedText
from mg.data.buckets import Bucket
from mg.data.captions import read_captions
from mg.data.latent_dataset import LatentDataset
from mg.data.latent_files import LatentInfo, LatentWriter
from mg.data.latent_manifest import build_latent_manifest
from mg.parallel.ranks import ONE_RANK
from mg.training.autoencoder.autoencoder_config import DataSettings, OptimSettings
from mg.training.run.checkpoint_store import CheckpointStore
from mg.training.run.run_log import read_log
from mg.training.stages import plan_stages
from mg.training.step import TrainStep
from mg.training.task import Task
from mg.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("in_graph_mode")

BUCKETS = Bucket(1, 2, 2), Bucket(3, 2, 4)
BATCH_SIZES = {BUCKETS[0]: 3}  # of the others: the run's own, 2
NUM_STEPS = 12


class Loss(nn.Cell):
    """Guesses each channel's mean from the first token."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Dense(32, 3)

    def construct(self, latent, values, mask):
        first = values[:, 0] * mask[:, :1].astype(ms.float32)
        loss = ops.square(self.dense(first) - latent.mean((2, 3, 4))).mean()
        return loss, (loss,), loss


class LatentTask(Task):
    def __init__(self, config, dataset):
        self.config = config
        self.dataset = dataset
        self.stages = plan_stages(config)
        ms.set_seed(0)
        self.loss = Loss()
        self.networks = {"network": self.loss}
        self.running_means = {}
        self.terms = ()
        self.shapes = []
        self.on_batch = lambda number: None

    def enter(self, stage):
        self.steps = {"network": TrainStep(self.loss, self.config.optim)}

    def run_batch(self, number, batch, controls, *, is_last):
        self.on_batch(number)
        self.shapes.append(batch.mean.shape)
        noise = np.random.default_rng((9, number)).standard_normal(batch.mean.shape, np.float32)
        scalars = (controls.lr, controls.loss_scale, controls.max_norm)
        loss, _, norm, _ = self.steps["network"](
            *(Tensor(value, ms.float32) for value in scalars),
            is_last,
            Tensor(batch.mean + batch.std * noise),
            *map(Tensor, batch.text),
        )
        return {"loss": float(loss.asnumpy()), "grad_norm": float(norm.asnumpy())}

    def validate(self, video_path, *, should_stop):
        return None

    def export(self, folder):
        return folder

    def next_command(self, weights):
        return ""


@pytest.fixture
def make_trainer(tmp_path):
    """Return a function that makes a trainer on 9 latents in two buckets."""
    (tmp_path / "latents").mkdir()
    config = {
        "z_channels": 3,
        "ch_mult": [1],
        "temporal_downsample_level": [],
        "scaling_factor": 1.0,
        "shift_factor": 0.0,
    }
    captions = ["video,caption"]
    for number in range(9):
        bucket = BUCKETS[number % 2]
        size = bucket.num_frames, bucket.height, bucket.width
        name = f"{number}.mp4"
        info = LatentInfo(*size, 8.0, name, config, "c", "w", {})
        moments = np.random.default_rng(number).standard_normal((2, 3, *size), np.float32)
        with LatentWriter(tmp_path / "latents" / f"{number}.safetensors", info) as writer:
            writer.write(*moments)
        captions.append(f"{name},clip {number}")
    (tmp_path / "captions.csv").write_text("\n".join(captions))

    def make(folder, **changes):
        run = TrainTAEConfig(
            output_path=str(tmp_path / folder),
            video_folder=str(tmp_path),
            steps=NUM_STEPS,
            batch_size=2,
            checkpoint_interval=5,
            device="CPU",
            data=DataSettings(num_workers=0),
            optim=OptimSettings(lr=1e-2),
            **changes,
        )
        data = LatentDataset(
            build_latent_manifest(tmp_path / "latents", read_captions(tmp_path / "captions.csv")),
            [EncodedText(ByteEncoder(width=32, max_tokens=16))],
            batch_sizes=BATCH_SIZES,
            image_ratio=0.5,
            text_dropout=0.2,
        )
        return Trainer(run, LatentTask(run, data), ONE_RANK, validation_interval=100)

    return make


def log_of(trainer):
    return [(e["step"], e["loss"], e["num_frames"]) for e in read_log(trainer.output / "log.jsonl")]


def test_a_run_in_pieces_is_an_unbroken_one_though_batches_change_shape(make_trainer):
    unbroken = make_trainer("whole")
    unbroken.run()
    assert set(unbroken.task.shapes) == {(3, 3, 1, 2, 2), (2, 3, 3, 2, 4)}
    for end in (6, None):
        trainer = make_trainer("pieces", resume=end is None)
        trainer.task.on_batch = lambda number, end=end: (
            number == end and signal.raise_signal(signal.SIGTERM)
        )
        assert (trainer.run() is None) == (end is not None)
    log = log_of(trainer)
    assert len(log) == NUM_STEPS and log == log_of(unbroken)
    assert [frames for _, _, frames in log] == [shape[2] for shape in unbroken.task.shapes]
    tensors, expected = (run.task.tensors()["network"] for run in (trainer, unbroken))
    for name, values in expected.items():
        np.testing.assert_array_equal(tensors[name], values)


def test_latents_that_break_are_kept_in_the_checkpoint(make_trainer, tmp_path, caplog):
    trainer = make_trainer("out")
    (tmp_path / "latents" / "3.safetensors").unlink()
    trainer.run()
    store = CheckpointStore(trainer.output / "checkpoints", keep=2)
    progress = store.load().document("progress")
    assert "not found" in progress["bad_clips"]["3.mp4"] and len(progress["bad_clips"]) == 1
    assert "1 clips could not be read" in caplog.text
    assert json.loads((trainer.output / "log.jsonl").read_text().splitlines()[-1])["is_applied"]
