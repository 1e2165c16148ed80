"""HunyuanVideo's 3-D causal VAE as a `VideoVAE`."""

from collections.abc import Mapping
from typing import Any

from mg.latent_spec import LatentSpec
from mg.vaes.mindone_vae import MindoneVAE, check_tile, spec_of_diffusers

__all__ = ["HunyuanVideoVAE"]

# Fields of the original config.json -> those of diffusers. The tensors have the same names.
ORIGINAL_CLASS = "AutoencoderKLCausal3D"
ORIGINAL_FIELDS = {"time_compression_ratio": "temporal_compression_ratio"}
ORIGINAL_BLOCKS = {
    "DownEncoderBlockCausal3D": "HunyuanVideoDownBlock3D",
    "UpDecoderBlockCausal3D": "HunyuanVideoUpBlock3D",
}
DROPPED_FIELDS = ("sample_size", "sample_tsize")  # the original's tile sizes


class HunyuanVideoVAE(MindoneVAE):
    """HunyuanVideo's VAE: 4x8x8, 4k+1 frames.

    Clips of more than 16 frames are coded in overlapping tiles of 17 frames, with `enable_tiling`
    or without, as in diffusers; `disable_frame_tiles` codes any length in one piece.
    """

    family = "hunyuan"
    class_name = "AutoencoderKLHunyuanVideo"

    @classmethod
    def network_config(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config as diffusers writes it, from the original's too."""
        if config.get("_class_name") != ORIGINAL_CLASS:
            return dict(config)
        translated = {
            ORIGINAL_FIELDS.get(key, key): value
            for key, value in config.items()
            if key not in DROPPED_FIELDS
        }
        for key in ("down_block_types", "up_block_types"):
            if key in translated:
                translated[key] = [ORIGINAL_BLOCKS.get(name, name) for name in translated[key]]
        return {**translated, "_class_name": cls.class_name}

    @classmethod
    def spec_of(cls, config: Mapping[str, Any]) -> LatentSpec:
        t = config.get("temporal_compression_ratio", 4)
        return spec_of_diffusers(config, t=t, head=1, step=t)

    def enable_tiling(
        self,
        *,
        height: int = 256,
        width: int = 256,
        overlap_pixels: int = 64,
    ) -> None:
        """Code in overlapping tiles of the given size in pixels.

        Raises:
            ValueError: tiles that do not fit the network's compression.
        """
        check_tile("height", height, overlap_pixels, self.compression.h)
        check_tile("width", width, overlap_pixels, self.compression.w)
        self.network.enable_tiling(
            tile_sample_min_height=height,
            tile_sample_min_width=width,
            tile_sample_stride_height=height - overlap_pixels,
            tile_sample_stride_width=width - overlap_pixels,
        )

    def enable_frame_tiles(self, frames: int = 16, overlap_frames: int = 4) -> None:
        """Code clips of more than `frames` frames in tiles of `frames` + 1 frames.

        Raises:
            ValueError: no multiples of the compression in time.
        """
        check_tile("frames", frames, overlap_frames, self.compression.t)
        network = self.network
        network.tile_sample_min_num_frames = frames
        network.tile_sample_stride_num_frames = frames - overlap_frames
        network.use_framewise_encoding = network.use_framewise_decoding = True

    def disable_frame_tiles(self) -> None:
        """Code clips of any length in one piece: most exact, most memory."""
        self.network.use_framewise_encoding = self.network.use_framewise_decoding = False
