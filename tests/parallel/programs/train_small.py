"""The trainer on a network that compiles in a moment, with faults at given batches.

    python scripts/launch.py 2 train_small.py --output_path ... (any setting of train_tae.py)

The environment variable FAULTS names them, such as "nan:1 sigkill:7" (kind:batch).
"""

import errno
import math
import os
import signal
import time

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mg.cli import parse_config, run_main
from mg.commands.train_tae import TrainTAEConfig
from mg.data.clips import ClipDataset
from mg.data.manifest import build_manifest
from mg.device import setup_device
from mg.files import write_text
from mg.parallel.collectives import broadcast_array
from mg.parallel.ranks import Ranks, init_ranks
from mg.training.run.checkpoint import save_final_weights
from mg.training.stages import plan_stages
from mg.training.step import TrainStep
from mg.training.task import Task
from mg.training.trainer import Trainer

UNREADABLE = "bad.mp4"


class Network(nn.Cell):
    """Two numbers per colour: the brightness of a clip, scaled and shifted."""

    def __init__(self):
        super().__init__()
        self.scale = ms.Parameter(Tensor(np.full(3, 0.5, np.float32)), name="scale")
        self.shift = ms.Parameter(Tensor(np.full(3, 0.3, np.float32)), name="shift")

    def construct(self, video):
        return self.scale * video.mean((2, 3, 4)) + self.shift


class Loss(nn.Cell):
    def __init__(self, network):
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, video):
        loss = ops.square(self.network(video) - 0.7).mean()
        return loss, (loss,), loss


class SmallTask(Task):
    """Learns a brightness; one of the clips cannot be read."""

    def __init__(self, config: TrainTAEConfig, ranks: Ranks, faults: dict[str, int]) -> None:
        self.config, self.ranks, self.faults = config, ranks, faults
        self.stages = plan_stages(config)
        self.dataset = ClipDataset(
            build_manifest(video_folder=config.video_folder),
            config.data.clip_config(),
            rank=ranks.rank,
            num_ranks=ranks.size,
        )
        self.read = self.dataset.read
        self.dataset.read = self.read_unless_bad
        self.network = Network()
        self.networks = {"network": self.network}
        self.running_means = {}
        self.terms = ("term",)
        self.trainer = None

    def read_unless_bad(self, draw):
        if draw.clip.name == UNREADABLE:
            raise OSError("torn")
        return self.read(draw)

    def enter(self, stage):
        step = TrainStep(
            Loss(self.network),
            self.config.optim,
            ranks=self.ranks,
            zero_stage=self.config.zero_stage,
        )
        self.steps = {"network": step}

    def run_batch(self, number, batch, controls, *, is_last):
        is_last_rank = self.ranks.rank == self.ranks.size - 1
        video = batch.frames
        for fault in [name for name, place in self.faults.items() if place == number]:
            if fault == "nan" and is_last_rank:
                video = video * math.nan
            elif fault == "full_disk":
                self.fill_disk()
            elif fault == "sigterm" and is_last_rank:
                self.end_launcher()
            elif fault == "sigkill" and is_last_rank:
                os.kill(os.getpid(), signal.SIGKILL)
        scalars = (controls.lr, controls.loss_scale, controls.max_norm)
        inputs = [Tensor(value, ms.float32) for value in scalars]
        loss, terms, norm, _ = self.steps["network"](*inputs, is_last, Tensor(video))
        numbers = {"loss": loss, "term": terms[0], "grad_norm": norm}
        return {name: float(value.asnumpy()) for name, value in numbers.items()}

    def fill_disk(self) -> None:
        """Let the next save fail, and the ones after it succeed."""
        store = self.trainer.state.store
        save = store.save

        def fail_once(*args, **kwargs):
            store.save = save
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        store.save = fail_once

    def end_launcher(self) -> None:
        """Ask the launcher to end; return when it has passed that on to this rank."""
        os.kill(os.getppid(), signal.SIGTERM)
        while self.trainer.stop.requested is None:
            time.sleep(0.01)

    def validate(self, video_path, *, should_stop):
        if not self.ranks.is_main:
            return None
        psnr = 20.0 - float(np.abs(self.network.shift.asnumpy() - 0.7).mean())
        return {"psnr": psnr, "psnr_per_clip": {"clip": psnr}}

    def sample(self, path, *, should_stop):
        if not self.ranks.is_main:
            return None
        time.sleep(0.5)  # the others must wait
        write_text(path.with_suffix(".txt"), "a sample", overwrite=True)
        return path

    def export(self, folder):
        save_final_weights(folder / "network.safetensors", self.tensors()["network"], {})
        return folder / "network.safetensors"

    def next_command(self, weights):
        return f"look at {weights}"


def make_trainer(config: TrainTAEConfig, ranks: Ranks, faults: dict[str, int]) -> Trainer:
    """Return a trainer of the small task that meets the faults, {kind: number of the batch}."""
    task = SmallTask(config, ranks, faults)
    task.trainer = Trainer(config, task, ranks, validation_interval=3, sample_interval=4)
    return task.trainer


def main() -> None:
    config = parse_config(TrainTAEConfig, description=__doc__)
    setup_device(config)
    ranks = init_ranks()
    pairs = [text.split(":") for text in os.environ.get("FAULTS", "").split()]
    trainer = make_trainer(config, ranks, {name: int(place) for name, place in pairs})
    trainer.run()
    for values in trainer.task.tensors()["network"].values():
        if not np.array_equal(values, broadcast_array(values, ranks)):
            raise RuntimeError("the ranks' weights are not equal bit for bit")


if __name__ == "__main__":
    run_main(main)
