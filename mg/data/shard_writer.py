"""Clips packed into WebDataset shards: each file as it is, its caption beside it."""

import io
import itertools
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from mg.data.manifest import Clip
from mg.data.media_rules import MEDIA_SUFFIXES, PREPARED_SUFFIX, kind_of_file
from mg.data.media_source import media_state, open_media
from mg.data.tar_index import SHARD_SUFFIX
from mg.files import atomic_path, check_writable_folder, remove_abandoned
from mg.progress import ProgressBar

__all__ = ["write_shards"]

PREFIX = "clips"
# Of files that are named otherwise: what they are, their content says.
SUFFIX_OF_KIND = {"video": ".mp4", "image": ".png", "prepared": PREPARED_SUFFIX}


def write_shards(
    clips: Sequence[Clip],
    output_folder: str | os.PathLike,
    *,
    max_bytes: int,
    overwrite: bool = False,
) -> list[Path]:
    """Return the shards `OUTPUT_FOLDER/clips-000000.tar`, ... that were written.

    The same clips give the same shards, byte by byte. A clip's key is its name, with `_` for dots;
    a caption stands in KEY.txt, the frame rate of a prepared clip in KEY.json.

    Args:
        clips: what is packed, in this order.
        output_folder: made if missing.
        max_bytes: of the files in one shard; a larger file has a shard of its own.
        overwrite: whether shards that are there are replaced, all of them.

    Raises:
        FileExistsError: shards are there and `overwrite` is false.
        OSError: the folder cannot be written to, or a clip is gone.
        ValueError: no clips, or `max_bytes` below 1.
    """
    if not clips or max_bytes < 1:
        raise ValueError(f"{len(clips)} clips and max_bytes={max_bytes}; expected 1 or more")
    folder = Path(output_folder)
    check_writable_folder(folder)
    remove_abandoned(folder)
    before = set(folder.glob(f"{PREFIX}-*{SHARD_SUFFIX}"))
    if before and not overwrite:
        raise FileExistsError(
            f"{folder} has shards already, such as {min(before).name}; choose another folder or "
            "allow overwriting them (--overwrite)"
        )
    keyed = list(zip(_keys(clips), clips, strict=True))
    paths = []
    with ProgressBar(len(clips), "packing clips", unit="clip") as progress:
        for number, group in enumerate(_groups(keyed, max_bytes)):
            path = folder / f"{PREFIX}-{number:06d}{SHARD_SUFFIX}"
            with (
                atomic_path(path, overwrite=overwrite) as temporary,
                tarfile.open(temporary, "w") as tar,
            ):
                for key, clip in group:
                    _add(tar, key, clip)
                    progress.update()
            paths.append(path)
    for path in before.difference(paths):
        path.unlink()
    return paths


def _groups(keyed: list[tuple[str, Clip]], max_bytes: int) -> Iterator[Iterator[tuple[str, Clip]]]:
    """Yield the clips of each shard."""
    number, total, numbers = 0, 0, []
    for _, clip in keyed:
        num_bytes = media_state(clip.path).num_bytes
        if total and total + num_bytes > max_bytes:
            number, total = number + 1, 0
        total += num_bytes
        numbers.append(number)
    order = iter(numbers)
    for _, group in itertools.groupby(keyed, key=lambda _: next(order)):
        yield group


def _keys(clips: Sequence[Clip]) -> list[str]:
    """Return a key of each clip, no two alike."""
    keys: dict[str, None] = {}
    for clip in clips:
        stem = os.path.splitext(clip.name)[0].replace(".", "_")
        numbered = (f"{stem}_{number}" for number in itertools.count(2))
        keys[next(key for key in itertools.chain([stem], numbered) if key not in keys)] = None
    return list(keys)


def _add(tar: tarfile.TarFile, key: str, clip: Clip) -> None:
    """Add a clip's file as it is, and what is known of it."""
    suffix = clip.path.suffix.lower()
    if suffix not in MEDIA_SUFFIXES:
        suffix = SUFFIX_OF_KIND[kind_of_file(clip.path)]
    with open_media(clip.path) as file:
        _add_file(tar, key + suffix, file, media_state(clip.path).num_bytes)
    texts = {".txt": clip.caption} if clip.caption else {}
    if suffix == PREPARED_SUFFIX and clip.fps > 0:
        texts[".json"] = json.dumps({"fps": clip.fps})
    for ending, text in texts.items():
        content = text.encode()
        _add_file(tar, key + ending, io.BytesIO(content), len(content))


def _add_file(tar: tarfile.TarFile, name: str, file, num_bytes: int) -> None:
    member = tarfile.TarInfo(name)  # whose other fields are the same for all
    member.size = num_bytes
    tar.addfile(member, file)
