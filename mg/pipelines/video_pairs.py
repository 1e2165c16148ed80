"""Two folders of videos paired by name, never by order, and the frames of a pair as measured."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from mg.data.manifest import Clip, Manifest
from mg.metrics.preparation import frame_indices, prepare_frames, resize_frames
from mg.metrics.protocol import Protocol

__all__ = ["Pair", "load_pair", "pair_by_name"]

# Frames of one video, after scaling, that are held at most.
LARGEST_CLIP = 2 << 30  # bytes
PIECE = 16  # source frames that are held while they are scaled


@dataclass(frozen=True)
class Pair:
    """An original and the video made of it."""

    name: str
    real: Clip
    generated: Clip


def pair_by_name(real: Manifest, generated: Manifest) -> tuple[list[Pair], dict[str, str]]:
    """Return the pairs in the originals' order, and why each other video is left out, by its name.

    Names are paths below the two folders. Equal ones belong together, then those that are equal
    but for the suffix (`a.mov` and `a.mp4`); where that leaves a choice, none is made.
    """
    left_out = {
        f"{side} {entry.name}": entry.reason
        for side, manifest in (("real", real), ("generated", generated))
        for entry in manifest.rejected
    }
    by_name = {clip.name: clip for clip in generated.clips}
    waiting = {clip.name: clip for clip in real.clips}
    found = {name: by_name.pop(name) for name in waiting if name in by_name}
    stems: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for side, names in ((0, waiting.keys() - found.keys()), (1, by_name)):
        for name in names:
            stems[str(PurePosixPath(name).with_suffix(""))][side].append(name)
    for reals, others in stems.values():
        if len(reals) == len(others) == 1:
            found[reals[0]] = by_name[others[0]]
        else:
            reason = "several videos of this name" if reals and others else "no video of this name"
            left_out |= {f"real {name}": f"{reason} on the other side" for name in reals}
            left_out |= {f"generated {name}": f"{reason} on the other side" for name in others}
    pairs = [Pair(name, clip, found[name]) for name, clip in waiting.items() if name in found]
    return pairs, dict(sorted(left_out.items()))


def load_pair(pair: Pair, protocol: Protocol) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the frames of original and generated video as the protocol measures them, and notes.

    Returns:
        (T, H, W, 3) each, uint8 or float32 in [0, 255], and what was done that a reader of the
        figures should know, such as "cut to 12 frames".

    Raises:
        ValueError: the pair does not meet the protocol, or a video cannot be read.
        OSError: a file is gone.
    """
    notes = []
    indices = [
        frame_indices(
            protocol.frames, num_frames=clip.num_frames, fps=clip.fps, is_real=clip is pair.real
        )
        for clip in (pair.real, pair.generated)
    ]
    lengths = [len(each) for each in indices]
    num_frames = min(lengths)
    if num_frames < (protocol.frames.num_frames or max(lengths)):
        wanted = protocol.frames.num_frames or "as many as the other"
        text = f"the original gives {lengths[0]} frames, the generated video {lengths[1]}"
        if protocol.frames.too_short == "refuse":
            raise ValueError(f"{text}; the protocol wants {wanted} of each")
        notes.append(f"cut to {num_frames} frames: {text}")
    size = (pair.real.height, pair.real.width)
    if (pair.generated.height, pair.generated.width) != size:
        text = (
            f"the original is {size[1]}x{size[0]}, the generated video "
            f"{pair.generated.width}x{pair.generated.height}"
        )
        # Two sizes that the protocol scales and crops to one are not a fault, but worth a word.
        scales = protocol.size.fit == "cover" or protocol.size.resolution is not None
        ends_equal = scales and protocol.size.crop_size is not None
        if protocol.size.different == "refuse" and not ends_equal:
            raise ValueError(f"{text}; scale one of them, or choose `different: resize`")
        notes.append(text)
    resize_to = size if protocol.size.different == "resize" else None
    real = _read(pair.real, indices[0][:num_frames], protocol, None)
    generated = _read(pair.generated, indices[1][:num_frames], protocol, resize_to)
    return real, generated, notes


def _read(
    clip: Clip, indices: Sequence[int], protocol: Protocol, resize_to: tuple[int, int] | None
) -> np.ndarray:
    """Return some frames of a clip as they are measured, holding few source frames at a time."""
    result = None
    with clip.open() as reader:
        for start in range(0, len(indices), PIECE):
            piece = reader.read(indices[start : start + PIECE])
            if resize_to is not None:
                piece = resize_frames(piece, *resize_to, protocol.size)
            piece = prepare_frames(piece, protocol.size)
            if result is None:
                shape = (len(indices), *piece.shape[1:])
                _check_memory(shape, piece.itemsize)
                result = np.empty(shape, piece.dtype)
            result[start : start + len(piece)] = piece
    return result


def _check_memory(shape: tuple[int, ...], itemsize: int) -> None:
    num_bytes = int(np.prod(shape, dtype=np.int64)) * itemsize
    if num_bytes > LARGEST_CLIP:
        raise ValueError(
            f"{shape[0]} frames of {shape[2]}x{shape[1]} take {num_bytes / 2**30:.1f} GiB, more "
            f"than {LARGEST_CLIP / 2**30:.0f} GiB; choose --num_frames or --resolution"
        )
