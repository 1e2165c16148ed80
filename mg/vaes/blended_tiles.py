"""Coding in overlapping tiles of space and of time, placed and blended as diffusers does it.

A tile starts at every stride, the last ones are smaller. Where two overlap, the results are blended
linearly; the neighbours that a tile is blended with are blended already. Then each tile is cut to
its stride, so that tiles join without gaps.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

from mindspore import Tensor, ops

from mg.tiling.sizes import nearest_multiples

__all__ = ["Tile", "check_tile", "coded_in_frame_tiles", "coded_in_tiles", "default_tile"]

Code = Callable[[Tensor], Tensor]
TIME, HEIGHT, WIDTH = 2, 3, 4  # axes


class Tile(NamedTuple):
    """Size of a tile along one axis, and the distance from its start to the next one's."""

    size: int
    stride: int

    def times(self, factor: Fraction) -> "Tile":
        """Return the same tile where there are `factor` times as many pixels or frames."""
        return Tile(int(self.size * factor), int(self.stride * factor))


def check_tile(name: str, size: int, overlap: int, factor: int) -> Tile:
    """Return the tile of a size, checked: it and its overlap are whole pixels of the latent.

    Args:
        name: of the axis, for the message.
        size: of a tile along it, in pixels or frames of video.
        overlap: of neighbouring tiles.
        factor: the network's compression along the axis.

    Raises:
        ValueError: it is not; the nearest that are legal are named.
    """
    legal = []
    if size < factor or size % factor:
        legal.append(f"{name} {nearest_multiples(size, factor, factor)}")
    if overlap < 0 or overlap % factor:
        legal.append(f"an overlap of {nearest_multiples(overlap, factor, 0)}")
    elif overlap >= size:
        legal.append(f"an overlap of at most {max(size // factor - 1, 0) * factor}")
    if legal:
        raise ValueError(
            f"tiles of {name} {size} that overlap by {overlap}: expected multiples of {factor}, "
            "the network's compression, and an overlap smaller than the tile; use "
            + " and ".join(legal)
        )
    return Tile(size, size - overlap)


def coded_in_tiles(
    code: Code, x: Tensor, tiles: tuple[Tile, Tile] | None, factor: Fraction
) -> Tensor:
    """Return `code(x)` for x (B, C, T, H, W), in tiles if x is larger than one.

    Args:
        code: what to do with a tile, such as encoding it.
        x: all of it.
        tiles: along height and width, in pixels of x; None for no tiles.
        factor: pixels of the result per pixel of x.
    """
    if tiles is None or all(
        x.shape[axis] <= tile.size for axis, tile in zip((HEIGHT, WIDTH), tiles, strict=True)
    ):
        return code(x)
    high, wide = tiles
    rows = [
        [
            code(x[:, :, :, top : top + high.size, left : left + wide.size])
            for left in range(0, x.shape[WIDTH], wide.stride)
        ]
        for top in range(0, x.shape[HEIGHT], high.stride)
    ]
    high, wide = high.times(factor), wide.times(factor)
    joined, above = [], None
    for row in rows:
        if above is not None:
            row = [_blend(a, b, high, HEIGHT) for a, b in zip(above, row, strict=True)]
        above = _blended(row, wide, WIDTH)
        cut = [tile[:, :, :, : high.stride, : wide.stride] for tile in above]
        joined.append(ops.concat(cut, WIDTH))
    whole = ops.concat(joined, HEIGHT)
    height, width = (int(size * factor) for size in x.shape[HEIGHT:])
    return whole[:, :, :, :height, :width]


def coded_in_frame_tiles(
    code: Code, x: Tensor, tile: Tile | None, factor: Fraction, *, head: int = 1
) -> Tensor:
    """Return `code(x)` for x (B, C, T, H, W), in tiles of `tile.size` + `head` frames.

    With a head of 1, T is one more than a multiple of the compression. A tile's first frame stands
    for itself and gives its successors their past; of all tiles but the first its result is
    dropped.

    Args:
        code: what to do with a tile.
        x: all of it; there are no tiles unless it is longer than `tile.size`.
        tile: in frames of x; None for no tiles.
        factor: frames of the result per frame of x, but for the head.
        head: 1 if the first frame stands for itself, else 0.
    """
    num_frames = x.shape[TIME]
    if tile is None or num_frames <= tile.size:
        return code(x)
    results = []
    for start in range(0, num_frames, tile.stride):
        result = code(x[:, :, start : start + tile.size + head])
        if start == 0 or head == 0:
            results.append(result)
        elif result.shape[TIME] > 1:  # else the tile had one frame, which the one before has too
            results.append(result[:, :, 1:])
    tile = tile.times(factor)
    results = _blended(results, tile, TIME)
    pieces = [result[:, :, : tile.stride] for result in results[1:]]
    whole = ops.concat([results[0][:, :, : tile.stride + head], *pieces], TIME)
    return whole[:, :, : int((num_frames - head) * factor) + head]


def _blended(tiles: Sequence[Tensor], tile: Tile, axis: int) -> list[Tensor]:
    """Return tiles that follow each other along an axis, each blended with the one before it."""
    results = [tiles[0]]
    for following in tiles[1:]:
        results.append(_blend(results[-1], following, tile, axis))
    return results


def _blend(before: Tensor, after: Tensor, tile: Tile, axis: int) -> Tensor:
    """Return `after`, its start mixed with the end of `before`: more and more of it."""
    overlap = min(before.shape[axis], after.shape[axis], tile.size - tile.stride)
    if overlap == 0:
        return after
    size = before.shape[axis]
    old = ops.narrow(before, axis, size - overlap, overlap)
    new = ops.narrow(after, axis, 0, overlap)
    shape = [1] * 5
    shape[axis] = overlap
    weight = (ops.arange(overlap).astype(after.dtype) / overlap).reshape(shape)
    mixed = old * (1 - weight) + new * weight
    if overlap == after.shape[axis]:
        return mixed
    rest = ops.narrow(after, axis, overlap, after.shape[axis] - overlap)
    return ops.concat([mixed, rest], axis)


def default_tile(size: int, parts: int, factor: int) -> tuple[int, int]:
    """Return (size, overlap) of tiles in pixels, near what was meant, in whole latent pixels.

    Args:
        size: of a tile that the config suggests, in pixels.
        parts: an overlap is one of so many parts of a tile.
        factor: pixels per latent pixel.
    """
    num_latents = max(size // factor, 1)
    overlap = min(max(num_latents // parts, 1), num_latents - 1)
    return num_latents * factor, overlap * factor
