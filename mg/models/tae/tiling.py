"""Encoding and decoding in overlapping tiles: bounded memory for any length and frame size.

The functions wrap a network's encode and decode from outside. Time is cut into tiles of 32 frames;
those of the encoder do not overlap, those of the decoder overlap by 16 frames. Space is cut into
overlapping tiles of equal size. Where tiles overlap they are blended with linear weights.

Every tile is normalised by itself, so a tiled result is near the untiled one, not equal to it; a
single tile that covers everything is.

Source: Movie Gen (arXiv 2410.13720) section 3.1.1, "temporal tiling"; the spatial tiles are ours.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from mg.models.tae.config import TAEConfig
from mg.models.tae.tile_axes import (
    Span,
    axis_weights,
    blend_ramp,
    spatial_spans,
    temporal_spans,
)

if TYPE_CHECKING:  # MindSpore takes seconds to import; choosing tiles needs none of it.
    from mindspore import Tensor

__all__ = [
    "MapFunction",
    "Tiling",
    "blend_in_time",
    "decode_tiles",
    "encode_tiles",
    "estimated_memory_gb",
    "tiled_decode",
    "tiled_encode",
]

MomentsFunction = Callable[["Tensor"], tuple["Tensor", "Tensor"]]
FramesFunction = Callable[["Tensor"], "Tensor"]
# Like the builtin `map`: (function, iterable) -> iterator of the results in order.
MapFunction = Callable[
    [Callable[[np.ndarray], np.ndarray], Iterable[np.ndarray]], Iterable[np.ndarray]
]

# Measured on CPU (fp32, graph mode): see `estimated_memory_gb`.
TENSORS_AT_ONCE = 4
FIXED_MEMORY_GB = 0.9
# Sides of tiles in pixels that `Tiling.auto` chooses from; smaller ones are mostly overlap.
AUTO_TILE_SIZES = (1024, 768, 512, 384, 256, 192, 128)


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Sizes of the tiles.

    Args:
        frames: length of a tile in frames of video, a multiple of the temporal compression.
        overlap_frames: overlap of neighbouring tiles in time, when decoding. Encoding has none.
        height, width: size of a tile in pixels, multiples of the spatial compression; 0 does not
            cut this axis.
        overlap_pixels: smallest overlap of neighbouring tiles along height and width, in pixels.

    Raises:
        ValueError: sizes that no tiles can be made with.
    """

    frames: int = 32
    overlap_frames: int = 16
    height: int = 256
    width: int = 256
    overlap_pixels: int = 64

    def __post_init__(self) -> None:
        if self.frames < 1 or not 0 <= self.overlap_frames < self.frames:
            raise ValueError(
                f"frames={self.frames} and overlap_frames={self.overlap_frames}: expected "
                "0 <= overlap_frames < frames"
            )
        if self.overlap_pixels < 0:
            raise ValueError(f"overlap_pixels={self.overlap_pixels}: expected 0 or more")
        for name in ("height", "width"):
            size = getattr(self, name)
            if size != 0 and size <= self.overlap_pixels:
                raise ValueError(
                    f"{name}={size}: a tile must be larger than overlap_pixels="
                    f"{self.overlap_pixels}, or 0 for no tiles along this axis"
                )

    def check(self, config: TAEConfig) -> None:
        """Raise ValueError unless the tiles fall on whole frames and pixels of the latent."""
        factors = {
            "frames": config.temporal_compression,
            "overlap_frames": config.temporal_compression,
            "height": config.spatial_compression,
            "width": config.spatial_compression,
            "overlap_pixels": config.spatial_compression,
        }
        for name, factor in factors.items():
            size = getattr(self, name)
            if size % factor:
                raise ValueError(
                    f"tiling {name}={size} is not a multiple of {factor}, the network's "
                    f"compression; use {max(size // factor, 1) * factor}"
                )

    @classmethod
    def auto(
        cls,
        config: TAEConfig,
        height: int,
        width: int,
        *,
        memory_budget_gb: float,
        batch_size: int = 1,
    ) -> "Tiling":
        """Return the largest tiles for which `estimated_memory_gb` stays within the budget.

        Whole frames come first, then tiles of fewer pixels, then tiles of half as many frames.

        Args:
            config: of the network.
            height, width: of the video, in pixels.
            memory_budget_gb: for the whole process, in GB (10^9 bytes).
            batch_size: clips that are encoded or decoded together.

        Raises:
            ValueError: even the smallest tiles need more.
        """
        sides = [0, *(side for side in AUTO_TILE_SIZES if side < max(height, width))]
        least = math.inf
        pair = 2 * config.temporal_compression  # so that half a tile is whole latents
        for frames in (max(pair, 32 // pair * pair), max(pair, 16 // pair * pair)):
            for side in sides:
                size = (min(side or height, height), min(side or width, width))
                needed = estimated_memory_gb(config, frames, *size, batch_size=batch_size)
                if needed <= memory_budget_gb:
                    return cls(frames=frames, overlap_frames=frames // 2, height=side, width=side)
                least = min(least, needed)
        raise ValueError(
            f"memory_budget_gb={memory_budget_gb}: the smallest tiles of a {width}x{height} video "
            f"need about {least:.1f} GB with batch_size={batch_size}"
        )


def estimated_memory_gb(
    config: TAEConfig, num_frames: int, height: int, width: int, *, batch_size: int = 1
) -> float:
    """Return about how much memory a process takes that encodes and decodes, in GB.

    memory = 0.9 GB + 4 bytes * 4 * max over the decoder's levels of
             (channels into it + channels of its blocks) * its pixels

    0.9 and 4 were measured on CPU in fp32 with 8 to 32 frames of 96x96 to 160x160, base widths 32
    to 128, one and two blocks: the result is 2 % to 20 % above what was taken. The weights come on
    top (0.5 GB at full size).

    Args:
        config: of the network.
        num_frames, height, width: of one tile.
        batch_size: clips decoded together.
    """
    widths = [config.ch * multiple for multiple in (*config.ch_mult, config.ch_mult[-1])]
    pixels = float(batch_size * num_frames * height * width) / config.patch_volume
    floats = 0.0
    for level in range(config.num_levels):
        if level:
            pixels /= 8 if level in config.temporal_upsample_level else 4
        floats = max(floats, TENSORS_AT_ONCE * pixels * (widths[level] + widths[level + 1]))
    return FIXED_MEMORY_GB + 4 * floats / 1e9


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
    config: TAEConfig,
    *,
    map_tiles: MapFunction = map,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield mean and logvar of each tile in time, put together from its tiles in space.

    Args:
        moments_fn: video Tensor (B, 3, T, H, W) -> mean and logvar Tensors.
        videos: the tiles in time, float32 (B, 3, T, H, W), all of one height and width.
        tiling: only its spatial part counts here.
        config: of the network.
        map_tiles: `map`, or a function like it that has the tiles computed elsewhere.
    """
    from mindspore import Tensor

    def encode_pixels(pixels: np.ndarray) -> np.ndarray:
        mean, logvar = moments_fn(Tensor(np.ascontiguousarray(pixels)))
        return np.concatenate((mean.asnumpy(), logvar.asnumpy()), axis=1)

    scales = config.spatial_compression, 1
    for moments in _in_spatial_tiles(encode_pixels, videos, tiling, config, scales, map_tiles):
        mean, logvar = np.split(moments, 2, axis=1)
        yield mean, logvar


def decode_tiles(
    frames_fn: FramesFunction,
    latents: Iterable[np.ndarray],
    tiling: Tiling,
    config: TAEConfig,
    *,
    map_tiles: MapFunction = map,
) -> Iterator[np.ndarray]:
    """Yield the video of each tile in time, put together from its tiles in space.

    Args:
        frames_fn: latent Tensor (B, C, T', H', W') -> video Tensor.
        latents: the tiles in time, float32 (B, C, T', H', W'), all of one height and width.
        tiling: only its spatial part counts here.
        config: of the network.
        map_tiles: `map`, or a function like it that has the tiles computed elsewhere.
    """
    from mindspore import Tensor

    def decode_latent(latent: np.ndarray) -> np.ndarray:
        return frames_fn(Tensor(np.ascontiguousarray(latent))).asnumpy()

    scales = 1, config.spatial_compression
    yield from _in_spatial_tiles(decode_latent, latents, tiling, config, scales, map_tiles)


def _in_spatial_tiles(
    function: Callable[[np.ndarray], np.ndarray],
    inputs: Iterable[np.ndarray],
    tiling: Tiling,
    config: TAEConfig,
    scales: tuple[int, int],
    map_tiles: MapFunction,
) -> Iterator[np.ndarray]:
    """Yield `function` of each input, called tile by tile, blended along height and width.

    Args:
        function: (B, C, T, h, w) -> (B, C2, T2, h2, w2).
        inputs: whole tiles in time, of one height and width.
        tiling: sizes of the tiles.
        config: of the network.
        scales: pixels of the input and of the result per pixel of the latent.
        map_tiles: calls `function`.
    """
    inputs = iter(inputs)
    first = next(inputs, None)
    if first is None:
        return
    scale_in, scale_out = scales
    factor = config.spatial_compression
    overlap = tiling.overlap_pixels // factor
    rows, columns = (  # of the tiles, in pixels of the latent
        spatial_spans(length // scale_in, tile // factor, overlap)
        for length, tile in zip(first.shape[3:], (tiling.height, tiling.width), strict=True)
    )
    windows = [(row, column) for row in rows for column in columns]
    parts = (
        x[..., top * scale_in : bottom * scale_in, left * scale_in : right * scale_in]
        for x in itertools.chain((first,), inputs)
        for (top, bottom), (left, right) in windows
    )
    tiles = iter(map_tiles(function, parts))
    for tile in tiles:  # the first of each input
        group = itertools.chain((tile,), itertools.islice(tiles, len(windows) - 1))
        yield _blend_in_space(group, rows, columns, scale_out)


def _blend_in_space(
    tiles: Iterable[np.ndarray], rows: list[Span], columns: list[Span], scale: int
) -> np.ndarray:
    """Return the blended result of tiles (B, C, T, h, w) row by row, held one at a time.

    Args:
        tiles: in the order of rows, then columns.
        rows, columns: of the tiles, in pixels of the latent.
        scale: pixels of the result per pixel of the latent.
    """
    tiles = iter(tiles)
    if len(rows) == len(columns) == 1:
        return next(tiles)
    rows, columns = ([(a * scale, b * scale) for a, b in axis] for axis in (rows, columns))
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
    config: TAEConfig,
    *,
    map_tiles: MapFunction = map,
) -> tuple["Tensor", "Tensor"]:
    """Return mean and logvar (B, z_channels, T', H', W') of a video, encoded tile by tile.

    Args:
        moments_fn: video Tensor -> mean and logvar Tensors; the network's encode.
        video: (B, 3, T, H, W) in [-1, 1].
        tiling: sizes of the tiles.
        config: of the network.
        map_tiles: `map`, or a function like it that has the tiles computed elsewhere.

    Raises:
        ValueError: tiles that do not fit the network's compression.
    """
    from mindspore import Tensor

    tiling.check(config)
    frames = video.asnumpy().astype(np.float32, copy=False)
    spans = temporal_spans(frames.shape[2], tiling.frames, 0)
    tiles = (frames[:, :, start:stop] for start, stop in spans)
    parts = encode_tiles(moments_fn, tiles, tiling, config, map_tiles=map_tiles)
    means, logvars = zip(*parts, strict=True)
    return Tensor(np.concatenate(means, axis=2)), Tensor(np.concatenate(logvars, axis=2))


def tiled_decode(
    frames_fn: FramesFunction,
    z: "Tensor",
    tiling: Tiling,
    config: TAEConfig,
    *,
    map_tiles: MapFunction = map,
) -> "Tensor":
    """Return the video (B, 3, 8T', 8H', 8W') of a latent, decoded tile by tile and blended.

    Args:
        frames_fn: latent Tensor -> video Tensor; the network's decode.
        z: (B, z_channels, T', H', W').
        tiling: sizes of the tiles.
        config: of the network.
        map_tiles: `map`, or a function like it that has the tiles computed elsewhere.

    Raises:
        ValueError: tiles that do not fit the network's compression.
    """
    from mindspore import Tensor

    tiling.check(config)
    latent = z.asnumpy().astype(np.float32, copy=False)
    factor = config.temporal_compression
    spans = temporal_spans(
        latent.shape[2], tiling.frames // factor, tiling.overlap_frames // factor
    )
    parts = (latent[:, :, start:stop] for start, stop in spans)
    tiles = decode_tiles(frames_fn, parts, tiling, config, map_tiles=map_tiles)
    return Tensor(np.concatenate(list(blend_in_time(tiles, tiling.overlap_frames)), axis=2))
