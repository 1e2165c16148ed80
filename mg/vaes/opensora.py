"""Open-Sora's video VAE v1.2 as a `VideoVAE`.

Scaled latents are (z - shift) / scale; both are stored among the weights.
"""

from collections.abc import Mapping
from typing import Any

from mindspore import Tensor

from mg.models.autoencoder import Autoencoder
from mg.vaes.autoencoder_kl import AutoencoderKLVAE
from mg.vaes.video_vae import VideoVAE

__all__ = ["OpenSoraVAE"]


class OpenSoraVAE(VideoVAE):
    """Open-Sora's VAE: 4x8x8, 4 channels, any number of frames, in chunks of `micro_frame_size`."""

    family = "opensora"

    def __init__(self, network: Autoencoder, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(network, config)
        self.spatial = AutoencoderKLVAE(network.spatial_vae.module)

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.moments_of_latents(self.spatial.moments(video)[0])

    def frames_from(self, latent: Tensor, num_frames: int | None) -> Tensor:
        return self.spatial.frames_from(self.network.latents_from(latent, num_frames), None)

    def enable_tiling(self, **sizes: int) -> None:
        """Code each frame in tiles; the temporal VAE works on whole chunks, 8x8 times smaller.

        Args:
            sizes: as for `AutoencoderKLVAE.enable_tiling`.
        """
        self.spatial.enable_tiling(**sizes)

    def disable_tiling(self) -> None:
        self.spatial.disable_tiling()

    def stored_config(self) -> dict[str, Any]:
        return self.config  # which names its class as the transformers package does

    def weights_metadata(self) -> dict[str, str]:
        """Return what the transformers package wants: the name of a framework that it knows."""
        return {"format": "pt"}
