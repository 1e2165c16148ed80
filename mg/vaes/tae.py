"""Movie Gen's Temporal Autoencoder as a `VideoVAE`."""

from mg.vaes.video_vae import VideoVAE
from mg.weights.stored_config import config_metadata

__all__ = ["TAEVideoVAE"]


class TAEVideoVAE(VideoVAE):
    """Movie Gen's TAE: 8x8x8, any number of frames. `config` has the keys of `TAE_CONFIG`."""

    family = "tae"

    def weights_metadata(self) -> dict[str, str]:
        """Return the config, so that the file alone is a whole TAE for the inference scripts."""
        return config_metadata(self.network.config.to_dict())
