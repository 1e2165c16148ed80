"""CogVideoX's 3-D causal VAE as a `VideoVAE`."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from mg.latent_spec import LatentSpec
from mg.vaes.mindone_vae import MindoneVAE, check_tile, default_tile, spec_of_diffusers

__all__ = ["CogVideoXVAE"]


class CogVideoXVAE(MindoneVAE):
    """CogVideoX's VAE: 4x8x8, 8k+1 frames; it codes 8 frames after 8, the first with one more.

    Other lengths of 4k+1 frames can be encoded too, but their latent of an even number of frames
    decodes to 4 frames per latent frame, the first included: not the frames that went in. They are
    therefore completed to 8k+1 like all others, unless `encode` is told not to.
    """

    family = "cogvideox"
    class_name = "AutoencoderKLCogVideoX"

    @classmethod
    def spec_of(cls, config: Mapping[str, Any]) -> LatentSpec:
        t = config.get("temporal_compression_ratio", 4)
        return spec_of_diffusers(config, t=t, head=1, step=2 * t)

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
        suggested = default_tile(height or self.config.get("sample_height", 480) // 2, 6, factor)
        height, overlap_height = height or suggested[0], suggested[1]
        suggested = default_tile(width or self.config.get("sample_width", 720) // 2, 5, factor)
        width, overlap_width = width or suggested[0], suggested[1]
        if overlap_pixels is not None:
            overlap_height = overlap_width = overlap_pixels
        check_tile("height", height, overlap_height, self.compression.h)
        check_tile("width", width, overlap_width, self.compression.w)
        # Fractions, not floats: products with them are cut to whole pixels.
        network = self.network
        network.tile_overlap_factor_height = Fraction(overlap_height, height)
        network.tile_overlap_factor_width = Fraction(overlap_width, width)
        network.enable_tiling(tile_sample_min_height=height, tile_sample_min_width=width)
