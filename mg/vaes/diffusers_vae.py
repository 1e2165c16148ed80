"""Tiles as diffusers places and blends them, for the families that it has."""

from fractions import Fraction

from mindspore import Tensor, ops

from mg.vaes.blended_tiles import Tile, check_tile, coded_in_tiles
from mg.vaes.video_vae import VideoVAE

__all__ = ["DiffusersVAE"]


class DiffusersVAE(VideoVAE):
    """A network with the tiles of a class in diffusers, in space."""

    tiles: tuple[Tile, Tile] | None = None  # along height and width; None for none

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        return ops.chunk(self.encoded(video), 2, axis=1)

    def frames_from(self, latent: Tensor, num_frames: int | None) -> Tensor:
        return self.decoded(latent)

    def encoded(self, video: Tensor) -> Tensor:
        """Return mean and logvar (B, 2 C, T', H', W') of a video, in tiles where they are on."""
        factor = Fraction(1, self.compression.h)
        return coded_in_tiles(self._moments_of_tile, video, self.tiles, factor)

    def decoded(self, latent: Tensor) -> Tensor:
        """Return the video (B, 3, T, H, W) of a latent, in tiles where they are on."""
        tiles, side = self.tiles, self.compression.h
        if tiles is not None:
            tiles = tuple(tile.times(Fraction(1, side)) for tile in tiles)
        return coded_in_tiles(self.network.frames_from, latent, tiles, Fraction(side))

    def _moments_of_tile(self, video: Tensor) -> Tensor:
        return ops.concat(self.network.moments(video), 1)

    def enable_tiling(
        self, *, height: int = 256, width: int = 256, overlap_pixels: int = 64
    ) -> None:
        """Code in overlapping tiles.

        Args:
            height, width: of a tile in pixels.
            overlap_pixels: of neighbouring tiles.

        Raises:
            ValueError: tiles that do not fit the network's compression.
        """
        side = self.compression.h
        self.tiles = (
            check_tile("height", height, overlap_pixels, side),
            check_tile("width", width, overlap_pixels, side),
        )

    def disable_tiling(self) -> None:
        self.tiles = None
