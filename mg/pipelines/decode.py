"""Latent files to video files."""

import collections
import functools
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mg.data.latent_files import LatentInfo, list_latent_files, read_latent, read_latent_info
from mg.data.transforms import from_model_range
from mg.data.video_writer import VideoWriter
from mg.models.tae.tae import TemporalAutoencoder
from mg.parallel.ranks import ONE_RANK, Ranks
from mg.parallel.work import map_over_ranks, share_files
from mg.pipelines.autoencoder import check_latent_config, weights_hash
from mg.pipelines.outcome import Outcome
from mg.pipelines.output_paths import output_paths
from mg.pipelines.streaming import decode_latents
from mg.tiling.sizes import Tiling

__all__ = ["DEFAULT_FPS", "decode_latent_files"]

logger = logging.getLogger("mg")

DEFAULT_FPS = 24.0  # of videos whose source has no frame rate, such as images


def decode_latent_files(
    tae: TemporalAutoencoder,
    source: str | os.PathLike,
    output_folder: str | os.PathLike,
    *,
    memory_budget_gb: float | None = None,
    overwrite: bool = False,
    ranks: Ranks = ONE_RANK,
) -> Outcome:
    """Return what became of each latent; `a/b.safetensors` becomes `OUTPUT_FOLDER/a/b.mp4`.

    The posterior's mean is decoded, in constant memory for any length. A video that exists is left
    as it is.

    Args:
        tae: its tiling is used; frames are cut into tiles with its `use_tile`.
        source: a latent file, or a folder of them.
        output_folder: made if missing.
        memory_budget_gb: choose the tiles for each latent so that this is enough.
        overwrite: whether existing videos are replaced.
        ranks: share the latents, or where there are fewer of them than ranks, the tiles of each.

    Raises:
        FileNotFoundError: no latent there.
        ValueError: no latent could be decoded, or an output would lie outside `output_folder`.
    """
    files = list_latent_files(source)
    paths = output_paths(files, output_folder, ".mp4")
    names, team = share_files(list(files), ranks)
    map_tiles = functools.partial(map_over_ranks, ranks=team)
    outcome = Outcome()
    own_weights = weights_hash(tae)
    for name in names:
        path = files[name]
        if paths[name].exists() and not overwrite:
            outcome.finished_before.append(name)
            continue
        try:
            check_latent_config(path, read_latent_info(path), tae.config)
            latent = read_latent(path)
            if latent.info.weights_hash != own_weights:
                logger.warning(
                    "%s was encoded with other weights; the result is only right if they share "
                    "the encoder",
                    name,
                )
            if memory_budget_gb is not None:
                size = (latent.info.height, latent.info.width)
                tae.tiling = Tiling.auto(
                    tae.spec, *size, memory_gb=tae.memory_gb, memory_budget_gb=memory_budget_gb
                )
            pieces = _pieces(tae, latent.mean)
            video = decode_latents(tae, pieces, latent.info.num_frames, map_tiles=map_tiles)
            if team.is_main:
                _write_video(video, latent.info, paths[name], overwrite=overwrite)
            else:
                collections.deque(video, maxlen=0)  # compute this rank's tiles
            outcome.done.append(name)
        except ValueError as error:
            if team.size > 1:  # the other ranks wait for this one's tiles
                raise
            outcome.failed[name] = str(error)
    outcome = outcome.of_all(ranks)
    logger.info(outcome.summary("decoded"))
    outcome.refuse_total_failure()
    return outcome


def _write_video(
    video: Iterator[np.ndarray], info: LatentInfo, path: Path, *, overwrite: bool
) -> None:
    """Write a video that comes in pieces, float32 (3, t, H, W)."""
    with (
        VideoWriter(path, fps=info.fps or DEFAULT_FPS, overwrite=overwrite) as writer,
        tqdm(
            total=info.num_frames, desc=path.name, unit="frame", disable=None, leave=False
        ) as progress,
    ):
        for piece in video:
            writer.write(from_model_range(piece))
            progress.update(piece.shape[1])


def _pieces(tae: TemporalAutoencoder, mean: np.ndarray) -> Iterator[np.ndarray]:
    """Yield a mapped latent (C, T', H', W') in pieces, so that it never is in memory as a whole."""
    step = max(1, tae.tiling.frames // tae.config.temporal_compression)
    for start in range(0, mean.shape[1], step):
        yield np.array(mean[:, start : start + step])
