"""2-D VAEs (Stable Diffusion 1/2, XL, 3.5) as a `VideoVAE` that codes frame by frame."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from mindspore import Tensor, ops

from mg.latent_spec import LatentSpec
from mg.models.tae.layers import fold_frames, unfold_frames
from mg.vaes.mindone_vae import MindoneVAE, check_tile, default_tile, spec_of_diffusers

__all__ = ["AutoencoderKLVAE"]

# Frames that go through the network together: more cost memory and gain nothing.
FRAMES_AT_ONCE = 8


class AutoencoderKLVAE(MindoneVAE):
    """A 2-D VAE, each frame an image of its own: no compression in time, any number of frames."""

    family = "sd"
    class_name = "AutoencoderKL"

    @classmethod
    def spec_of(cls, config: Mapping[str, Any]) -> LatentSpec:
        return spec_of_diffusers(config, t=1)

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        parts = [super(AutoencoderKLVAE, self).moments(images) for images in _image_batches(video)]
        means, logvars = zip(*parts, strict=True)
        return tuple(unfold_frames(ops.concat(p), video.shape[2]) for p in (means, logvars))

    def frames_from(self, latent: Tensor, num_frames: int | None) -> Tensor:
        parts = [
            super(AutoencoderKLVAE, self).frames_from(images, None)
            for images in _image_batches(latent)
        ]
        return unfold_frames(ops.concat(parts), latent.shape[2])

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
        suggested = default_tile(size or self.config.get("sample_size", 512), 4, self.compression.h)
        size = size or suggested[0]
        if width not in (None, size):
            raise ValueError(f"tiles of {height}x{width} pixels: this family's tiles are square")
        overlap = suggested[1] if overlap_pixels is None else overlap_pixels
        check_tile("height and width", size, overlap, self.compression.h)
        network = self.network
        network.tile_sample_min_size = size
        network.tile_latent_min_size = size // self.compression.h
        # A fraction, not a float: products with it are cut to whole pixels.
        network.tile_overlap_factor = Fraction(overlap, size)
        network.enable_tiling()


def _image_batches(video: Tensor) -> list[Tensor]:
    """Return the frames of (B, C, T, H, W) as batches of images (at most 8, C, H, W), in order."""
    images = fold_frames(video)  # (B*T, C, H, W)
    starts = range(0, images.shape[0], FRAMES_AT_ONCE)
    return [images[start : start + FRAMES_AT_ONCE] for start in starts]
