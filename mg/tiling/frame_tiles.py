"""Overlapping tiles in time as diffusers places and blends them, whatever the length of a clip.

A tile starts at every stride and has a frame more than its size, which it shares with the tile
before; the result of that frame is dropped. Where results overlap they are blended linearly, each
with the one before it, which is blended already. The last tiles may lie within the one before.

`mg.vaes.blended_tiles` does the same to a whole tensor.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mg.latent_spec import LatentSpec
from mg.tiling.sizes import Tiling
from mg.tiling.tiles import (
    FramesFunction,
    MapFunction,
    MomentsFunction,
    decode_tiles,
    encode_tiles,
)

if TYPE_CHECKING:  # MindSpore takes seconds to import
    from mindspore import Tensor

    from mg.models.autoencoder import Autoencoder

__all__ = [
    "FrameTiles",
    "completed",
    "decode_frame_tiles",
    "decode_in_frame_tiles",
    "encode_frame_tiles",
    "encode_in_frame_tiles",
]


class FrameTiles(NamedTuple):
    """Frames of a tile, and from its start to the next one's. Clips of `size` or less are whole."""

    size: int
    stride: int

    @property
    def overlap(self) -> int:
        """Frames of a tile that are blended with the one before."""
        return self.size - self.stride

    def in_latents(self, spec: LatentSpec) -> "FrameTiles":
        """Return the same tiles in frames of latent."""
        return FrameTiles(self.size // spec.t, self.stride // spec.t)


def completed(frames: Iterable[np.ndarray], spec: LatentSpec) -> Iterator[np.ndarray]:
    """Yield frames, and the last of them again until the network takes their number."""
    frame, num_frames = None, 0
    for frame in frames:
        num_frames += 1
        yield frame
    if frame is not None:
        for _ in range(spec.valid_frames(num_frames) - num_frames):
            yield frame


def cut_into_tiles(
    parts: Iterable[np.ndarray], tiles: FrameTiles, head: int, *, axis: int
) -> Iterator[np.ndarray]:
    """Yield the tiles of `size` + `head` frames of parts of any length along an axis."""
    held: list[np.ndarray] = []
    num_held, is_whole = 0, True
    for part in parts:
        held.append(part)
        num_held += part.shape[axis]
        while num_held >= tiles.size + head:
            joined = np.concatenate(held, axis=axis)
            yield np.split(joined, (tiles.size + head,), axis=axis)[0]
            held = [np.split(joined, (tiles.stride,), axis=axis)[1]]
            num_held, is_whole = num_held - tiles.stride, False
    if is_whole and held:
        yield np.concatenate(held, axis=axis)
        return
    while num_held > head:
        joined = np.concatenate(held, axis=axis)
        yield joined
        held = [np.split(joined, (tiles.stride,), axis=axis)[1]]
        num_held -= tiles.stride


def blended(results: Iterable[np.ndarray], tiles: FrameTiles, head: int) -> Iterator[np.ndarray]:
    """Yield the results of tiles, (B, C, T, H, W), blended and cut so that they follow each other.

    Args:
        results: those of all tiles but the first without their head.
        tiles, head: in frames of the results.
    """
    before, first = None, head
    for result in results:
        if before is not None:
            result = _blend(before, result, tiles.overlap)
            yield before[:, :, : tiles.stride + first]
            first = 0
        before = result
    if before is not None:
        yield before


def _blend(before: np.ndarray, after: np.ndarray, overlap: int) -> np.ndarray:
    """Return `after`, its start mixed with the end of `before`: more and more of it."""
    overlap = min(before.shape[2], after.shape[2], overlap)
    if overlap == 0:
        return after
    ramp = (np.arange(overlap, dtype=np.float32) / np.float32(overlap))[:, np.newaxis, np.newaxis]
    mixed = before[:, :, before.shape[2] - overlap :] * (1 - ramp) + after[:, :, :overlap] * ramp
    return np.concatenate((mixed, after[:, :, overlap:]), axis=2)


def encode_frame_tiles(
    moments_fn: MomentsFunction,
    videos: Iterable[np.ndarray],
    tiles: FrameTiles,
    tiling: Tiling,
    spec: LatentSpec,
    *,
    map_tiles: MapFunction = map,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield mean and logvar (B, C, T', H', W') of a video piece by piece.

    Args:
        moments_fn: video Tensor (B, 3, T, H, W) -> mean and logvar Tensors.
        videos: float32 (B, 3, T, H, W), pieces of any length of a video that the network takes.
        tiles: in time.
        tiling: its spatial part says how frames are cut.
        spec: the network's latents.
        map_tiles: `map`, or a function like it that has the tiles computed elsewhere.
    """
    parts = cut_into_tiles(videos, tiles, spec.head, axis=2)
    coded = encode_tiles(moments_fn, parts, tiling, spec, map_tiles=map_tiles)
    moments = (np.concatenate(pair, axis=1) for pair in coded)
    for piece in blended(moments, tiles.in_latents(spec), spec.head):
        mean, logvar = np.split(piece, 2, axis=1)
        yield mean, logvar


def decode_frame_tiles(
    frames_fn: FramesFunction,
    latents: Iterable[np.ndarray],
    tiles: FrameTiles,
    tiling: Tiling,
    spec: LatentSpec,
    *,
    map_tiles: MapFunction = map,
) -> Iterator[np.ndarray]:
    """Yield the video (B, 3, T, H, W) of a latent piece by piece.

    Args:
        frames_fn: latent Tensor (B, C, T', H', W') and number of frames -> video Tensor.
        latents: float32 (B, C, T', H', W'), pieces of any length of the latent.
        tiles, tiling, spec, map_tiles: as of `encode_frame_tiles`.
    """
    parts = cut_into_tiles(latents, tiles.in_latents(spec), spec.head, axis=2)
    videos = decode_tiles(frames_fn, parts, tiling, spec, map_tiles=map_tiles)
    results = (video[:, :, spec.head if number else 0 :] for number, video in enumerate(videos))
    return blended(results, tiles, spec.head)


def encode_in_frame_tiles(
    network: "Autoencoder", video: "Tensor", tiling: Tiling, *, map_tiles: MapFunction = map
) -> tuple["Tensor", "Tensor"]:
    """Return mean and logvar (B, C, T', H', W') of a whole video (B, 3, T, H, W).

    Args:
        network: one with `frame_tiles`.
        video: of a length that the network takes.
        tiling, map_tiles: as of `encode_frame_tiles`.

    Raises:
        ValueError: tiles that do not fit the network's compression.
    """
    from mindspore import Tensor

    tiling.check(network.spec)
    frames = video.asnumpy().astype(np.float32, copy=False)
    parts = encode_frame_tiles(
        network.moments, [frames], network.frame_tiles, tiling, network.spec, map_tiles=map_tiles
    )
    means, logvars = zip(*parts, strict=True)
    return Tensor(np.concatenate(means, axis=2)), Tensor(np.concatenate(logvars, axis=2))


def decode_in_frame_tiles(
    network: "Autoencoder", z: "Tensor", tiling: Tiling, *, map_tiles: MapFunction = map
) -> "Tensor":
    """Return the video (B, 3, T, H, W) of a whole latent (B, C, T', H', W').

    Args:
        network: one with `frame_tiles`.
        z: the latent.
        tiling, map_tiles: as of `encode_frame_tiles`.

    Raises:
        ValueError: tiles that do not fit the network's compression.
    """
    from mindspore import Tensor

    tiling.check(network.spec)
    latent = z.asnumpy().astype(np.float32, copy=False)
    videos = decode_frame_tiles(
        network.frames_from,
        [latent],
        network.frame_tiles,
        tiling,
        network.spec,
        map_tiles=map_tiles,
    )
    return Tensor(np.concatenate(list(videos), axis=2))
