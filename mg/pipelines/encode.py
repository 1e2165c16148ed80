"""Video files to latent files."""

import collections
import dataclasses
import functools
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mg.data.buckets import Bucket, bucket_of_video
from mg.data.latent_files import (
    LATENT_SUFFIXES,
    LatentInfo,
    LatentWriter,
    read_latent_info,
)
from mg.data.manifest import Clip, Manifest
from mg.data.transforms import check_image_size, height_width
from mg.device import announce_compilation
from mg.latent_spec import LatentSpec
from mg.models.autoencoder import Autoencoder
from mg.parallel.ranks import ONE_RANK, Ranks
from mg.parallel.work import map_over_ranks, share_files
from mg.pipelines.autoencoder import config_hash, framewise_settings, weights_hash
from mg.pipelines.outcome import Outcome
from mg.pipelines.output_paths import output_paths
from mg.pipelines.output_record import clip_state, refuse_others
from mg.pipelines.streaming import encode_frames, read_frames
from mg.progress import ProgressBar

__all__ = ["encode_videos", "frame_size"]

logger = logging.getLogger("mg")

RESIZE = "resize"  # in the settings of a latent whose frames were not only cropped


def encode_videos(
    autoencoder: Autoencoder,
    manifest: Manifest,
    output_folder: str | os.PathLike,
    *,
    image_size: int | tuple[int, int] | None = None,
    buckets: Sequence[Bucket] | None = None,
    max_frames: int | None = None,
    suffix: str = ".safetensors",
    memory_budget_gb: float | None = None,
    overwrite: bool = False,
    ranks: Ranks = ONE_RANK,
    on_begin: Callable[[], None] | None = None,
) -> Outcome:
    """Return what became of each clip; the latent of `a/b.mp4` is `OUTPUT_FOLDER/a/b.SUFFIX`.

    Any length is encoded in constant memory. A latent that exists and was made from the same video
    (by size and time of the file), with the same weights and settings, is left as it is, so a run
    that was stopped can be started again.

    Args:
        autoencoder: its tiling is used; frames are cut into tiles with its `use_tile`.
        manifest: the videos.
        output_folder: made if missing.
        image_size: side of a square, or (height, width), that frames are scaled to cover and
            cropped to; None keeps their size, cropped to multiples of the spatial compression.
        buckets: instead of `image_size`, sizes in frames and pixels of the video: each clip goes
            into the longest that it fills and, of several, the one of the nearest aspect ratio;
            its first frames are scaled to cover that size and cropped to it. Clips that fill none
            are left out.
        max_frames: encode only the first so many frames of each clip; None encodes all.
        suffix: ".safetensors" or ".npz".
        memory_budget_gb: choose the tiles for each video so that this is enough.
        overwrite: make all latents again and replace existing ones.
        ranks: share the videos, or where there are fewer of them than ranks, the tiles of each.
        on_begin: called once nothing more can be refused, before the first output is made.

    Raises:
        ValueError: no video could be encoded; `image_size`, `buckets` or `suffix` is wrong; an
            output would lie outside `output_folder`, or is there already, made from something else
            (before anything is encoded).
    """
    if suffix not in LATENT_SUFFIXES:
        raise ValueError(f"format {suffix!r}; expected one of {', '.join(LATENT_SUFFIXES)}")
    _check_sizes(autoencoder, image_size, buckets)
    clips = {clip.name: clip for clip in manifest.clips}  # a table may name a video twice
    paths = output_paths(clips, output_folder, suffix)
    outcome = Outcome(failed={entry.name: entry.reason for entry in manifest.rejected})
    if max_frames is not None:
        clips = {name: _shortened(clip, max_frames) for name, clip in clips.items()}
    infos = _describe_all(
        autoencoder, clips.values(), image_size, buckets, memory_budget_gb, outcome
    )
    names, team = share_files(list(infos), ranks)
    if not overwrite:
        outcome.finished_before += [
            name for name in names if _is_finished(paths[name], infos[name])
        ]
    finished = set(outcome.finished_before)
    todo = [name for name in names if name not in finished]
    if on_begin is not None:
        on_begin()
    map_tiles = functools.partial(map_over_ranks, ranks=team)
    total = sum(infos[name].num_frames for name in todo)
    announce_compilation("the encoder", todo)
    with ProgressBar(total, "encoding", unit="frame") as progress:
        for name in todo:
            info = infos[name]
            size = info.height, info.width
            sizes = info.settings["tiling"]
            autoencoder.tiling = dataclasses.replace(autoencoder.tiling, **sizes)
            try:
                frames = read_frames(clips[name], size, rescale=RESIZE in info.settings)
                if buckets is not None or max_frames is not None:
                    frames = itertools.islice(frames, info.num_frames)
                latents = encode_frames(
                    autoencoder, _counted(frames, progress), map_tiles=map_tiles
                )
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


def _shortened(clip: Clip, max_frames: int) -> Clip:
    return dataclasses.replace(clip, num_frames=min(clip.num_frames, max_frames))


def _check_sizes(
    autoencoder: Autoencoder,
    image_size: int | tuple[int, int] | None,
    buckets: Sequence[Bucket] | None,
) -> None:
    """Raise ValueError for sizes that the network cannot take."""
    if image_size is not None and buckets is not None:
        raise ValueError("give either image_size or buckets: a bucket has a size of its own")
    if image_size is not None:
        check_image_size("image_size", image_size)
        autoencoder.check_video_shape((1, 3, 1, *height_width(image_size)))
    for bucket in buckets or ():
        try:
            check_image_size("size", (bucket.height, bucket.width))
            autoencoder.check_video_shape((1, 3, bucket.num_frames, bucket.height, bucket.width))
        except ValueError as error:
            raise ValueError(f"bucket {bucket}: {error}") from error


def _describe_all(
    autoencoder: Autoencoder,
    clips: Iterable[Clip],
    image_size: int | tuple[int, int] | None,
    buckets: Sequence[Bucket] | None,
    memory_budget_gb: float | None,
    outcome: Outcome,
) -> dict[str, LatentInfo]:
    """Return what each latent will be; what fits no size, or is gone by now, has failed."""
    config, made_with = autoencoder.config, weights_hash(autoencoder)
    is_rescaled = image_size is not None or buckets is not None
    infos = {}
    for clip in clips:
        try:
            if buckets is None:
                height, width = frame_size(clip, image_size, autoencoder.spec)
                size = Bucket(clip.num_frames, height, width)
            else:
                size = bucket_of_video(Bucket(clip.num_frames, clip.height, clip.width), buckets)
            settings = {RESIZE: "cover"} if is_rescaled else {}
            settings |= _settings(autoencoder, size, memory_budget_gb)
            settings |= framewise_settings(autoencoder)
            settings["input"] = clip_state(clip)
        except (ValueError, OSError) as error:
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
            settings=settings,
            family=autoencoder.family,
            spec=autoencoder.spec.to_dict(),
        )
    return infos


def frame_size(
    clip: Clip, image_size: int | tuple[int, int] | None, spec: LatentSpec
) -> tuple[int, int]:
    """Return the (height, width) that the frames of a clip get, multiples of the compression.

    Args:
        clip: the video.
        image_size: side of a square, or (height, width); None keeps the clip's, cropped.
        spec: the autoencoder's latents.

    Raises:
        ValueError: the clip is smaller than one pixel of the latent.
    """
    if image_size is not None:
        return height_width(image_size)
    size = clip.height // spec.h * spec.h, clip.width // spec.w * spec.w
    if not all(size):
        raise ValueError(
            f"{clip.width}x{clip.height} pixels are too few; at least {spec.w}x{spec.h} are "
            "needed, or an image_size to scale to"
        )
    if size != (clip.height, clip.width):
        logger.info(
            "%s: %dx%d is cropped to %dx%d, multiples of %dx%d",
            clip.name,
            clip.width,
            clip.height,
            size[1],
            size[0],
            spec.w,
            spec.h,
        )
    return size


def _settings(
    autoencoder: Autoencoder, size: Bucket, memory_budget_gb: float | None
) -> dict[str, Any]:
    """Return what else decides the numbers of a latent: tiles and precision."""
    tiling = autoencoder.tiling
    if memory_budget_gb is not None:
        tiling = autoencoder.tiling_within(memory_budget_gb, size.height, size.width)
    sizes = dataclasses.asdict(tiling) if autoencoder.use_tile else {"frames": tiling.frames}
    return {"tiling": sizes, "encode_dtype": str(autoencoder.encode_dtype)}


def _is_finished(path: Path, info: LatentInfo) -> bool:
    """Return whether the latent is there, made from the same video in the same way.

    Raises:
        ValueError: a file is there that is something else, or is damaged.
    """
    if not path.exists():
        return False
    found = read_latent_info(path)
    refuse_others(path, dataclasses.asdict(found), dataclasses.asdict(info))
    return True


def _counted(frames: Iterator[np.ndarray], progress: ProgressBar) -> Iterator[np.ndarray]:
    for frame in frames:
        progress.update()
        yield frame
