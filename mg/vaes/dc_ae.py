"""Open-Sora 2.0's Video DC-AE as a `VideoVAE`, and its tiles.

Tiles are placed and blended as in Open-Sora (`mg.vaes.blended_tiles`), in time as in space, with
two differences. Sizes and overlaps in the latent follow the sizes that are set; in Open-Sora they
stay at those of 256 pixels and 32 frames. A last tile of one latent frame decodes as part of the
video, not as an image, which would lose three frames.
"""

import dataclasses
from fractions import Fraction
from typing import Any

from mindspore import Tensor, ops

from mg.latent_spec import LOGVAR_MIN, LatentSpec
from mg.models.dc_ae.network import VideoDCAE as VideoDCAENetwork
from mg.tiling.sizes import nearest_multiples
from mg.type_checks import check_types
from mg.vaes.blended_tiles import Tile, coded_in_frame_tiles, coded_in_tiles
from mg.vaes.video_vae import VideoVAE

__all__ = ["DCAETiles", "VideoDCAE", "frames_in_tiles", "moments_in_tiles"]

LARGEST_DENOMINATOR = 1000  # of an overlap factor as a fraction


@dataclasses.dataclass(frozen=True)
class DCAETiles:
    """Which tiles are used, under the names of Open-Sora's settings.

    Attributes:
        use_spatial_tiling: cut height and width.
        use_temporal_tiling: cut time.
        spatial_tile_size: height and width of a tile in pixels.
        temporal_tile_size: length of a tile in frames of video.
        tile_overlap_factor: overlap of neighbours as a part of a tile, at least 0 and below 1.

    Raises:
        ValueError: a value of another type, or outside these limits.
    """

    use_spatial_tiling: bool = True
    use_temporal_tiling: bool = True
    spatial_tile_size: int = 256
    temporal_tile_size: int = 32
    tile_overlap_factor: float = 0.25

    def __post_init__(self) -> None:
        check_types(self)
        if not 0 <= self.tile_overlap_factor < 1:
            raise ValueError(
                f"tile_overlap_factor={self.tile_overlap_factor}; expected at least 0 and below 1"
            )

    def check(self, spec: LatentSpec) -> None:
        """Raise ValueError unless tiles and overlaps are whole pixels and frames of the latent."""
        self.in_space(spec.h)
        self.in_time(spec.t)

    def in_space(self, compression: int) -> Tile | None:
        """Return the tiles along height and along width, in pixels of the latent, None for none.

        Raises:
            ValueError: they or their overlap are not whole pixels of the latent.
        """
        return self._tile("spatial_tile_size", compression) if self.use_spatial_tiling else None

    def in_time(self, compression: int) -> Tile | None:
        """Return the tiles along time, in frames of the latent; None for no tiles.

        Raises:
            ValueError: they or their overlap are not whole frames of the latent.
        """
        return self._tile("temporal_tile_size", compression) if self.use_temporal_tiling else None

    def _tile(self, name: str, compression: int) -> Tile:
        size = getattr(self, name)
        part = Fraction(self.tile_overlap_factor).limit_denominator(LARGEST_DENOMINATOR)
        unit = compression * part.denominator
        if size < unit or size % unit:
            raise ValueError(
                f"{name}={size} with tile_overlap_factor={self.tile_overlap_factor}: expected a "
                f"multiple of {unit}, so that tile and overlap are whole latents; use "
                f"{nearest_multiples(size, unit, unit)}"
            )
        num_latents = size // compression
        return Tile(num_latents, int(num_latents * (1 - part)))


def moments_in_tiles(
    network: VideoDCAENetwork, video: Tensor, tiles: DCAETiles
) -> tuple[Tensor, Tensor]:
    """Return mean and logvar (B, C, T', H', W') of a video, encoded tile by tile.

    Args:
        network: encodes a tile by its `moments`.
        video: (B, 3, T, H, W) in [-1, 1], T = 1 or a multiple of the compression.
        tiles: their sizes.

    Raises:
        ValueError: sizes that are not whole latents.
    """
    t, side = network.spec.t, network.spec.h
    in_space, in_time = tiles.in_space(side), tiles.in_time(t)
    if in_space is not None:  # from here on in pixels and frames of video
        in_space = in_space.times(Fraction(side))
    if in_time is not None:
        in_time = in_time.times(Fraction(t))

    def mean_of(part: Tensor) -> Tensor:
        return network.moments(part)[0]

    def mean_of_frames(part: Tensor) -> Tensor:
        return coded_in_tiles(mean_of, part, _square(in_space), Fraction(1, side))

    mean = coded_in_frame_tiles(mean_of_frames, video, in_time, Fraction(1, t), head=0)
    return mean, ops.full_like(mean, LOGVAR_MIN)


def frames_in_tiles(
    network: VideoDCAENetwork, latent: Tensor, num_frames: int | None, tiles: DCAETiles
) -> Tensor:
    """Return the video (B, 3, T, H, W) of a latent, decoded tile by tile.

    Args:
        network: decodes a tile by its `frames_from`.
        latent: (B, C, T', H', W').
        num_frames: 1 takes a latent of one frame as an image.
        tiles: their sizes.

    Raises:
        ValueError: sizes that are not whole latents.
    """
    t, side = network.spec.t, network.spec.h
    in_space, in_time = tiles.in_space(side), tiles.in_time(t)
    is_image = latent.shape[2] == 1 and num_frames == 1

    def frames_of(part: Tensor) -> Tensor:
        return network.frames_from(part, 1 if is_image else None)

    def frames_of_latents(part: Tensor) -> Tensor:
        return coded_in_tiles(frames_of, part, _square(in_space), Fraction(side))

    return coded_in_frame_tiles(frames_of_latents, latent, in_time, Fraction(t), head=0)


def _square(tile: Tile | None) -> tuple[Tile, Tile] | None:
    return None if tile is None else (tile, tile)


class VideoDCAE(VideoVAE):
    """Open-Sora 2.0's VAE: 4x32x32, any number of frames, no posterior."""

    family = "dc_ae"
    tiles = DCAETiles(use_spatial_tiling=False, use_temporal_tiling=False)

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        return moments_in_tiles(self.network, self.network.completed(video), self.tiles)

    def frames_from(self, latent: Tensor, num_frames: int | None) -> Tensor:
        return frames_in_tiles(self.network, latent, num_frames, self.tiles)

    def enable_tiling(self, **sizes: Any) -> None:
        """Code in overlapping tiles; the settings are those of `DCAETiles`.

        Raises:
            ValueError: sizes that are not whole latents.
        """
        tiles = DCAETiles(**sizes)
        tiles.check(self.spec)
        self.tiles = tiles

    def disable_tiling(self) -> None:
        self.tiles = type(self).tiles
