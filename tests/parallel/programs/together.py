"""What several ranks and a single one must do equally; results go to FOLDER.

    msrun ... python together.py FOLDER VIDEOS

Each part is a function of `ranks`, so that a test calls it with one rank for comparison.
"""

import dataclasses
import functools
import json
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mg.data.manifest import build_manifest
from mg.device import DeviceConfig, setup_device
from mg.models.tae.tae import TemporalAutoencoder
from mg.parallel.collectives import broadcast_array
from mg.parallel.ranks import Ranks, init_ranks
from mg.parallel.work import map_over_ranks
from mg.parameters import set_values
from mg.pipelines.decode import decode_latent_files
from mg.pipelines.encode import encode_videos
from mg.pipelines.reconstruct import reconstruct_videos
from mg.pipelines.reconstruction_settings import ReconstructionSettings
from mg.tiling.sizes import Tiling
from mg.training.autoencoder.autoencoder_config import OptimSettings
from mg.training.step import TrainStep
from tests import tiny

BATCH_SIZE, NUM_UPDATES, LR = 4, 3, 0.02
KINDS = {"whole": 0, "zero1": 1, "zero2": 2}  # stages of ZeRO
SETTINGS = OptimSettings(ema_decay=0.9, clip_grad_norm=0.5, weight_decay=0.1, accumulation_steps=2)
TAE = dataclasses.replace(tiny.TAE, z_channels=3, attn_type="spat_only")
TILING = Tiling(frames=8, overlap_frames=4, height=16, width=16, overlap_pixels=8)


class SmallLoss(nn.Cell):
    """Mean squared error of a small convolutional network on (B, 3, 6, 6)."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, has_bias=True)
        self.norm = nn.GroupNorm(4, 8)
        self.middle = nn.Conv2d(8, 8, 3, has_bias=True)
        self.last = nn.Conv2d(8, 3, 1, has_bias=True)
        rng = np.random.default_rng(seed)
        for parameter in self.get_parameters():
            values = rng.standard_normal(parameter.shape, np.float32) * 0.3
            parameter.set_data(Tensor(values))

    def construct(self, x: Tensor, target: Tensor) -> tuple:
        h = ops.tanh(self.norm(self.first(x)))
        error = self.last(h + ops.tanh(self.middle(h))) - target
        return ops.square(error).mean(), (ops.abs(error).mean(),), error


def make_step(ranks: Ranks, *, zero_stage: int) -> TrainStep:
    loss = SmallLoss(seed=ranks.rank)  # other weights on each rank, until they are broadcast
    ranks.barrier()
    for parameter in loss.trainable_params():
        set_values(parameter, broadcast_array(parameter.asnumpy(), ranks))
    return TrainStep(loss, SETTINGS, ranks=ranks, zero_stage=zero_stage).set_train()


def train(step: TrainStep, ranks: Ranks, first: int) -> list[list[float]]:
    """Run some updates from number `first`; return (loss, term, gradient norm) of each."""
    log = []
    for update in range(first, first + NUM_UPDATES):
        rng = np.random.default_rng(update)
        batch = [rng.standard_normal((BATCH_SIZE, 3, 6, 6), np.float32) for _ in range(2)]
        log.append(update_with(step, *(array[ranks.rank :: ranks.size] for array in batch)))
    return log


def update_with(step: TrainStep, x: np.ndarray, target: np.ndarray) -> list[float]:
    """Run one update of two batches; return (loss, term, gradient norm) of the second."""
    scalars = [Tensor(value, ms.float32) for value in (LR, 1.0, 3e38)]
    halves = zip(np.split(x, 2), np.split(target, 2), strict=True)
    for is_last, batch in zip((False, True), halves, strict=True):
        loss, terms, norm, _ = step(*scalars, is_last, *map(Tensor, batch))
    return [float(value.asnumpy()) for value in (loss, *terms, norm)]


def change_by_nan(step: TrainStep, ranks: Ranks) -> float:
    """Return by how much the weights change after a batch that is bad on the last rank only."""
    before = weights(step)
    share = np.ones((BATCH_SIZE // ranks.size, 3, 6, 6), np.float32)
    norm = update_with(step, share, share * (np.nan if ranks.rank == ranks.size - 1 else 1))[-1]
    assert not np.isfinite(norm)
    return max(float(np.abs(value - before[name]).max()) for name, value in weights(step).items())


def weights(step: TrainStep) -> dict[str, np.ndarray]:
    """Return copies of all trained parameters and their averages."""
    parameters = [*step.parameters, *step.average.average]
    return {parameter.name: parameter.asnumpy().copy() for parameter in parameters}


def train_kind(ranks: Ranks, folder: Path, kind: str) -> None:
    """Train, save; go on with a new step cell that has loaded what was saved."""
    step = make_step(ranks, zero_stage=KINDS[kind])
    log = train(step, ranks, 0)
    values = weights(step)
    spread = [float(np.abs(broadcast_array(v, ranks) - v).max()) for v in values.values()]
    facts = {"log": log, "spread": max(spread), "change_by_nan": change_by_nan(step, ranks)}
    if KINDS[kind]:
        adamw = getattr(step.optimizer, "optimizer", step.optimizer)
        facts["num_moments"] = sum(moment.size for moment in adamw.first_moment)
        facts["num_gradients"] = sum(gradient.size for gradient in step.accumulated)
        state = step.optimizer.state()
        if ranks.is_main:
            np.savez(folder / f"{kind}_state.npz", **state)
        ranks.barrier()  # the file is there
        for moment in adamw.first_moment:
            set_values(moment, np.zeros(moment.shape, np.float32))
        step.optimizer.load_state(np.load(folder / f"{kind}_state.npz"))
        train(step, ranks, NUM_UPDATES)
        if ranks.is_main:
            np.savez(folder / f"{kind}_resumed_weights.npz", **weights(step))
    (folder / f"{kind}_{ranks.rank}.json").write_text(json.dumps(facts))
    if ranks.is_main:
        np.savez(folder / f"{kind}_weights.npz", **values)


def stand_in_moments(video: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and logvar of 2x2x2 blocks, minus what a tile shares; nothing to compile."""
    video = video.asnumpy()
    if video.shape[2] % 2:
        video = np.concatenate((video, video[:, :, -1:]), axis=2)
    batch, _, frames, height, width = video.shape
    blocks = video.reshape(batch, 3, frames // 2, 2, height // 2, 2, width // 2, 2)
    mean = blocks.mean(axis=(3, 5, 7))
    mean = mean - 0.1 * mean.mean(axis=(2, 3, 4), keepdims=True)
    return Tensor(mean), Tensor(mean - 1)


def stand_in_frames(z: Tensor) -> Tensor:
    """Return the video of a latent: repeated, plus what a tile shares."""
    video = z.asnumpy()
    video = video + 0.1 * video.mean(axis=(2, 3, 4), keepdims=True)
    for axis in (2, 3, 4):
        video = np.repeat(video, 2, axis=axis)
    return Tensor(np.clip(video, -1, 1))


def infer(ranks: Ranks, folder: Path, videos: Path) -> None:
    """Encode, decode and reconstruct three videos (divided as files) and one (in tiles)."""
    ms.set_seed(0)
    tae = TemporalAutoencoder(TAE, use_tile=True, tiling=TILING, sample_deterministic=True)
    num_calls = {"encode": 0, "decode": 0}

    def counted_moments(video: Tensor) -> tuple[Tensor, Tensor]:
        num_calls["encode"] += 1
        return stand_in_moments(video)

    def counted_frames(z: Tensor, num_frames: int | None = None) -> Tensor:
        num_calls["decode"] += 1
        return stand_in_frames(z)

    tae.moments, tae.frames_from = counted_moments, counted_frames
    facts = {"tiles": {}}
    for name, source in (("three", videos), ("one", videos / "a.mp4")):
        num_calls.update(encode=0, decode=0)
        manifest = build_manifest(video_folder=source)
        encoded = encode_videos(tae, manifest, folder / name / "latents", ranks=ranks)
        ranks.barrier()  # all latents are there before they are listed
        decoded = decode_latent_files(
            tae, folder / name / "latents", folder / name / "videos", ranks=ranks
        )
        facts["tiles"][name] = [num_calls["encode"], num_calls["decode"]]
        facts[name] = [sorted(encoded.done), sorted(decoded.done), sorted(encoded.failed)]
    tae.map_tiles = functools.partial(map_over_ranks, ranks=ranks)
    video = np.random.default_rng(0).uniform(-1, 1, (2, 3, 21, 24, 40)).astype(np.float32)
    z, _, _ = tae.encode(Tensor(video))
    np.savez(folder / f"tiled_{ranks.rank}.npz", z=z.asnumpy(), video=tae.decode(z).asnumpy())
    tae.map_tiles = map
    settings = ReconstructionSettings(num_frames=4, image_size=16)
    manifest = build_manifest(video_folder=videos, min_frames=4)
    reconstruct_videos(tae, manifest, folder / "reconstruction", settings, ranks=ranks)
    (folder / f"infer_{ranks.rank}.json").write_text(json.dumps(facts))


def main(folder: Path, videos: Path) -> None:
    setup_device(DeviceConfig(device="CPU"))
    ranks = init_ranks()
    for kind in KINDS:
        train_kind(ranks, folder, kind)
    infer(ranks, folder, videos)
    facts = {
        "ranks": ranks.gather_json({"rank": ranks.rank, "text": "é" * ranks.rank}),
        "any": [ranks.any(ranks.rank == 1), ranks.any(False)],
    }
    (folder / f"facts_{ranks.rank}.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
