"""2-D VAEs (Stable Diffusion 1/2, XL, 3.5) as a `VideoVAE` that codes frame by frame."""

from mg.vaes.blended_tiles import check_tile, default_tile
from mg.vaes.diffusers_vae import DiffusersVAE

__all__ = ["AutoencoderKLVAE"]


class AutoencoderKLVAE(DiffusersVAE):
    """A 2-D VAE, each frame an image of its own: no compression in time, any number of frames."""

    family = "sd"

    def enable_tiling(
        self,
        *,
        height: int | None = None,
        width: int | None = None,
        overlap_pixels: int | None = None,
    ) -> None:
        """Code in square tiles.

        Args:
            height, width: of a tile in pixels, both equal; by default the config's sample_size.
            overlap_pixels: of neighbouring tiles; by default about a quarter of the tile.

        Raises:
            ValueError: tiles that are not square or do not fit the network's compression.
        """
        size = height or width
        suggested = default_tile(size or self.config["sample_size"], 4, self.compression.h)
        size = size or suggested[0]
        if width not in (None, size):
            raise ValueError(f"tiles of {height}x{width} pixels: this family's tiles are square")
        overlap = suggested[1] if overlap_pixels is None else overlap_pixels
        tile = check_tile("height and width", size, overlap, self.compression.h)
        self.tiles = (tile, tile)
