"""Which latents a training run may use: the files of a cache joined with the captions."""

import collections
import logging
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mg.data.buckets import Bucket, bucket_of_latent
from mg.data.captions import CaptionTable
from mg.data.latent_files import LatentInfo, list_latent_files, read_latent_info
from mg.data.manifest import Rejected
from mg.data.media_rules import PREPARED_SUFFIX
from mg.data.table_names import composed, hint_of_name
from mg.latent_spec import LatentSpec
from mg.progress import with_progress

__all__ = ["LatentClip", "LatentManifest", "build_latent_manifest"]

logger = logging.getLogger("mg")

NO_LATENTS = LatentSpec(1, 1, 1, 1)  # of a manifest that is refused for having none
# Sizes that a cache may have when no buckets are given; each one means a compiled graph.
MAX_SIZES_FOUND = 16
PIECE_SUFFIX = re.compile(rf"\.\d{{4}}{re.escape(PREPARED_SUFFIX)}$")  # of `prepare_clips`


@dataclass(frozen=True)
class LatentClip:
    """One usable latent.

    Attributes:
        path: of the latent file.
        name: of the video it was made from, relative to the folder of the data.
        captions: what the video shows, one text or several for the same.
        fps: frames per second of the video; 0 where none is known.
        bucket: frames, height and width that are used of the latent.
        source: latent file of the video that it is an edit of, of the same bucket; None for none.
        first_frame: latent file of its first frame alone; None where that is not asked for.
    """

    path: Path
    name: str
    captions: tuple[str, ...]
    fps: float
    bucket: Bucket
    source: Path | None = None
    first_frame: Path | None = None


@dataclass(frozen=True)
class LatentManifest:
    """The usable latents, sorted by name, what was left out, and what made them all.

    Attributes:
        clips: the usable latents.
        rejected: latents and captions that are left out, and why.
        weights_hash: SHA-256 of the autoencoder's parameters (see `mg.pipelines.autoencoder`).
        config: the autoencoder's config as a mapping.
        spec: size and scale of its latents.
    """

    clips: tuple[LatentClip, ...]
    rejected: tuple[Rejected, ...]
    weights_hash: str
    config: Mapping[str, Any]
    spec: LatentSpec

    def buckets(self) -> dict[Bucket, tuple[LatentClip, ...]]:
        """Return the clips of each bucket that has any, smallest bucket first."""
        clips = collections.defaultdict(list)
        for clip in self.clips:
            clips[clip.bucket].append(clip)
        return {bucket: tuple(clips[bucket]) for bucket in sorted(clips)}

    def with_captions(self, text_of: Callable[[str, LatentClip], str]) -> "LatentManifest":
        """Return the same latents with other texts, such as with the frame rate in front.

        Args:
            text_of: of a caption and its clip.
        """
        clips = (
            replace(clip, captions=tuple(text_of(caption, clip) for caption in clip.captions))
            for clip in self.clips
        )
        return replace(self, clips=tuple(clips))

    def rejected_table(self) -> str:
        """Return one line per file or caption that is left out, with the reason."""
        width = max((len(entry.name) for entry in self.rejected), default=0)
        return "\n".join(f"{entry.name:<{width}}  {entry.reason}" for entry in self.rejected)


def build_latent_manifest(
    folder: str | os.PathLike,
    captions: CaptionTable,
    *,
    buckets: Iterable[Bucket] | None = None,
    weights_hash: str | None = None,
    first_frame_folder: str | os.PathLike | None = None,
) -> LatentManifest:
    """Return the latents of a folder that `mg encode` has filled, with their captions.

    Args:
        folder: of the latent files.
        captions: of the videos, by their names. A name may lack its suffix; for a piece of a video
            that `prepare_clips` has cut, the captions of the video count.
        buckets: in latent frames and pixels. A longer latent is cut to the first frames, as many
            as the bucket has. None: a bucket of each size that is there.
        weights_hash: what the latents must have been made with; None: whatever made all of them.
        first_frame_folder: of the latents of the first frames, under the names of the videos;
            clips without one are left out. None: they are not needed.

    A video that the table calls an edit of several sources is one clip with each of them.

    Raises:
        FileNotFoundError: no such folder, or no latent in it.
        ValueError: the cache is stale (made with other weights) or mixed, or no latent is usable.
    """
    files = list_latent_files(folder)
    infos, rejected = _read_infos(files)
    _check_one_source(infos, files, weights_hash)
    given = sorted(buckets or ())
    clips, unusable = _join(infos, files, captions, given or sorted(_sizes(infos.values())))
    made_by = next(iter(infos.values()), None)
    if first_frame_folder is not None and made_by is not None:
        clips, without = _with_first_frames(clips, first_frame_folder, made_by)
        unusable += without
    manifest = LatentManifest(
        tuple(sorted(clips, key=lambda clip: (clip.name, str(clip.source or "")))),
        (*rejected, *unusable),
        made_by.weights_hash if made_by else "",
        made_by.config if made_by else {},
        made_by.latent_spec if made_by else NO_LATENTS,
    )
    if not clips:
        raise ValueError(f"no usable latent in {folder}:\n{manifest.rejected_table()}")
    unfilled = [str(bucket) for bucket in given if bucket not in manifest.buckets()]
    if unfilled:
        logger.warning("No latent for the buckets %s.", ", ".join(unfilled))
    return manifest


def _join(
    infos: Mapping[str, LatentInfo],
    files: Mapping[str, Path],
    table: CaptionTable,
    buckets: Sequence[Bucket],
) -> tuple[list[LatentClip], list[Rejected]]:
    """Return the latents that have a caption and a bucket, and files and captions left over."""
    captions = collections.defaultdict(lambda: collections.defaultdict(list))
    for video in table.videos:
        captions[_normal(video.name)][video.source].append(video.caption)
    by_name = {name: file for file, info in infos.items() for name in reversed(_names(info.source))}
    clips, seen, rejected = [], {}, []
    for file_name, info in infos.items():
        name = info.source
        known_as = next((other for other in _names(name) if other in captions), None)
        try:
            if name in seen:
                raise ValueError(f"{seen[name].name} is a latent of the same video")
            if known_as is None:
                raise ValueError("no caption")
            bucket = bucket_of_latent(_size(info), buckets)
        except ValueError as error:
            rejected.append(Rejected(file_name, str(error)))
            continue
        seen[name] = files[file_name]
        clip = LatentClip(files[file_name], name, (), info.fps, bucket)
        for source, texts in captions[known_as].items():
            try:
                file = _source_file(source, info, infos, by_name)
            except ValueError as error:
                rejected.append(Rejected(file_name, str(error)))
                continue
            path = None if file is None else files[file]
            clips.append(replace(clip, captions=tuple(texts), source=path))
    with_latent = {name for info in infos.values() for name in _names(info.source)}
    reasons = {name: f"no latent{hint_of_name(name)}" for name in captions}
    reasons |= {_normal(name): "no caption" for name in table.without_caption}
    rejected += [Rejected(name, why) for name, why in reasons.items() if name not in with_latent]
    return clips, rejected


def _source_file(
    source: str | None,
    info: LatentInfo,
    infos: Mapping[str, LatentInfo],
    by_name: Mapping[str, str],
) -> str | None:
    """Return the latent file of a clip's source, by the name that a table gives it.

    Raises:
        ValueError: there is none, or it is of another length or size than the clip's.
    """
    if source is None:
        return None
    file = by_name.get(_normal(source))
    if file is None:
        raise ValueError(f"its source {source} has no latent{hint_of_name(source)}")
    if _size(infos[file]) != _size(info):
        raise ValueError(
            f"its source {source} is {_size(infos[file])} (latent frames x height x width), "
            f"and it is {_size(info)}; an edit has the length and the size of its source"
        )
    return file


def _with_first_frames(
    clips: Sequence[LatentClip], folder: str | os.PathLike, made_by: LatentInfo
) -> tuple[list[LatentClip], list[Rejected]]:
    """Return the clips with the latents of their first frames, and those that have none."""
    files = list_latent_files(folder)
    infos, rejected = _read_infos(files)
    for name, info in infos.items():
        if _made_with(info)["weights_hash"] != made_by.weights_hash:
            raise ValueError(
                f"{files[name]} was encoded with other weights than the videos; encode the first "
                "frames again (scripts/encode.py)"
            )
    by_source = {info.source: name for name, info in infos.items()}
    found = []
    for clip in clips:
        name = by_source.get(clip.name)
        expected = Bucket(1, clip.bucket.height, clip.bucket.width)
        if name is None or _size(infos[name]) != expected:
            is_size = "" if name is None else f" of {expected} latent frames x height x width"
            rejected.append(Rejected(clip.name, f"no latent of its first frame{is_size}"))
        else:
            found.append(replace(clip, first_frame=files[name]))
    return found, rejected


def _names(source: str) -> list[str]:
    """Return by which names a table may know the video that a latent was made from."""
    source = _normal(source)
    names = [source, PIECE_SUFFIX.sub("", source)]  # the video that `prepare_clips` has cut
    return names + [posixpath.splitext(name)[0] for name in names]


def _normal(name: str) -> str:
    """Return a name in the one way in which names are compared."""
    return composed(posixpath.normpath(name))


def _read_infos(files: Mapping[str, Path]) -> tuple[dict[str, LatentInfo], list[Rejected]]:
    """Return what the files say about themselves, and those that cannot be read."""
    infos, rejected = {}, []
    for name, path in with_progress(files.items(), "reading latents", unit="file", leave=False):
        try:
            infos[name] = read_latent_info(path)
        except (OSError, ValueError) as error:
            rejected.append(Rejected(name, f"damaged: {error}"))
    return infos, rejected


def _check_one_source(
    infos: Mapping[str, LatentInfo], files: Mapping[str, Path], weights_hash: str | None
) -> None:
    """Raise ValueError unless all latents were made by one autoencoder, the expected one."""
    first_name, first = next(iter(infos.items()), (None, None))
    for name, info in infos.items():
        if weights_hash is not None and info.weights_hash != weights_hash:
            raise ValueError(
                f"{files[name]} is stale: it was encoded with weights {info.weights_hash[:12]}, "
                f"but {weights_hash[:12]} are in use; encode the videos again with these "
                "(mg encode, to another folder or with --overwrite)"
            )
        differing = [
            key for key, value in _made_with(info).items() if value != _made_with(first)[key]
        ]
        if differing:
            raise ValueError(
                f"{files[name]} and {files[first_name]} were not made in the same way: they "
                f"differ in {', '.join(differing)}; use one folder for each way of encoding"
            )


def _made_with(info: LatentInfo) -> dict[str, Any]:
    """Return what must be the same for all latents of a run. Tiles may differ: they hardly tell."""
    settings = {key: info.settings.get(key) for key in ("encode_dtype", "resize")}
    return {"weights_hash": info.weights_hash, "config_hash": info.config_hash, **settings}


def _size(info: LatentInfo) -> Bucket:
    return Bucket(*info.latent_shape()[1:])


def _sizes(infos: Iterable[LatentInfo]) -> set[Bucket]:
    """Return the sizes that there are, as buckets."""
    sizes = {_size(info) for info in infos}
    if len(sizes) > MAX_SIZES_FOUND:
        shown = ", ".join(map(str, sorted(sizes)[:MAX_SIZES_FOUND]))
        raise ValueError(
            f"the latents have {len(sizes)} different sizes ({shown}, ...), and each would need a "
            "compiled graph; name the buckets to use, or encode with --buckets"
        )
    return sizes
