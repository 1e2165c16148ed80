"""Video files to latent files."""

import collections
import dataclasses
import functools
import itertools
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mg.data.buckets import Bucket, bucket_of_video
from mg.data.latent_files import (
    LATENT_SUFFIXES,
    LatentInfo,
    LatentWriter,
    read_latent_info,
)
from mg.data.manifest import Clip, Manifest
from mg.data.media_rules import READING_VERSION
from mg.models.tae.tae import TemporalAutoencoder
from mg.models.tae.tiling import Tiling
from mg.parallel.ranks import ONE_RANK, Ranks
from mg.parallel.work import map_over_ranks, share_files
from mg.pipelines.autoencoder import config_hash, weights_hash
from mg.pipelines.outcome import Outcome
from mg.pipelines.output_paths import output_paths
from mg.pipelines.streaming import encode_frames, read_frames

__all__ = ["encode_videos", "frame_size"]

logger = logging.getLogger("mg")

RESIZE = "resize"  # in the settings of a latent whose frames were not only cropped


def encode_videos(
    tae: TemporalAutoencoder,
    manifest: Manifest,
    output_folder: str | os.PathLike,
    *,
    image_size: int | tuple[int, int] | None = None,
    buckets: Sequence[Bucket] | None = None,
    suffix: str = ".safetensors",
    memory_budget_gb: float | None = None,
    overwrite: bool = False,
    ranks: Ranks = ONE_RANK,
) -> Outcome:
    """Return what became of each clip; the latent of `a/b.mp4` is `OUTPUT_FOLDER/a/b.SUFFIX`.

    Any length is encoded in constant memory. A latent that exists and was made from the same video
    in the same way is left as it is, so a run that was stopped can be started again.

    Args:
        tae: its tiling is used; frames are cut into tiles with its `use_tile`.
        manifest: the videos.
        output_folder: made if missing.
        image_size: side of a square, or (height, width), that frames are scaled to cover and
            cropped to; None keeps their size, cropped to multiples of the spatial compression.
        buckets: instead of `image_size`, sizes in frames and pixels of the video: each clip goes
            into the longest that it fills and, of several, the one of the nearest aspect ratio;
            its first frames are scaled to cover that size and cropped to it. Clips that fill none
            are left out.
        suffix: ".safetensors" or ".npz".
        memory_budget_gb: choose the tiles for each video so that this is enough.
        overwrite: make all latents again and replace existing ones.
        ranks: share the videos, or where there are fewer of them than ranks, the tiles of each.

    Raises:
        ValueError: no video could be encoded, `image_size`, `buckets` or `suffix` is wrong, or an
            output would lie outside `output_folder`.
    """
    if suffix not in LATENT_SUFFIXES:
        raise ValueError(f"format {suffix!r}; expected one of {', '.join(LATENT_SUFFIXES)}")
    _check_sizes(tae, image_size, buckets)
    clips = {clip.name: clip for clip in manifest.clips}  # a table may name a video twice
    paths = output_paths(clips, output_folder, suffix)
    outcome = Outcome(failed={entry.name: entry.reason for entry in manifest.rejected})
    infos = _describe_all(tae, clips.values(), image_size, buckets, outcome)
    names, team = share_files(list(infos), ranks)
    map_tiles = functools.partial(map_over_ranks, ranks=team)
    total = sum(infos[name].num_frames for name in names)
    with tqdm(total=total, desc="encoding", unit="frame", disable=None) as progress:
        for name in names:
            info = infos[name]
            size = info.height, info.width
            try:
                if memory_budget_gb is not None:
                    tae.tiling = Tiling.auto(tae.config, *size, memory_budget_gb=memory_budget_gb)
                info = dataclasses.replace(info, settings=info.settings | _precision(tae))
                if not overwrite and _is_finished(paths[name], info):
                    outcome.finished_before.append(name)
                    continue
                frames = read_frames(clips[name], size, rescale=RESIZE in info.settings)
                if buckets is not None:
                    frames = itertools.islice(frames, info.num_frames)
                latents = encode_frames(tae, _counted(frames, progress), map_tiles=map_tiles)
                if team.is_main:
                    with LatentWriter(paths[name], info, overwrite=overwrite) as writer:
                        for mean, logvar in latents:
                            writer.write(mean, logvar)
                else:
                    collections.deque(latents, maxlen=0)  # compute this rank's tiles
                outcome.done.append(name)
            except ValueError as error:
                if team.size > 1:  # the other ranks wait for this one's tiles
                    raise
                outcome.failed[name] = str(error)
    outcome = outcome.of_all(ranks)
    logger.info(outcome.summary("encoded"))
    outcome.refuse_total_failure()
    return outcome


def _check_sizes(
    tae: TemporalAutoencoder,
    image_size: int | tuple[int, int] | None,
    buckets: Sequence[Bucket] | None,
) -> None:
    """Raise ValueError for sizes that the network cannot take."""
    if image_size is not None and buckets is not None:
        raise ValueError("give either image_size or buckets: a bucket has a size of its own")
    if image_size is not None:
        tae.check_video_shape((1, 3, 1, *_height_width(image_size)))
    for bucket in buckets or ():
        try:
            tae.check_video_shape((1, 3, bucket.num_frames, bucket.height, bucket.width))
        except ValueError as error:
            raise ValueError(f"bucket {bucket}: {error}") from error


def _describe_all(
    tae: TemporalAutoencoder,
    clips: Iterable[Clip],
    image_size: int | tuple[int, int] | None,
    buckets: Sequence[Bucket] | None,
    outcome: Outcome,
) -> dict[str, LatentInfo]:
    """Return what each latent will be, but for the precision; what fits no size has failed."""
    config, made_with = tae.config, weights_hash(tae)
    is_rescaled = image_size is not None or buckets is not None
    infos = {}
    for clip in clips:
        try:
            if buckets is None:
                height, width = frame_size(clip, image_size, config.spatial_compression)
                size = Bucket(clip.num_frames, height, width)
            else:
                size = bucket_of_video(Bucket(clip.num_frames, clip.height, clip.width), buckets)
        except ValueError as error:
            outcome.failed[clip.name] = str(error)
            continue
        infos[clip.name] = LatentInfo(
            num_frames=size.num_frames,
            height=size.height,
            width=size.width,
            fps=clip.fps,
            source=clip.name,
            config=config.to_dict(),
            config_hash=config_hash(config),
            weights_hash=made_with,
            settings=_reading_of(clip) | ({RESIZE: "cover"} if is_rescaled else {}),
        )
    return infos


def _reading_of(clip: Clip) -> dict[str, Any]:
    """Return what decides how a video becomes frames."""
    return {"reading": READING_VERSION, "square_pixels": clip.reading.square_pixels}


def frame_size(
    clip: Clip, image_size: int | tuple[int, int] | None, factor: int
) -> tuple[int, int]:
    """Return the (height, width) that the frames of a clip get, multiples of `factor`.

    Raises:
        ValueError: the clip is smaller than `factor`.
    """
    if image_size is not None:
        return _height_width(image_size)
    size = clip.height // factor * factor, clip.width // factor * factor
    if not all(size):
        raise ValueError(
            f"{clip.width}x{clip.height} pixels are too few; at least {factor}x{factor} are "
            "needed, or an image_size to scale to"
        )
    if size != (clip.height, clip.width):
        logger.info(
            "%s: %dx%d is cropped to %dx%d, multiples of %d",
            clip.name,
            clip.width,
            clip.height,
            size[1],
            size[0],
            factor,
        )
    return size


def _height_width(image_size: int | tuple[int, int]) -> tuple[int, int]:
    return (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)


def _precision(tae: TemporalAutoencoder) -> dict[str, Any]:
    """Return what else decides the numbers of a latent."""
    tiling = dataclasses.asdict(tae.tiling)
    if not tae.use_tile:
        tiling = {"frames": tiling["frames"]}
    return {"tiling": tiling, "encode_dtype": str(tae.encode_dtype)}


def _is_finished(path: Path, info: LatentInfo) -> bool:
    """Return whether the latent is there, made from the same video in the same way.

    Raises:
        ValueError: a file is there that is something else.
    """
    if not path.exists():
        return False
    found = read_latent_info(path)
    if found == info:
        return True
    names = [f.name for f in dataclasses.fields(info) if _differs(f.name, found, info)]
    raise ValueError(
        f"{path} exists, but was made with other settings ({', '.join(names)}); choose another "
        "output_path, or --overwrite"
    )


def _differs(name: str, found: LatentInfo, info: LatentInfo) -> bool:
    return getattr(found, name) != getattr(info, name)


def _counted(frames: Iterator[np.ndarray], progress: tqdm) -> Iterator[np.ndarray]:
    for frame in frames:
        progress.update()
        yield frame
