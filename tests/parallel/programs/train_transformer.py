"""A few updates of a tiny transformer in each way to share it; results go to FOLDER.

    python scripts/launch.py 2 train_transformer.py FOLDER

`run` is a function of `ranks`, so that a test calls it with one rank for comparison.
"""

import dataclasses
import json
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor

from mg.device import DeviceConfig, setup_device
from mg.models.families import denoiser_family
from mg.parallel.ranks import Ranks, init_ranks
from mg.parallel.sequence import SequenceParallel, data_ranks
from mg.parameters import whole_values
from mg.training.denoiser.flow_loss import FlowLoss
from mg.training.optimizers.sharded_linear import shard_linear_maps
from mg.training.settings import OptimSettings
from mg.training.step import TrainStep

TEXT = {"latent_channels": 4, "text_encoders": [{"name": "a", "width": 10, "max_tokens": 6}]}
# 24 tokens; tables and modulation have rows that two ranks share, and rows that they cannot.
MODELS = {
    "movie_gen": {
        "num_layers": 1,
        "dim": 24,
        "ffn_dim": 36,
        "num_heads": 4,
        "position_table": [3, 4, 4],
        "timestep_width": 8,
        "qk_norm": True,
        "rope": True,
        **TEXT,
    },
    "cogvideox": {  # of its last layer the text goes nowhere
        "num_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "time_embed_dim": 8,
        "sample_width": 4,
        "sample_height": 8,
        "sample_frames": 9,
        **TEXT,
    },
    "hunyuan": {
        "num_layers": 1,
        "num_single_layers": 1,
        "num_refiner_layers": 1,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "mlp_ratio": 2.0,
        "rope_axes_dim": [4, 6, 6],
        "guidance_embeds": False,
        **TEXT,
        "text_encoders": [*TEXT["text_encoders"], {"name": "b", "width": 10, "max_tokens": 1}],
    },
}
BATCH_SIZE, NUM_UPDATES, LR = 4, 2, 1e-2
SETTINGS = OptimSettings(ema_decay=0.9, clip_grad_norm=0.1, weight_decay=0.1, eps=1e-4)


@dataclasses.dataclass(frozen=True)
class Way:
    """What is trained, and how ranks share the work."""

    family: str = "movie_gen"
    zero_stage: int = 0
    sequence_parallel: int = 1
    recompute_every: int = 0


WAYS = {
    "data": Way(),
    "cogvideox": Way("cogvideox"),
    "hunyuan": Way("hunyuan"),
    "sequence": Way(sequence_parallel=2, zero_stage=2),
    "sequence_zero3": Way(sequence_parallel=2, zero_stage=3, recompute_every=1),
    "cogvideox_zero3": Way("cogvideox", zero_stage=3),
    "cogvideox_sequence": Way("cogvideox", sequence_parallel=2),
    "hunyuan_sequence_zero3": Way("hunyuan", sequence_parallel=2, zero_stage=3, recompute_every=1),
}
ALONE = ("data", "cogvideox", "hunyuan")  # what one rank does


def make_step(ranks: Ranks, way: Way) -> TrainStep:
    size = way.sequence_parallel
    family = denoiser_family(way.family)
    network = family.build(
        family.read_config(MODELS[way.family]),
        recompute_every=way.recompute_every,
        sequence=SequenceParallel(ranks, size) if size > 1 else None,
    )
    rng = np.random.default_rng(0)
    network.load_tensors(
        {
            name: 0.2 * rng.standard_normal(values.shape, np.float32)
            for name, values in network.tensors().items()
        }
    )
    if way.zero_stage == 3:
        shard_linear_maps(network, ranks)
    step = TrainStep(FlowLoss(network), SETTINGS, ranks=ranks, zero_stage=way.zero_stage)
    return step.set_train()


def batch_of(number: int, place: Ranks, num_texts: int) -> list[Tensor]:
    """Return a group of ranks' share of a batch; a second text is one token."""
    rng = np.random.default_rng(number)
    shape = (BATCH_SIZE, 4, 3, 8, 4)
    mean, posterior_noise, noise = (rng.standard_normal(shape, np.float32) for _ in range(3))
    std = np.full(shape, 0.1, np.float32)
    t = rng.uniform(size=BATCH_SIZE).astype(np.float32)
    text = rng.standard_normal((BATCH_SIZE, 6, 10), np.float32)
    mask = np.arange(6) < rng.integers(1, 7, (BATCH_SIZE, 1))
    texts = (text, mask, text[:, :1], mask[:, :1])[: 2 * num_texts]
    whole = (mean, std, posterior_noise, noise, t, *texts)
    return [Tensor(np.ascontiguousarray(x[place.rank :: place.size])) for x in whole]


def run(ranks: Ranks, folder: Path, name: str) -> None:
    """Train in one way; save losses and gradient norms, weights, averages and moments."""
    way = WAYS[name]
    step = make_step(ranks, way)
    place = data_ranks(ranks, way.sequence_parallel)
    num_texts = len(MODELS[way.family]["text_encoders"])
    log = []
    for number in range(NUM_UPDATES):
        scalars = (Tensor(value, ms.float32) for value in (LR, 1.0, 3e38))
        loss, _, norm, _ = step(*scalars, True, *batch_of(number, place, num_texts))
        log.append([float(loss.asnumpy()), float(norm.asnumpy())])
    state = step.state()
    moments = (*adamw(step).first_moment, *adamw(step).second_moment)
    weights = {p.name: whole_values(p) for p in step.parameters}
    facts = {
        "log": log,
        "num_moments": sum(p.size for p in moments),
        "num_weights": sum(p.size for p in step.parameters),
    }
    (folder / f"{name}_{ranks.rank}.json").write_text(json.dumps(facts))
    np.savez(folder / f"{name}_{ranks.rank}.npz", **weights, **state)


def adamw(step: TrainStep):
    """Return the cell that holds the moments."""
    return getattr(step.optimizer, "optimizer", step.optimizer)


def main(folder: Path) -> None:
    setup_device(DeviceConfig(device="CPU"))
    ranks = init_ranks()
    for name in (name for name in WAYS if name not in ALONE):
        run(ranks, folder, name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
