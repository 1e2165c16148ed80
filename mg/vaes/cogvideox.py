"""CogVideoX's 3-D causal VAE as a `VideoVAE`."""

from mg.vaes.blended_tiles import check_tile, default_tile
from mg.vaes.diffusers_vae import DiffusersVAE

__all__ = ["CogVideoXVAE"]


class CogVideoXVAE(DiffusersVAE):
    """CogVideoX's VAE: 4x8x8, 8k+1 frames; it codes 8 frames after 8, the first with one more.

    Other lengths of 4k+1 frames have a latent too, of an even number of frames, but it decodes to 4
    frames per latent frame, the first included: not the frames that went in. They are therefore
    completed to 8k+1 like all others, unless `encode` is told not to.
    """

    family = "cogvideox"

    def enable_tiling(
        self,
        *,
        height: int | None = None,
        width: int | None = None,
        overlap_pixels: int | None = None,
    ) -> None:
        """Code in overlapping tiles.

        Args:
            height, width: of a tile in pixels; by default half of the config's sample_height and
                sample_width.
            overlap_pixels: of neighbouring tiles; by default about 1/6 of the height and 1/5 of
                the width.

        Raises:
            ValueError: tiles that do not fit the network's compression.
        """
        factor = self.compression.h
        suggested = default_tile(height or self.config["sample_height"] // 2, 6, factor)
        height, overlap_height = height or suggested[0], suggested[1]
        suggested = default_tile(width or self.config["sample_width"] // 2, 5, factor)
        width, overlap_width = width or suggested[0], suggested[1]
        if overlap_pixels is not None:
            overlap_height = overlap_width = overlap_pixels
        self.tiles = (
            check_tile("height", height, overlap_height, factor),
            check_tile("width", width, overlap_width, factor),
        )
