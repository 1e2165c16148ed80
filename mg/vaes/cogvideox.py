"""CogVideoX's 3-D causal VAE as a `VideoVAE`."""

from mg.models.cogvideox_vae.config import CogVideoXVAEConfig
from mg.models.cogvideox_vae.network import CogVideoXVAE as CogVideoXNetwork
from mg.vaes.blended_tiles import check_tile
from mg.vaes.diffusers_vae import DiffusersVAE

__all__ = ["CogVideoXVAE"]


class CogVideoXVAE(DiffusersVAE):
    """CogVideoX's VAE: 4x8x8, 8k+1 frames; it codes 8 frames after 8, the first with one more.

    Other lengths of 4k+1 frames have a latent too, of an even number of frames, but it decodes to 4
    frames per latent frame, the first included: not the frames that went in. `encode` therefore
    completes them to 8k+1 like all others; `moments` takes them as they are, as diffusers does.
    """

    family = "cogvideox"
    class_name = "AutoencoderKLCogVideoX"
    config_class = CogVideoXVAEConfig
    network_class = CogVideoXNetwork

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
            overlap_pixels: of neighbouring tiles; by default 1/6 of the height and 1/5 of the
                width, rounded down to whole pixels of the latent.

        Raises:
            ValueError: tiles that do not fit the network's compression.
        """
        height = height or self.config["sample_height"] // 2
        width = width or self.config["sample_width"] // 2
        side = self.compression.h
        overlaps = height // 6 // side * side, width // 5 // side * side
        if overlap_pixels is not None:
            overlaps = overlap_pixels, overlap_pixels
        self.tiles = (
            check_tile("height", height, overlaps[0], side),
            check_tile("width", width, overlaps[1], side),
        )
