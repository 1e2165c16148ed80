"""Open-Sora's video VAE v1.2 as a `VideoVAE`.

Scaled latents are (z - shift) / scale; both are stored among the weights.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from mindspore import Tensor

from mg.latent_spec import LatentSpec
from mg.models.autoencoder_kl.config import AutoencoderKLConfig
from mg.models.autoencoder_kl.network import AutoencoderKL
from mg.models.opensora_vae.config import TemporalVAEConfig
from mg.models.opensora_vae.network import OpenSoraNetwork
from mg.models.opensora_vae.temporal_vae import TemporalVAE
from mg.vaes.assumed_config import warn_of_assumed
from mg.vaes.autoencoder_kl import AutoencoderKLVAE
from mg.vaes.diffusers_vae import NetworkVAE
from mg.vaes.networks import built_without_values

__all__ = ["OPENSORA_CONFIG", "OpenSoraVAE"]

# The published checkpoint's fields that matter here; a config that lacks one gets it from here.
# Its `micro_batch_size`, frames that go through the 2-D VAE together, would only change memory.
OPENSORA_CONFIG = {
    "architectures": ["VideoAutoencoderPipeline"],
    "model_type": "VideoAutoencoderPipeline",
    "vae_2d": {
        "type": "VideoAutoencoderKL",
        "from_pretrained": "PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers",
        "subfolder": "vae",
    },
    "vae_temporal": {"type": "VAE_Temporal_SD", "from_pretrained": None},
    "micro_frame_size": 17,
    "shift": [-0.10, 0.34, 0.27, 0.98],
    "scale": [3.85, 2.32, 2.33, 3.06],
}

# The 2-D VAE that such a checkpoint names but does not describe: SDXL's. Another one is described
# by a `config` in `vae_2d`, with the fields of diffusers' AutoencoderKL.
SDXL_CONFIG = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "sample_size": 512,
}

# The temporal VAE's type in a config -> the fields in which its defaults differ.
TEMPORAL_TYPES = {
    "VAE_Temporal_SD": {},
    "VAE_Temporal": {"temporal_downsample": (True, True, False)},
}


class OpenSoraVAE(NetworkVAE):
    """Open-Sora's VAE: 4x8x8, 4 channels, any number of frames, in chunks of `micro_frame_size`.

    Args:
        network: the networks, with their weights.
        config: fields of config.json; those that it lacks are taken from `OPENSORA_CONFIG`.
    """

    family = "opensora"
    class_name = "VideoAutoencoderPipeline"
    weights_file = "model.safetensors"  # as the transformers package names it

    def __init__(self, network: OpenSoraNetwork, config: Mapping[str, Any]) -> None:
        self.temporal = network.temporal_vae
        self.spatial = AutoencoderKLVAE(network.spatial_vae.module, _spatial_config(config))
        config = _completed(config)
        # The checkpoint's own shift and scale, not its config's.
        super().__init__(
            network,
            config,
            spec=LatentSpec(
                self.temporal.config.embed_dim,
                t=network.compression,
                h=self.spatial.spec.h,
                w=self.spatial.spec.w,
                chunk=config["micro_frame_size"],
                **_scaling(network.scale.asnumpy(), network.shift.asnumpy()),
            ),
        )
        network.set_train(False)

    @classmethod
    def _build(cls, config: Mapping[str, Any]) -> OpenSoraNetwork:
        spatial = AutoencoderKLConfig.from_mapping(_spatial_config(config))
        temporal = _temporal_config(config)
        return built_without_values(
            lambda: OpenSoraNetwork(
                AutoencoderKL(spatial),
                TemporalVAE(temporal),
                micro_frame_size=_completed(config)["micro_frame_size"],
                **_stated_scaling(config),
            )
        )

    @classmethod
    def completed_config(
        cls, config: Mapping[str, Any] | None, tensors: Mapping[str, np.ndarray]
    ) -> dict[str, Any]:
        if config is None:  # the one published config, and the scaling of the weights
            warn_of_assumed({"micro_frame_size": OPENSORA_CONFIG["micro_frame_size"]})
        return dict(config or {})

    @property
    def micro_frame_size(self) -> int | None:
        """Frames of video that are coded together; None codes all of them together."""
        return self.config["micro_frame_size"]

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
        return self.config

    def weights_metadata(self) -> dict[str, str]:
        """Return what the transformers package wants: the name of a framework that it knows."""
        return {"format": "pt"}


def _completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config with the published values for what it lacks, checked.

    Raises:
        ValueError: a field with a value that cannot be.
    """
    config = {**OPENSORA_CONFIG, **config}
    size = config["micro_frame_size"]
    if size is not None and (type(size) is not int or size < 1):
        raise ValueError(
            f"micro_frame_size={size!r}; expected a number of frames (17 in the published "
            "checkpoint), or null to code all frames together"
        )
    for field in ("vae_2d", "vae_temporal"):
        if not isinstance(config[field], Mapping):
            raise ValueError(f"{field}={config[field]!r}; expected an object with a 'type'")
    return config


def _spatial_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the 2-D VAE, in diffusers' terms."""
    fields = _completed(config)["vae_2d"]
    kind = fields.get("type", "VideoAutoencoderKL")
    if kind != "VideoAutoencoderKL":
        raise ValueError(f"vae_2d is of type {kind!r}; known is 'VideoAutoencoderKL'")
    return {**SDXL_CONFIG, **fields.get("config", {})}


def _temporal_config(config: Mapping[str, Any]) -> TemporalVAEConfig:
    fields = dict(_completed(config)["vae_temporal"])
    fields.pop("from_pretrained", None)
    kind = fields.pop("type", "VAE_Temporal_SD")
    if kind not in TEMPORAL_TYPES:
        raise ValueError(
            f"vae_temporal is of type {kind!r}; known are {', '.join(map(repr, TEMPORAL_TYPES))}"
        )
    temporal = TemporalVAEConfig.from_mapping({**TEMPORAL_TYPES[kind], **fields})
    channels = _spatial_config(config)["latent_channels"]
    if temporal.in_out_channels != channels:
        raise ValueError(
            f"vae_temporal takes in_out_channels={temporal.in_out_channels}, but the latents of "
            f"vae_2d have {channels}"
        )
    return temporal


def _stated_scaling(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return `scale` and `shift` as the config has them, in the shapes of the stored tensors."""
    config = _completed(config)
    values = {name: np.array(config[name], np.float32) for name in ("scale", "shift")}
    return {
        name: value.reshape(1, -1, 1, 1, 1) if value.ndim else value
        for name, value in values.items()
    }


def _scaling(scale: np.ndarray, shift: np.ndarray) -> dict[str, float | list[float]]:
    """Return factor and offset of a `LatentSpec` for scaled latents (z - shift) / scale."""
    scale, shift = np.float64(scale), np.float64(shift)
    pair = {"factor": 1 / scale, "offset": -shift / scale}
    return {name: v.ravel().tolist() if v.size > 1 else float(v) for name, v in pair.items()}
