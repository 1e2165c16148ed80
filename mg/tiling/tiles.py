"""Encoding and decoding in overlapping tiles: bounded memory for any length and frame size.

The functions wrap a network's encode and decode from outside; what they know of it is its
`LatentSpec`. Time is cut into tiles of 32 frames; those of the encoder do not overlap, those of the
decoder overlap by 16 frames. Space is cut into overlapping tiles of equal size. Where tiles overlap
they are blended with linear weights.

A network that codes the first frame by itself (`head` 1) sees the last frame of the tile before as
the first one of each further tile; the encoder's latent of that frame is dropped again. Networks
that look back only need no tiles in time (`mg.tiling.pieces`).

Every tile is normalised by itself, so a tiled result is near the untiled one, not equal to it; a
single tile that covers everything is.

Source: Movie Gen (arXiv 2410.13720) section 3.1.1, "temporal tiling"; the spatial tiles are ours.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mg.latent_spec import LatentSpec
from mg.tiling.axes import (
    Span,
    axis_weights,
    blend_ramp,
    spatial_spans,
    temporal_spans,
)
from mg.tiling.sizes import Tiling

if TYPE_CHECKING:  # MindSpore takes seconds to import; choosing tiles needs none of it.
    from mindspore import Tensor

__all__ = [
    "FramesFunction",
    "MapFunction",
    "MomentsFunction",
    "Part",
    "blend_in_time",
    "decode_tiles",
    "decoder_overlap",
    "decoder_tile",
    "encode_tiles",
    "encoder_tile",
    "in_spatial_tiles",
    "tiled_decode",
    "tiled_encode",
]

MomentsFunction = Callable[["Tensor"], tuple["Tensor", "Tensor"]]
# A latent and how many frames of video it is of, None for as many as come out.
FramesFunction = Callable[["Tensor", "int | None"], "Tensor"]


class Part(NamedTuple):
    """A piece of a video or of a latent, (B, C, T, H, W), as a network codes it at once."""

    values: np.ndarray
    num_frames: int | None = None  # of the video, when decoding; None for as many as come out
    window: int = 0  # number of the tile in its frames


# Like the builtin `map`: (function, iterable) -> iterator of the results in order.
MapFunction = Callable[[Callable[[Part], np.ndarray], Iterable[Part]], Iterable[np.ndarray]]


class TimeTile(NamedTuple):
    """Length of a tile in time, and how much of it lies in the tile before."""

    length: int
    overlap: int


def encoder_tile(tiling: Tiling, spec: LatentSpec) -> TimeTile:
    """Return the encoder's tile in frames of video."""
    return TimeTile(tiling.frames + spec.head, spec.head)


def decoder_tile(tiling: Tiling, spec: LatentSpec) -> TimeTile:
    """Return the decoder's tile in frames of latent."""
    shared = tiling.overlap_frames + spec.head  # in frames of video
    return TimeTile(
        spec.latent_frames(tiling.frames + spec.head),
        spec.latent_frames(shared) if shared else 0,
    )


def decoder_overlap(tiling: Tiling, spec: LatentSpec) -> int:
    """Return by how many frames of video a decoded tile lies in the one before."""
    return tiling.overlap_frames + spec.head


def blend_in_time(tiles: Iterable[np.ndarray], overlap: int) -> Iterator[np.ndarray]:
    """Yield the blended video piece by piece, holding one tile and one overlap at a time.

    Args:
        tiles: decoded tiles (B, C, T, H, W) in order, each `overlap` frames into the one before.
        overlap: in frames of video.
    """
    ramp = blend_ramp(overlap)[:, np.newaxis, np.newaxis]  # (overlap, 1, 1)
    tail = None
    for tile in tiles:
        if tail is None:
            head = tile[:, :, :overlap]
        else:
            head = tail * (1 - ramp) + tile[:, :, :overlap] * ramp
        joined = np.concatenate((head, tile[:, :, overlap:]), axis=2) if overlap else tile
        end = joined.shape[2] - overlap
        if end > 0:
            yield joined[:, :, :end]
        tail = joined[:, :, max(end, 0) :]
    if tail is not None and tail.shape[2]:
        yield tail


def encode_tiles(
    moments_fn: MomentsFunction,
    videos: Iterable[np.ndarray],
    tiling: Tiling,
    spec: LatentSpec,
    *,
    map_tiles: MapFunction = map,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield mean and logvar of each tile in time, put together from its tiles in space.

    Args:
        moments_fn: video Tensor (B, 3, T, H, W) -> mean and logvar Tensors.
        videos: tiles in time, as `encoder_tile` has them, float32 (B, 3, T, H, W), all of one
            height and width. What they share with the tile before has no part in the result.
        tiling: sizes of the tiles; only its spatial part counts here.
        spec: the network's latents.
        map_tiles: `map`, or a function like it that has the tiles computed elsewhere.
    """
    from mindspore import Tensor

    def encode_pixels(part: Part) -> np.ndarray:
        mean, logvar = moments_fn(Tensor(np.ascontiguousarray(part.values)))
        return np.concatenate((mean.asnumpy(), logvar.asnumpy()), axis=1)

    scales = (spec.h, spec.w), (1, 1)
    parts = map(Part, videos)
    results = in_spatial_tiles(encode_pixels, parts, tiling, spec, scales, map_tiles)
    for number, moments in enumerate(results):
        mean, logvar = np.split(moments[:, :, spec.head if number else 0 :], 2, axis=1)
        yield mean, logvar


def decode_tiles(
    frames_fn: FramesFunction,
    latents: Iterable[np.ndarray],
    tiling: Tiling,
    spec: LatentSpec,
    num_frames: int | None = None,
    *,
    map_tiles: MapFunction = map,
) -> Iterator[np.ndarray]:
    """Yield the video of each tile in time, put together from its tiles in space.

    Args:
        frames_fn: latent Tensor (B, C, T', H', W') and number of frames -> video Tensor.
        latents: tiles in time, as `decoder_tile` has them, float32 (B, C, T', H', W'), all of one
            height and width.
        tiling: sizes of the tiles.
        spec: the network's latents.
        num_frames: length of the whole video; None for as many frames as come out.
        map_tiles: `map`, or a function like it that has the tiles computed elsewhere.
    """
    from mindspore import Tensor

    def decode_latent(part: Part) -> np.ndarray:
        return frames_fn(Tensor(np.ascontiguousarray(part.values)), part.num_frames).asnumpy()

    stride = tiling.frames - tiling.overlap_frames

    def parts() -> Iterator[Part]:
        for number, latent in enumerate(latents):
            part = Part(latent)
            if num_frames is not None:
                wanted = num_frames - number * stride
                if wanted < spec.decoded_frames(latent.shape[2]):
                    part = Part(latent, max(wanted, 1))
            yield part

    scales = (1, 1), (spec.h, spec.w)
    yield from in_spatial_tiles(decode_latent, parts(), tiling, spec, scales, map_tiles)


def in_spatial_tiles(
    function: Callable[[Part], np.ndarray],
    inputs: Iterable[Part],
    tiling: Tiling,
    spec: LatentSpec,
    scales: tuple[tuple[int, int], tuple[int, int]],
    map_tiles: MapFunction,
) -> Iterator[np.ndarray]:
    """Yield `function` of each input, called tile by tile, blended along height and width.

    Args:
        function: (B, C, T, h, w) -> (B, C2, T2, h2, w2).
        inputs: whole tiles in time, of one height and width.
        tiling: sizes of the tiles.
        spec: the network's latents.
        scales: pixels of the input, and of the result, per pixel of the latent: (height, width).
        map_tiles: calls `function`.
    """
    inputs = iter(inputs)
    first = next(inputs, None)
    if first is None:
        return
    scale_in, scale_out = scales
    rows, columns = (  # of the tiles, in pixels of the latent
        spatial_spans(length // scale, tile // factor, tiling.overlap_pixels // factor)
        for length, scale, tile, factor in zip(
            first.values.shape[3:],
            scale_in,
            (tiling.height, tiling.width),
            (spec.h, spec.w),
            strict=True,
        )
    )
    windows = [
        (_scaled(row, scale_in[0]), _scaled(column, scale_in[1]))
        for row in rows
        for column in columns
    ]
    parts = (
        Part(part.values[..., slice(*row), slice(*column)], part.num_frames, window)
        for part in itertools.chain((first,), inputs)
        for window, (row, column) in enumerate(windows)
    )
    rows = [_scaled(row, scale_out[0]) for row in rows]
    columns = [_scaled(column, scale_out[1]) for column in columns]
    tiles = iter(map_tiles(function, parts))
    for tile in tiles:  # the first of each input
        group = itertools.chain((tile,), itertools.islice(tiles, len(windows) - 1))
        yield _blend_in_space(group, rows, columns)


def _scaled(span: Span, scale: int) -> Span:
    return span[0] * scale, span[1] * scale


def _blend_in_space(
    tiles: Iterable[np.ndarray], rows: list[Span], columns: list[Span]
) -> np.ndarray:
    """Return the blended result of tiles (B, C, T, h, w) row by row, held one at a time.

    Args:
        tiles: in the order of rows, then columns.
        rows, columns: where the tiles lie, in pixels of the result.
    """
    tiles = iter(tiles)
    if len(rows) == len(columns) == 1:
        return next(tiles)
    row_weights, column_weights = axis_weights(rows), axis_weights(columns)
    result = None
    for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
        tile = next(tiles)
        if result is None:
            result = np.zeros((*tile.shape[:3], rows[-1][1], columns[-1][1]), np.float32)
        weights = np.outer(row_weights[i], column_weights[j])  # (h, w)
        result[..., slice(*row), slice(*column)] += tile * weights
    return result


def tiled_encode(
    moments_fn: MomentsFunction,
    video: "Tensor",
    tiling: Tiling,
    spec: LatentSpec,
    *,
    map_tiles: MapFunction = map,
) -> tuple["Tensor", "Tensor"]:
    """Return mean and logvar (B, C, T', H', W') of a video, encoded tile by tile.

    Args:
        moments_fn: video Tensor -> mean and logvar Tensors; the network's encode.
        video: (B, 3, T, H, W) in [-1, 1], of a length that the network takes.
        tiling: sizes of the tiles.
        spec: the network's latents.
        map_tiles: `map`, or a function like it that has the tiles computed elsewhere.

    Raises:
        ValueError: tiles that do not fit the network's compression.
    """
    from mindspore import Tensor

    tiling.check(spec)
    frames = video.asnumpy().astype(np.float32, copy=False)
    spans = temporal_spans(frames.shape[2], *encoder_tile(tiling, spec))
    tiles = (frames[:, :, start:stop] for start, stop in spans)
    parts = encode_tiles(moments_fn, tiles, tiling, spec, map_tiles=map_tiles)
    means, logvars = zip(*parts, strict=True)
    return Tensor(np.concatenate(means, axis=2)), Tensor(np.concatenate(logvars, axis=2))


def tiled_decode(
    frames_fn: FramesFunction,
    z: "Tensor",
    tiling: Tiling,
    spec: LatentSpec,
    num_frames: int | None = None,
    *,
    map_tiles: MapFunction = map,
) -> "Tensor":
    """Return the video (B, 3, T, H, W) of a latent, decoded tile by tile and blended.

    Args:
        frames_fn: latent Tensor and number of frames -> video Tensor; the network's decode.
        z: (B, C, T', H', W').
        tiling: sizes of the tiles.
        spec: the network's latents.
        num_frames: length of the video; None for as many frames as come out. The result may have
            more.
        map_tiles: `map`, or a function like it that has the tiles computed elsewhere.

    Raises:
        ValueError: tiles that do not fit the network's compression.
    """
    from mindspore import Tensor

    tiling.check(spec)
    latent = z.asnumpy().astype(np.float32, copy=False)
    spans = temporal_spans(latent.shape[2], *decoder_tile(tiling, spec))
    parts = (latent[:, :, start:stop] for start, stop in spans)
    tiles = decode_tiles(frames_fn, parts, tiling, spec, num_frames, map_tiles=map_tiles)
    blended = list(blend_in_time(tiles, decoder_overlap(tiling, spec)))
    return Tensor(np.concatenate(blended, axis=2))
