"""HunyuanVideo's 3-D causal VAE as a `VideoVAE`."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from mindspore import Tensor

from mg.models.autoencoder import Autoencoder
from mg.models.hunyuan_vae.config import in_the_terms_of_diffusers
from mg.tiling.frame_tiles import FrameTiles
from mg.vaes.blended_tiles import Tile, check_tile, coded_in_frame_tiles
from mg.vaes.diffusers_vae import DiffusersVAE

__all__ = ["HunyuanVideoVAE"]


class HunyuanVideoVAE(DiffusersVAE):
    """HunyuanVideo's VAE: 4x8x8, 4k+1 frames.

    Clips of more than 16 frames are coded in overlapping tiles of 17 frames, with `enable_tiling`
    or without, as in diffusers; `disable_frame_tiles` codes any length in one piece.
    """

    family = "hunyuan"

    def __init__(self, network: Autoencoder, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(network, in_the_terms_of_diffusers(config or {}))

    @property
    def frame_tile(self) -> Tile | None:
        """Tiles in time, in frames of video; None for none."""
        tiles = self.network.frame_tiles
        return None if tiles is None else Tile(*tiles)

    def encoded(self, video: Tensor) -> Tensor:
        factor = Fraction(1, self.compression.t)
        return coded_in_frame_tiles(super().encoded, video, self.frame_tile, factor)

    def decoded(self, latent: Tensor) -> Tensor:
        tile, factor = self.frame_tile, self.compression.t
        if tile is not None:
            tile = tile.times(Fraction(1, factor))
        return coded_in_frame_tiles(super().decoded, latent, tile, Fraction(factor))

    def enable_tiling(
        self,
        *,
        height: int = 256,
        width: int = 256,
        overlap_pixels: int = 64,
        frames: int | None = None,
        overlap_frames: int = 4,
    ) -> None:
        """Code in overlapping tiles.

        Args:
            height, width: of a tile in pixels.
            overlap_pixels: of neighbouring tiles.
            frames, overlap_frames: as for `enable_frame_tiles`; None leaves time as it is.

        Raises:
            ValueError: tiles that do not fit the network's compression.
        """
        if frames is not None:
            check_tile("frames", frames, overlap_frames, self.compression.t)
        super().enable_tiling(height=height, width=width, overlap_pixels=overlap_pixels)
        if frames is not None:
            self.enable_frame_tiles(frames, overlap_frames)

    def enable_frame_tiles(self, frames: int = 16, overlap_frames: int = 4) -> None:
        """Code clips of more than `frames` frames in tiles of `frames` + 1 frames.

        Raises:
            ValueError: no multiples of the compression in time.
        """
        tile = check_tile("frames", frames, overlap_frames, self.compression.t)
        self.network.sizes_of_tiles = FrameTiles(*tile)
        self.set_framewise(True)

    def disable_frame_tiles(self) -> None:
        """Code clips of any length in one piece: most exact, most memory."""
        self.set_framewise(False)
