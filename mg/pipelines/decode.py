"""Latent files to video files."""

import collections
import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mg.console import one_line
from mg.data.latent_files import LatentInfo, list_latent_files, read_latent, read_latent_info
from mg.data.transforms import from_model_range
from mg.data.video_writer import VideoWriter
from mg.device import compiles_graphs
from mg.models.autoencoder import Autoencoder
from mg.parallel.ranks import ONE_RANK, Ranks
from mg.parallel.work import map_over_ranks, share_files
from mg.pipelines.autoencoder import (
    check_latent_config,
    config_hash,
    framewise_settings,
    weights_hash,
)
from mg.pipelines.outcome import Outcome
from mg.pipelines.output_paths import output_paths
from mg.pipelines.output_record import input_state, is_finished, mark_begun, mark_finished
from mg.pipelines.streaming import decode_latents
from mg.progress import ProgressBar
from mg.tiling.tiles import decoder_tile

__all__ = ["DEFAULT_FPS", "decode_latent_files"]

logger = logging.getLogger("mg")

DEFAULT_FPS = 24.0  # of videos whose source has no frame rate, such as images


def decode_latent_files(
    autoencoder: Autoencoder,
    source: str | os.PathLike,
    output_folder: str | os.PathLike,
    *,
    memory_budget_gb: float | None = None,
    overwrite: bool = False,
    ranks: Ranks = ONE_RANK,
    on_begin: Callable[[], None] | None = None,
) -> Outcome:
    """Return what became of each latent; `a/b.safetensors` becomes `OUTPUT_FOLDER/a/b.mp4`.

    The posterior's mean is decoded, in constant memory for any length. Beside `b.mp4` a `b.json`
    says what it was made from. A video that exists and was made from the same latent (by size and
    time of the file), with the same weights and settings, is left as it is.

    Args:
        autoencoder: its tiling is used; frames are cut into tiles with its `use_tile`.
        source: a latent file, or a folder of them.
        output_folder: made if missing.
        memory_budget_gb: choose the tiles for each latent so that this is enough.
        overwrite: whether existing videos are replaced.
        ranks: share the latents, or where there are fewer of them than ranks, the tiles of each.
        on_begin: called once nothing more can be refused, before the first output is made.

    Raises:
        FileNotFoundError: no latent there.
        FileExistsError: a video without its `.json` is there.
        ValueError: no latent could be decoded; an output would lie outside `output_folder`, or is
            there already, made from something else (before anything is decoded).
    """
    files = list_latent_files(source)
    paths = output_paths(files, output_folder, ".mp4")
    names, team = share_files(list(files), ranks)
    map_tiles = functools.partial(map_over_ranks, ranks=team)
    outcome = Outcome()
    origins = _describe_all(
        autoencoder, {name: files[name] for name in names}, memory_budget_gb, outcome
    )
    if not overwrite:
        outcome.finished_before += [
            n for n, origin in origins.items() if is_finished(paths[n], origin)
        ]
    finished = set(outcome.finished_before)
    if on_begin is not None:
        on_begin()
    compiles = "the decoder" if compiles_graphs() else None
    for name in [name for name in origins if name not in finished]:
        autoencoder.tiling = dataclasses.replace(
            autoencoder.tiling, **origins[name]["settings"]["tiling"]
        )
        try:
            latent = read_latent(files[name])
            pieces = _pieces(autoencoder, latent.mean)
            video = decode_latents(
                autoencoder,
                pieces,
                latent.info.num_frames,
                num_latents=latent.mean.shape[1],
                map_tiles=map_tiles,
            )
            if team.is_main:
                mark_begun(paths[name], origins[name])
                _write_video(video, latent.info, paths[name], compiles=compiles)
                compiles = None
                mark_finished(paths[name], origins[name])
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


def _describe_all(
    autoencoder: Autoencoder,
    files: Mapping[str, Path],
    memory_budget_gb: float | None,
    outcome: Outcome,
) -> dict[str, dict[str, Any]]:
    """Return what each video will be made from; latents that cannot be used have failed."""
    own_weights = weights_hash(autoencoder)
    origins = {}
    for name, path in files.items():
        try:
            info = read_latent_info(path)
            check_latent_config(path, info, autoencoder.config, family=autoencoder.family)
            tiling = autoencoder.tiling
            if memory_budget_gb is not None:
                size = (info.height, info.width)
                tiling = autoencoder.tiling_within(memory_budget_gb, *size)
            source = input_state(path)
        except (ValueError, OSError) as error:
            outcome.failed[name] = str(error)
            continue
        if info.weights_hash != own_weights:
            logger.warning(
                "%s was encoded with other weights; the result is only right if they share the "
                "encoder",
                name,
            )
        sizes = dataclasses.asdict(tiling)
        if not autoencoder.use_tile:
            sizes = {key: sizes[key] for key in ("frames", "overlap_frames")}
        origins[name] = {
            "source": name,
            "input": source,
            "weights_hash": own_weights,
            "config_hash": config_hash(autoencoder.config),
            "settings": {
                "tiling": sizes,
                "decode_dtype": str(autoencoder.decode_dtype),
                **framewise_settings(autoencoder),
            },
        }
    return origins


def _write_video(
    video: Iterator[np.ndarray], info: LatentInfo, path: Path, *, compiles: str | None
) -> None:
    """Write a video that comes in pieces, float32 (3, t, H, W).

    Args:
        compiles: what the first piece compiles; None: nothing.
    """
    with (
        VideoWriter(path, fps=info.fps or DEFAULT_FPS, overwrite=True) as writer,
        ProgressBar(
            info.num_frames, one_line(path.name), unit="frame", leave=False, compiles=compiles
        ) as progress,
    ):
        for piece in video:
            writer.write(from_model_range(piece))
            progress.update(piece.shape[1])


def _pieces(autoencoder: Autoencoder, mean: np.ndarray) -> Iterator[np.ndarray]:
    """Yield a mapped latent (C, T', H', W') in pieces, so that it never is in memory as a whole."""
    step = decoder_tile(autoencoder.tiling, autoencoder.spec).length
    for start in range(0, mean.shape[1], step):
        yield np.array(mean[:, start : start + step])
