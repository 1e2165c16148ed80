"""Wan's VAEs, 2.1 and 2.2, as a `VideoVAE`."""

from mg.models.wan_vae.config import WanVAEConfig
from mg.models.wan_vae.network import WanVAE as WanNetwork
from mg.vaes.blended_tiles import check_tile
from mg.vaes.diffusers_vae import DiffusersVAE

__all__ = ["WanVAE"]


class WanVAE(DiffusersVAE):
    """Wan 2.1's VAE (4x8x8) and 2.2's (4x16x16), 4k+1 frames.

    A clip is coded a few frames at a time, whatever its length, and the result is that of the whole
    clip. Decoded frames may leave [-1, 1] a little; diffusers clips them.
    """

    family = "wan"
    class_name = "AutoencoderKLWan"
    config_class = WanVAEConfig
    network_class = WanNetwork

    def enable_tiling(
        self, *, height: int = 256, width: int = 256, overlap_pixels: int = 64
    ) -> None:
        """Code in overlapping tiles of space; the defaults are diffusers'.

        With Wan 2.2 tiles are blended pixel by pixel; diffusers blends its patches of 2 x 2.

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
