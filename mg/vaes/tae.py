"""The Temporal Autoencoder, and 2-D VAEs inflated into it, as a `VideoVAE`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from mindspore import Tensor

from mg.models.tae.config import TAEConfig
from mg.models.tae.tae import TemporalAutoencoder
from mg.tiling.sizes import Tiling
from mg.vaes.assumed_config import warn_of_assumed
from mg.vaes.video_vae import VideoVAE
from mg.weights.load import check_tae_config
from mg.weights.stored_config import config_metadata
from mg.weights.tae_layers import tae_shapes
from mg.weights.tae_names import infer_tae_config

__all__ = ["TAEVideoVAE"]

# What neither names nor shapes of tensors tell, but results depend on.
UNTOLD_FIELDS = ("temporal_padding", "norm_groups", "scaling_factor", "shift_factor")


class TAEVideoVAE(VideoVAE):
    """Movie Gen's TAE: 8x8x8, any number of frames. `config` has the keys of `TAE_CONFIG`."""

    family = "tae"
    class_name = "TemporalAutoencoder"

    def __init__(self, network: TemporalAutoencoder) -> None:
        config = network.config
        super().__init__(network, config.to_dict(), spec=config.spec)
        # The posterior is what is asked for; a sample beside it would be thrown away.
        network.sample_deterministic = True
        network.set_train(False)

    @classmethod
    def shapes(cls, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        return tae_shapes(_tae_config(config).to_dict())

    @classmethod
    def completed_config(
        cls, config: Mapping[str, Any] | None, tensors: Mapping[str, np.ndarray]
    ) -> dict[str, Any]:
        if config is None:
            fields = TAEConfig().to_dict()
            warn_of_assumed({field: fields[field] for field in UNTOLD_FIELDS})
        completed = {**infer_tae_config(tensors), **(config or {})}
        check_tae_config(tensors, completed)
        return completed

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]
    ) -> "TAEVideoVAE":
        network = TemporalAutoencoder(_tae_config(config))
        network.load_tensors({n: np.asarray(a).astype(np.float32) for n, a in tensors.items()})
        return cls(network)

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        _, mean, logvar = self.network.encode(video)
        return mean, logvar

    def frames_from(self, latent: Tensor, num_frames: int | None) -> Tensor:
        return self.network.decode(latent)

    def enable_tiling(self, **sizes: int) -> None:
        """Encode and decode in tiles of the sizes that `mg.tiling.sizes.Tiling` takes.

        Raises:
            ValueError: sizes that do not fit the network's compression.
        """
        tiling = Tiling(**sizes)
        tiling.check(self.network.spec)
        self.network.tiling = tiling
        self.network.use_tile = True

    def disable_tiling(self) -> None:
        self.network.use_tile = False

    def tensors(self) -> dict[str, np.ndarray]:
        return self.network.tensors()

    def weights_metadata(self) -> dict[str, str]:
        """Return the config, so that the file alone is a whole TAE for the inference scripts."""
        return config_metadata(self.config)


def _tae_config(config: Mapping[str, Any]) -> TAEConfig:
    """Return the config without the fields that only say which class and version wrote it."""
    return TAEConfig.from_mapping({k: v for k, v in config.items() if not k.startswith("_")})
