"""Encoding and decoding videos of any length in constant memory: generators in, generators out.

One tile in time is held at once, whatever the length. The results are those of
`Autoencoder.encode` and `decode` with `use_tile`, bit for bit. Networks that code piece after piece
(`piece_frames`) need no tiles in time: theirs are those of coding in one piece. Those that are
published with tiles in time (`frame_tiles`) are coded in these.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from mg.data.manifest import Clip
from mg.data.transforms import resize_and_crop, to_model_range
from mg.latent_spec import LatentSpec
from mg.models.autoencoder import Autoencoder
from mg.tiling.frame_tiles import completed, decode_frame_tiles, encode_frame_tiles
from mg.tiling.pieces import cut_into_pieces, decode_pieces, encode_pieces, latent_pieces
from mg.tiling.tiles import (
    MapFunction,
    blend_in_time,
    decode_tiles,
    decoder_overlap,
    decoder_tile,
    encode_tiles,
    encoder_tile,
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
    autoencoder: Autoencoder, frames: Iterable[np.ndarray], *, map_tiles: MapFunction = map
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield mean and logvar, each float32 (C, t, H', W'), piece by piece.

    Args:
        autoencoder: its `tiling` says how many frames are encoded at once; with `use_tile` frames
            are cut into tiles too.
        frames: uint8 (H, W, 3) each, all of one size.
        map_tiles: `map`, or a function like it that has the tiles computed elsewhere.

    Raises:
        ValueError: a size that the network cannot take, or a result that is not a number.
    """
    autoencoder.tiling.check(autoencoder.spec)
    for mean, logvar in _encoded(autoencoder, frames, map_tiles):
        check_finite(mean, "encoder")
        yield mean[0], logvar[0]


def _encoded(
    autoencoder: Autoencoder, frames: Iterable[np.ndarray], map_tiles: MapFunction
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield mean and logvar (1, C, t, H', W') piece by piece."""
    spec, tiling = autoencoder.spec, autoencoder.used_tiling
    moments, tiles = autoencoder.moments, autoencoder.frame_tiles
    if tiles is not None:
        videos = (_as_video(frame[np.newaxis], spec) for frame in completed(frames, spec))
        return encode_frame_tiles(moments, videos, tiles, tiling, spec, map_tiles=map_tiles)
    videos = _checked_videos(autoencoder, frames)
    if autoencoder.piece_frames is not None:
        return encode_pieces(autoencoder, videos, tiling, map_tiles=map_tiles)
    return encode_tiles(moments, videos, tiling, spec, map_tiles=map_tiles)


def _checked_videos(autoencoder: Autoencoder, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield tiles in time, or pieces, float32 (1, 3, T, H, W) in [-1, 1].

    The last one is completed to a length that the network takes by repeating its last frame.
    """
    spec, lengths = autoencoder.spec, autoencoder.piece_frames
    parts = (frame[np.newaxis] for frame in frames)
    if lengths is None:
        tiles = _overlapping_tiles(parts, *encoder_tile(autoencoder.tiling, spec), axis=0)
    else:
        tiles = cut_into_pieces(parts, lengths, axis=0)
    for number, tile in enumerate(tiles):
        before = spec.head if lengths is not None and number else 0  # frames of earlier pieces
        missing = spec.valid_frames(before + len(tile)) - before - len(tile)
        yield _as_video(np.concatenate((tile, *[tile[-1:]] * missing)), spec)


def _as_video(frames: np.ndarray, spec: LatentSpec) -> np.ndarray:
    """Return frames, uint8 (T, H, W, 3), as float32 (1, 3, T, H, W) in [-1, 1], checked."""
    video = to_model_range(frames)[np.newaxis]
    spec.check_video(video.shape)
    return video


def decode_latents(
    autoencoder: Autoencoder,
    latents: Iterable[np.ndarray],
    num_frames: int | None = None,
    *,
    num_latents: int | None = None,
    map_tiles: MapFunction = map,
) -> Iterator[np.ndarray]:
    """Yield the video, float32 (3, t, H, W) in about [-1, 1], piece by piece.

    Args:
        autoencoder: its `tiling` says how many frames are decoded at once and how many overlap.
        latents: float32 (C, t, H', W') each, pieces of any length t of one latent.
        num_frames: how many frames to give in all; None gives all that are decoded.
        num_latents: t of the whole latent; None if it is that of a clip of whole pieces.
        map_tiles: `map`, or a function like it that has the tiles computed elsewhere.

    Raises:
        ValueError: a result that is not a number.
    """
    autoencoder.tiling.check(autoencoder.spec)
    num_left = num_frames
    parts = _checked_latents(autoencoder, latents, num_latents)
    for video in _decoded(autoencoder, parts, num_frames, map_tiles):
        check_finite(video, "decoder")
        piece = video[0, :, :num_left]
        if num_left is not None:
            num_left -= piece.shape[1]
        yield piece
        if num_left == 0:
            return


def _decoded(
    autoencoder: Autoencoder,
    parts: Iterable[np.ndarray],
    num_frames: int | None,
    map_tiles: MapFunction,
) -> Iterator[np.ndarray]:
    """Yield the video (1, 3, t, H, W) piece by piece, tiles blended."""
    spec, tiling = autoencoder.spec, autoencoder.used_tiling
    if autoencoder.frame_tiles is not None:
        return decode_frame_tiles(
            autoencoder.frames_from,
            parts,
            autoencoder.frame_tiles,
            tiling,
            spec,
            map_tiles=map_tiles,
        )
    if autoencoder.piece_frames is not None:
        return decode_pieces(autoencoder, parts, tiling, map_tiles=map_tiles)
    tiles = decode_tiles(
        autoencoder.frames_from, parts, tiling, spec, num_frames, map_tiles=map_tiles
    )
    return blend_in_time(tiles, decoder_overlap(tiling, spec))


def _checked_latents(
    autoencoder: Autoencoder, latents: Iterable[np.ndarray], num_latents: int | None
) -> Iterator[np.ndarray]:
    """Yield tiles in time, or pieces, (1, C, t, H', W') of the parts (C, t, H', W') of a latent."""
    spec, lengths = autoencoder.spec, autoencoder.piece_frames
    if autoencoder.frame_tiles is not None:
        tiles = latents  # which are cut later
    elif lengths is None:
        tiles = _overlapping_tiles(latents, *decoder_tile(autoencoder.tiling, spec), axis=1)
    else:
        tiles = cut_into_pieces(latents, latent_pieces(lengths, spec, num_latents), axis=1)
    for tile in tiles:
        spec.check_latent((1, *tile.shape))
        yield tile[np.newaxis]


def check_finite(values: np.ndarray, network: str) -> None:
    """Raise ValueError if a network's result holds NaN or infinity, which would become black."""
    if not np.isfinite(values).all():
        raise ValueError(
            f"the {network} gave NaN or infinity: are the weights damaged, or too large for "
            "float16? Try float32"
        )


def _overlapping_tiles(
    pieces: Iterable[np.ndarray], length: int, overlap: int, *, axis: int
) -> Iterator[np.ndarray]:
    """Yield the tiles of `temporal_spans` from pieces of any length along an axis."""
    held: list[np.ndarray] = []
    has_new = False  # whether anything is held that no tile has had yet
    for piece in pieces:
        held.append(piece)
        has_new = True
        if sum(part.shape[axis] for part in held) < length:
            continue
        joined = np.concatenate(held, axis=axis)
        while joined.shape[axis] >= length:
            yield np.split(joined, (length,), axis=axis)[0]
            joined = np.split(joined, (length - overlap,), axis=axis)[1]
        held, has_new = [joined], joined.shape[axis] > overlap
    if has_new:
        yield np.concatenate(held, axis=axis)
