"""Open-Sora-Plan's CausalVideoVAE as a `VideoVAE`."""

import os
from fractions import Fraction
from typing import Any

from mindspore import Tensor

from mg.vaes.blended_tiles import Tile, check_tile, coded_in_frame_tiles
from mg.vaes.diffusers_vae import DiffusersVAE
from mg.vaes.video_vae import VideoVAE

__all__ = ["CausalVAEModel", "CausalVideoVAE"]


class CausalVideoVAE(DiffusersVAE):
    """CausalVideoVAE, v1.0 to v1.2: 4x8x8, 4k+1 frames."""

    family = "causal_vae"
    frame_tile: Tile | None = None
    latent_frame_tile: Tile | None = None

    @staticmethod
    def from_pretrained(name_or_path: str | os.PathLike, **options: Any) -> "CausalVideoVAE":
        """Return the CausalVideoVAE of a folder, a weight file or a public name.

        Args:
            name_or_path, options: as of `VideoVAE.from_pretrained`.

        Raises:
            FileNotFoundError, ValueError: as there; or weights of another family.
        """
        return VideoVAE.from_pretrained(name_or_path, method=CausalVideoVAE.family, **options)

    def encoded(self, video: Tensor) -> Tensor:
        factor = Fraction(1, self.compression.t)
        return coded_in_frame_tiles(super().encoded, video, self.frame_tile, factor)

    def decoded(self, latent: Tensor) -> Tensor:
        factor = Fraction(self.compression.t)
        return coded_in_frame_tiles(super().decoded, latent, self.latent_frame_tile, factor)

    def enable_tiling(
        self,
        *,
        height: int = 256,
        width: int = 256,
        overlap_pixels: int = 64,
        frames: int | None = 64,
        latent_frames: int | None = None,
    ) -> None:
        """Code in overlapping tiles, and long clips piece by piece.

        The defaults are those of v1.1. v1.0 has frames=None, v1.2 overlap_pixels=32, frames=32 and
        latent_frames=15.

        Args:
            height, width: of a tile in pixels.
            overlap_pixels: of neighbouring tiles.
            frames: of a piece, which has one more in common with the piece before; None codes all
                frames together. Pieces are not blended.
            latent_frames: the same for decoding; None takes what `frames` are as latents.

        Raises:
            ValueError: tiles that do not fit the network's compression.
        """
        in_time = self.compression.t
        frame_tile = latent_frame_tile = None
        if frames is not None:
            frame_tile = check_tile("frames", frames, 0, in_time)
            latent_frame_tile = frame_tile.times(Fraction(1, in_time))
        if latent_frames is not None:
            latent_frame_tile = check_tile("latent_frames", latent_frames, 0, 1)
        super().enable_tiling(height=height, width=width, overlap_pixels=overlap_pixels)
        self.frame_tile, self.latent_frame_tile = frame_tile, latent_frame_tile

    def disable_tiling(self) -> None:
        super().disable_tiling()
        self.frame_tile = self.latent_frame_tile = None


CausalVAEModel = CausalVideoVAE  # its name in Open-Sora-Plan
