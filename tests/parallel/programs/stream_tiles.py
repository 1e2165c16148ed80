"""Networks that look back only, streamed in tiles that ranks share; results go to FOLDER.

    msrun ... python stream_tiles.py FOLDER VIDEO

`stream` is a function of `ranks`, so that a test calls it with one rank for comparison.
"""

import functools
import json
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor

from mg.data.manifest import build_manifest
from mg.device import DeviceConfig, setup_device
from mg.models.families import autoencoder_family
from mg.parallel.ranks import Ranks, init_ranks
from mg.parallel.work import map_over_ranks
from mg.pipelines.decode import decode_latent_files
from mg.pipelines.encode import encode_videos
from mg.pipelines.reconstruct import reconstruct_videos
from mg.pipelines.reconstruction_settings import ReconstructionSettings
from mg.tiling.sizes import Tiling
from tests.tiny import AUTOENCODERS as TINY

# Wan with two levels, so that both halve and double time.
NETWORKS = {
    "wan": {**TINY["wan"], "dim_mult": [1, 2, 2], "temperal_downsample": [True, True]},
    "cogvideox": TINY["cogvideox"],
}
HEIGHT, WIDTH, NUM_TILES, NUM_FRAMES = 16, 56, 3, 17
TILING = Tiling(frames=8, overlap_frames=0, height=16, width=24, overlap_pixels=8)
PIECES = ("encode_piece", "decode_piece")


def counted(network, calls: dict[str, int]) -> None:
    """Count in `calls` how many pieces of tiles this process codes."""

    def count(name, piece, values, past=()):
        calls[name] += 1
        return piece(values, past)

    for name in PIECES:
        setattr(network, name, functools.partial(count, name, getattr(network, name)))


def stream(ranks: Ranks, folder: Path, video: Path) -> None:
    """Encode, decode and reconstruct one video file, and code a tensor, tile by tile."""
    for family, fields in NETWORKS.items():
        record = autoencoder_family(family)
        ms.set_seed(0)
        network = record.build(record.read_config(fields)).set_train(False)
        network.use_tile, network.tiling, network.sample_deterministic = True, TILING, True
        calls = dict.fromkeys(PIECES, 0)
        counted(network, calls)
        manifest, output = build_manifest(video_folder=video), folder / family
        encode_videos(network, manifest, output / "latents", ranks=ranks)
        ranks.barrier()  # the latent is there before it is listed
        decode_latent_files(network, output / "latents", output / "videos", ranks=ranks)
        files = dict(calls)
        settings = ReconstructionSettings(num_frames=0, image_size=None, side_by_side=False)
        report = reconstruct_videos(network, manifest, output / "again", settings, ranks=ranks)
        both = {name: calls[name] - files[name] for name in PIECES}

        network.map_tiles = functools.partial(map_over_ranks, ranks=ranks)
        shape = (1, 3, NUM_FRAMES, HEIGHT, WIDTH)
        clip = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
        mean, logvar = network.posterior(Tensor(clip))
        values = {"mean": mean, "logvar": logvar, "video": network.decode(mean)}
        np.savez(output / f"{ranks.rank}.npz", **{k: v.asnumpy() for k, v in values.items()})
        facts = {"files": files, "both": both, "report": json.loads(report.to_json())}
        (output / f"{ranks.rank}.json").write_text(json.dumps(facts))


def main(folder: Path, video: Path) -> None:
    setup_device(DeviceConfig(device="CPU", mode="pynative"))
    stream(init_ranks(), folder, video)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
