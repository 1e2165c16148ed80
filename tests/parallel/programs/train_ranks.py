"""Trains a tiny TAE for some updates on each rank's part of fixed batches; rank 0 keeps results.

msrun ... python train_ranks.py FOLDER
"""

import json
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor

from mg.device import DeviceConfig, setup_device
from mg.models.tae.config import TAEConfig
from mg.models.tae.tae import TemporalAutoencoder
from mg.parallel.collectives import any_rank, barrier, broadcast_array, broadcast_parameters
from mg.parallel.ranks import Ranks, init_ranks
from mg.training.config import LossSettings, OptimSettings
from mg.training.step import TrainStep
from mg.training.tae_loss import TAELoss

MODEL = TAEConfig(
    ch=32,
    ch_mult=(1,),
    num_res_blocks=1,
    z_channels=4,
    temporal_downsample_level=(0,),
    temporal_upsample_level=(0,),
    attn_type="spat_only",
)
BATCH_SIZE, NUM_UPDATES = 2, 3
SETTINGS = OptimSettings(ema_decay=0.9, clip_grad_norm=0.5, weight_decay=0.1)


def batch_of(update: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (video, noise) of the whole batch of an update, all ranks together."""
    rng = np.random.default_rng(update)
    video = rng.uniform(-1, 1, (BATCH_SIZE, 3, 2, 8, 8)).astype(np.float32)
    return video, rng.standard_normal((BATCH_SIZE, 4, 1, 8, 8), np.float32)


def make_step(ranks: Ranks, *, shard_optimizer: bool) -> TrainStep:
    ms.set_seed(ranks.rank)  # other weights on each rank, until they are broadcast
    loss = TAELoss(TemporalAutoencoder(MODEL), LossSettings(perceptual_loss_weight=0))
    broadcast_parameters(loss.trainable_params(), ranks)
    step = TrainStep(loss, SETTINGS, ranks=ranks, shard_optimizer=shard_optimizer)
    return step.set_train()


def train(step: TrainStep, ranks: Ranks, first: int = 0) -> list[tuple[float, float]]:
    """Run the updates from number `first`; return (loss, gradient norm) of each."""
    log = []
    for update in range(first, first + NUM_UPDATES):
        part = [Tensor(array[ranks.rank :: ranks.size]) for array in batch_of(update)]
        lr, scale, indices = Tensor(0.01), Tensor(1.0), Tensor(np.zeros(1, np.int32))
        loss, _, norm = step(lr, scale, True, *part, indices)
        log.append((float(loss.asnumpy()), float(norm.asnumpy())))
    return log


def snapshot(step: TrainStep) -> dict[str, np.ndarray]:
    """Return copies of all trained parameters and their averages."""
    parameters = [*step.parameters, *step.average.average]
    return {parameter.name: parameter.asnumpy().copy() for parameter in parameters}


def main(folder: Path) -> None:
    setup_device(DeviceConfig(device="CPU"))
    ranks = init_ranks()
    for shard_optimizer in (False, True):
        step = make_step(ranks, shard_optimizer=shard_optimizer)
        start = snapshot(step)
        log = train(step, ranks)
        weights = snapshot(step)
        difference = max(
            float(np.abs(broadcast_array(values, ranks) - values).max())
            for values in weights.values()
        )
        kind = "sharded" if shard_optimizer else "whole"
        facts = {
            "log": log,
            "difference_to_rank_0": difference,
            "num_moments": 0,
            "stop_of_rank_1": any_rank(ranks.rank == 1, ranks),
            "stop_of_none": any_rank(False, ranks),
        }
        (folder / f"{kind}_{ranks.rank}.json").write_text(json.dumps(facts))
        state = step.optimizer.gather_state() if shard_optimizer else {}
        if ranks.is_main:
            np.savez(folder / f"{kind}_start.npz", **start)
            np.savez(folder / f"{kind}_weights.npz", **weights)
            np.savez(folder / f"{kind}_state.npz", **state)
    barrier(ranks)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
