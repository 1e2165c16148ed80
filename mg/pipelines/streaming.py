"""Encoding and decoding videos of any length in constant memory: generators in, generators out.

One tile in time is held at once, whatever the length. The results are those of
`TemporalAutoencoder.encode` and `decode` with `use_tile`, bit for bit.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from mg.data.manifest import Clip
from mg.data.transforms import resize_and_crop, to_model_range
from mg.models.tae.tae import TemporalAutoencoder
from mg.models.tae.tiling import (
    MapFunction,
    Tiling,
    blend_in_time,
    decode_tiles,
    encode_tiles,
)

__all__ = ["check_finite", "decode_latents", "encode_frames", "read_frames"]


def read_frames(clip: Clip, size: tuple[int, int], *, rescale: bool) -> Iterator[np.ndarray]:
    """Yield the frames of a clip in order, uint8 (height, width, 3).

    Args:
        clip: of a manifest.
        size: (height, width) in pixels.
        rescale: whether frames are scaled to cover `size` before the crop, or only cropped.
    """
    for frame in clip.frames():
        short_side = None if rescale else min(frame.shape[:2])
        yield resize_and_crop(frame[np.newaxis], size=size, short_side=short_side)[0]


def encode_frames(
    tae: TemporalAutoencoder, frames: Iterable[np.ndarray], *, map_tiles: MapFunction = map
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield mean and logvar, each float32 (z_channels, t, H/8, W/8), piece by piece.

    Args:
        tae: its `tiling` says how many frames are encoded at once; with `use_tile` frames are cut
            into tiles too.
        frames: uint8 (H, W, 3) each, all of one size.
        map_tiles: `map`, or a function like it that has the tiles computed elsewhere.

    Raises:
        ValueError: a size that the network cannot take, or a result that is no number.
    """
    tae.tiling.check(tae.config)
    videos = _checked_videos(tae, frames)
    for mean, logvar in encode_tiles(
        tae.moments, videos, _tiling(tae), tae.config, map_tiles=map_tiles
    ):
        check_finite(mean, "encoder")
        yield mean[0], logvar[0]


def _checked_videos(tae: TemporalAutoencoder, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield float32 (1, 3, T, H, W) in [-1, 1] of as many frames as a tile in time has."""
    frames = iter(frames)
    while chunk := list(itertools.islice(frames, tae.tiling.frames)):
        video = to_model_range(np.stack(chunk))[np.newaxis]
        tae.check_video_shape(video.shape)
        yield video


def _tiling(tae: TemporalAutoencoder) -> Tiling:
    """Return the tiles of `tae`; without `use_tile` frames are not cut."""
    return tae.tiling if tae.use_tile else dataclasses.replace(tae.tiling, height=0, width=0)


def decode_latents(
    tae: TemporalAutoencoder,
    latents: Iterable[np.ndarray],
    num_frames: int | None = None,
    *,
    map_tiles: MapFunction = map,
) -> Iterator[np.ndarray]:
    """Yield the video, float32 (3, t, H, W) in about [-1, 1], piece by piece.

    Args:
        tae: its `tiling` says how many frames are decoded at once and how many overlap.
        latents: float32 (z_channels, t, H', W') each, pieces of any length t of one latent.
        num_frames: how many frames to give in all; None gives all that are decoded.
        map_tiles: `map`, or a function like it that has the tiles computed elsewhere.

    Raises:
        ValueError: a result that is no number.
    """
    tae.tiling.check(tae.config)
    factor = tae.config.temporal_compression
    length, overlap = tae.tiling.frames // factor, tae.tiling.overlap_frames // factor
    parts = _checked_latents(tae, _overlapping_tiles(latents, length, overlap))
    tiles = decode_tiles(tae.frames_from, parts, _tiling(tae), tae.config, map_tiles=map_tiles)
    num_left = num_frames
    for video in blend_in_time(tiles, tae.tiling.overlap_frames):
        check_finite(video, "decoder")
        piece = video[0, :, :num_left]
        if num_left is not None:
            num_left -= piece.shape[1]
        yield piece
        if num_left == 0:
            return


def _checked_latents(tae: TemporalAutoencoder, tiles: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield latents (1, C, t, H', W') of tiles (C, t, H', W')."""
    for tile in tiles:
        tae.check_latent_shape((1, *tile.shape))
        yield tile[np.newaxis]


def check_finite(values: np.ndarray, network: str) -> None:
    """Raise ValueError if a network's result holds NaN or infinity, which would become black."""
    if not np.isfinite(values).all():
        raise ValueError(
            f"the {network} gave NaN or infinity: are the weights damaged, or too large for "
            "float16? Try float32"
        )


def _overlapping_tiles(
    latents: Iterable[np.ndarray], length: int, overlap: int
) -> Iterator[np.ndarray]:
    """Yield the tiles of `temporal_spans` from pieces (C, t, H', W') of any length."""
    held, num_new = None, 0
    for piece in latents:
        held = piece if held is None else np.concatenate((held, piece), axis=1)
        num_new += piece.shape[1]
        while held.shape[1] >= length:
            yield held[:, :length]
            held = held[:, length - overlap :]
            num_new = held.shape[1] - overlap
    if num_new:
        yield held
