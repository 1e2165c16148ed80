"""Coding a clip piece after piece, in constant memory and exactly as in one piece.

For networks whose convolutions look back only: each piece hands the ends of what went into its
convolutions on to the next, its `past` (`Autoencoder.encode_piece`, `decode_piece`). Frames may be
cut into tiles besides; then each tile has a past of its own.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mg.latent_spec import LatentSpec
from mg.tiling.sizes import Tiling
from mg.tiling.tiles import MapFunction, Part, in_spatial_tiles

if TYPE_CHECKING:  # MindSpore takes seconds to import
    from mindspore import Tensor

    from mg.models.autoencoder import Autoencoder

__all__ = [
    "PieceLengths",
    "cut_into_pieces",
    "decode_in_pieces",
    "decode_pieces",
    "encode_in_pieces",
    "encode_pieces",
    "latent_pieces",
]


class PieceLengths(NamedTuple):
    """Frames of the first piece of a clip, and of each further one."""

    first: int
    others: int


def latent_pieces(
    frames: PieceLengths, spec: LatentSpec, num_latents: int | None = None
) -> PieceLengths:
    """Return the lengths of pieces in frames of latent.

    Args:
        frames: the lengths in frames of video.
        spec: the network's latents.
        num_latents: frames of the whole latent; one that no whole clip has begins with a piece like
            the others. None: it is that of a whole clip.
    """
    first, others = spec.latent_frames(frames.first), frames.others // spec.t
    is_odd = num_latents is not None and (num_latents - first) % (spec.step // spec.t) != 0
    return PieceLengths(others if is_odd else first, others)


def cut_into_pieces(
    parts: Iterable[np.ndarray], lengths: PieceLengths, *, axis: int
) -> Iterator[np.ndarray]:
    """Yield pieces of these lengths from parts of any length along an axis; the last is shorter."""
    held, wanted = None, lengths.first
    for part in parts:
        held = part if held is None else np.concatenate((held, part), axis=axis)
        while held.shape[axis] >= wanted:
            piece, held = np.split(held, (wanted,), axis=axis)
            wanted = lengths.others
            yield piece
    if held is not None and held.shape[axis]:
        yield held


def encode_pieces(
    network: "Autoencoder",
    videos: Iterable[np.ndarray],
    tiling: Tiling,
    *,
    map_tiles: MapFunction = map,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield mean and logvar (B, C, T', H', W') of each piece of a clip.

    Args:
        network: one with `piece_frames`.
        videos: its pieces in order, float32 (B, 3, T, H, W), of lengths that the network takes.
        tiling: its spatial part says how frames are cut.
        map_tiles: `map`, or a function like it that has the tiles computed elsewhere; each tile of
            every piece in the same place.
    """
    spec = network.spec
    scales = (spec.h, spec.w), (1, 1)

    def encode(video: "Tensor", past: tuple) -> tuple[np.ndarray, tuple]:
        mean, logvar, past = network.encode_piece(video, past)
        return np.concatenate((mean.asnumpy(), logvar.asnumpy()), axis=1), past

    for moments in _coded(encode, videos, tiling, spec, scales, map_tiles):
        mean, logvar = np.split(moments, 2, axis=1)
        yield mean, logvar


def decode_pieces(
    network: "Autoencoder",
    latents: Iterable[np.ndarray],
    tiling: Tiling,
    *,
    map_tiles: MapFunction = map,
) -> Iterator[np.ndarray]:
    """Yield the video (B, 3, T, H, W) of each piece of a latent (B, C, T', H', W').

    Args:
        network, tiling, map_tiles: as of `encode_pieces`.
        latents: its pieces in order, of the lengths of `latent_pieces`.

    Raises:
        ValueError: the last piece is too short to be one, and `latents` were not cut for that.
    """
    spec = network.spec
    scales = (1, 1), (spec.h, spec.w)
    unit = spec.step // spec.t

    def whole_pieces() -> Iterator[np.ndarray]:
        for number, latent in enumerate(latents):
            if number and latent.shape[2] % unit:
                raise ValueError(
                    f"the latent ends with a piece of {latent.shape[2]} frames, but this network "
                    f"decodes {unit} at a time: no clip has such a latent"
                )
            yield latent

    def decode(z: "Tensor", past: tuple) -> tuple[np.ndarray, tuple]:
        video, past = network.decode_piece(z, past)
        return video.asnumpy(), past

    yield from _coded(decode, whole_pieces(), tiling, spec, scales, map_tiles)


def _coded(
    function: Callable[["Tensor", tuple], tuple[np.ndarray, tuple]],
    pieces: Iterable[np.ndarray],
    tiling: Tiling,
    spec: LatentSpec,
    scales: tuple[tuple[int, int], tuple[int, int]],
    map_tiles: MapFunction,
) -> Iterator[np.ndarray]:
    from mindspore import Tensor

    pasts: dict[int, tuple] = {}

    def with_past(part: Part) -> np.ndarray:
        values = Tensor(np.ascontiguousarray(part.values))
        result, pasts[part.window] = function(values, pasts.get(part.window, ()))
        return result

    for piece in pieces:  # one call each, so that a tile's place does not change
        yield from in_spatial_tiles(with_past, [Part(piece)], tiling, spec, scales, map_tiles)


def encode_in_pieces(
    network: "Autoencoder", video: "Tensor", tiling: Tiling, *, map_tiles: MapFunction = map
) -> tuple["Tensor", "Tensor"]:
    """Return mean and logvar (B, C, T', H', W') of a whole video (B, 3, T, H, W).

    Args:
        network, tiling, map_tiles: as of `encode_pieces`.
        video: of a length that the network takes.

    Raises:
        ValueError: tiles that do not fit the network's compression.
    """
    from mindspore import Tensor

    tiling.check(network.spec)
    frames = video.asnumpy().astype(np.float32, copy=False)
    videos = cut_into_pieces([frames], network.piece_frames, axis=2)
    parts = encode_pieces(network, videos, tiling, map_tiles=map_tiles)
    means, logvars = zip(*parts, strict=True)
    return Tensor(np.concatenate(means, axis=2)), Tensor(np.concatenate(logvars, axis=2))


def decode_in_pieces(
    network: "Autoencoder", z: "Tensor", tiling: Tiling, *, map_tiles: MapFunction = map
) -> "Tensor":
    """Return the video (B, 3, T, H, W) of a whole latent (B, C, T', H', W').

    Args:
        network, tiling, map_tiles: as of `encode_pieces`.
        z: the latent.

    Raises:
        ValueError: tiles that do not fit the network's compression.
    """
    from mindspore import Tensor

    tiling.check(network.spec)
    latent = z.asnumpy().astype(np.float32, copy=False)
    lengths = latent_pieces(network.piece_frames, network.spec, latent.shape[2])
    latents = cut_into_pieces([latent], lengths, axis=2)
    videos = decode_pieces(network, latents, tiling, map_tiles=map_tiles)
    return Tensor(np.concatenate(list(videos), axis=2))
