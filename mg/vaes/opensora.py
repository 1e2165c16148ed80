"""Open-Sora's video VAE v1.2 as a `VideoVAE`: a 2-D VAE on each frame, a temporal VAE on top.

    frame latents   x = 0.18215 * mean of the 2-D posterior       (B, 4, T, H/8, W/8)
    latent          posterior of the temporal VAE, chunk by chunk (B, 4, T', H/8, W/8)
    scaled latent   (z - shift) / scale, both stored among the weights

Source: github.com/hpcaitech/Open-Sora, release v1.2. There the encoder draws a sample of the 2-D
posterior; here it takes its mean, so that a video has one posterior (the noise left out is small:
this posterior is narrow).
"""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from mindspore import Tensor, nn, ops

from mg.latent_spec import LatentSpec
from mg.models.opensora_vae.chunks import chunk_lengths, latent_lengths
from mg.models.opensora_vae.config import TemporalVAEConfig, temporal_vae_shapes
from mg.models.opensora_vae.temporal_vae import TemporalVAE
from mg.vaes.autoencoder_kl import AutoencoderKLVAE
from mg.vaes.video_vae import VideoVAE
from mg.weights.tae_names import check_tensors

__all__ = ["OPENSORA_CONFIG", "OpenSoraVAE"]

SPATIAL_PREFIX = "spatial_vae.module."
TEMPORAL_PREFIX = "temporal_vae."

# Not SDXL's 0.13025, from which the 2-D weights come: the temporal weights were trained with this.
SPATIAL_SCALING = 0.18215

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
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "sample_size": 512,
}

# The temporal VAE's type in a config -> the fields in which its defaults differ.
TEMPORAL_TYPES = {
    "VAE_Temporal_SD": {},
    "VAE_Temporal": {"temporal_downsample": (True, True, False)},
}


class OpenSoraNetworks(nn.Cell):
    """The 2-D and the temporal network side by side: one cell with all weights."""

    def __init__(self, spatial_vae: nn.Cell, temporal_vae: TemporalVAE) -> None:
        super().__init__()
        self.spatial_vae = spatial_vae
        self.temporal_vae = temporal_vae


class OpenSoraVAE(VideoVAE):
    """Open-Sora's VAE: 4x8x8, 4 channels, any number of frames, in chunks of `micro_frame_size`.

    Args:
        spatial: the 2-D VAE.
        temporal: the temporal VAE.
        config: fields of config.json; those that it lacks are taken from `OPENSORA_CONFIG`.
        shift, scale: (1, C, 1, 1, 1) or scalars, for scaled latents (z - shift) / scale.
    """

    family = "opensora"
    class_name = "VideoAutoencoderPipeline"
    weights_file = "model.safetensors"  # as the transformers package names it

    def __init__(
        self,
        spatial: AutoencoderKLVAE,
        temporal: TemporalVAE,
        config: Mapping[str, Any],
        *,
        shift: np.ndarray,
        scale: np.ndarray,
    ) -> None:
        self.spatial = spatial
        self.temporal = temporal
        self.scaling_tensors = {
            "scale": np.array(scale, np.float32),
            "shift": np.array(shift, np.float32),
        }
        config = _completed(config)
        super().__init__(
            OpenSoraNetworks(spatial.network, temporal),
            config,
            spec=LatentSpec(
                temporal.config.embed_dim,
                t=temporal.compression,
                h=spatial.spec.h,
                w=spatial.spec.w,
                chunk=config["micro_frame_size"],
                **_scaling(**self.scaling_tensors),
            ),
        )
        self.network.set_train(False)

    @classmethod
    def shapes(cls, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        spatial = AutoencoderKLVAE.shapes(_spatial_config(config))
        temporal = temporal_vae_shapes(_temporal_config(config))
        return {
            **{SPATIAL_PREFIX + name: shape for name, shape in spatial.items()},
            **{TEMPORAL_PREFIX + name: shape for name, shape in temporal.items()},
            **{name: array.shape for name, array in _stated_scaling(config).items()},
        }

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]
    ) -> "OpenSoraVAE":
        check_tensors(tensors, cls.shapes(config))
        temporal = TemporalVAE(_temporal_config(config))
        temporal.load_tensors(_without_prefix(tensors, TEMPORAL_PREFIX))
        spatial = AutoencoderKLVAE.from_tensors(
            _without_prefix(tensors, SPATIAL_PREFIX), _spatial_config(config)
        )
        return cls(spatial, temporal, config, shift=tensors["shift"], scale=tensors["scale"])

    @property
    def micro_frame_size(self) -> int | None:
        """Frames of video that are coded together; None codes all of them together."""
        return self.config["micro_frame_size"]

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        frame_latents = self.spatial.moments(video)[0] * SPATIAL_SCALING
        lengths = chunk_lengths(video.shape[2], self.micro_frame_size)
        chunks = _cut(frame_latents, lengths)
        means, logvars = zip(*(self.temporal.moments(chunk) for chunk in chunks), strict=True)
        return ops.concat(means, 2), ops.concat(logvars, 2)

    def frames_from(self, latent: Tensor, num_frames: int | None) -> Tensor:
        """Return the video (B, 3, T, H, W) of an unscaled latent, T at least `num_frames`.

        Videos of up to 4 different lengths have latents of the same T': the encoder completes the
        last chunk with zeros at its front, and `num_frames` says how many frames to drop there.
        Without it, or where T' is of a longer video, the longest video of that T' comes out.
        """
        num_latents = latent.shape[2]
        if num_frames is None or self.num_latent_frames(num_frames) != num_latents:
            num_frames = self.spec.decoded_frames(num_latents)
        lengths = chunk_lengths(num_frames, self.micro_frame_size)
        chunks = _cut(latent, latent_lengths(lengths, self.compression.t))
        frame_latents = [
            self.temporal.frames_from(chunk, length)
            for chunk, length in zip(chunks, lengths, strict=True)
        ]
        return self.spatial.frames_from(ops.concat(frame_latents, 2) / SPATIAL_SCALING, None)

    def enable_tiling(self, **sizes: int) -> None:
        """Code each frame in tiles; the temporal VAE works on whole chunks, 8x8 times smaller.

        Args:
            sizes: as for `AutoencoderKLVAE.enable_tiling`.
        """
        self.spatial.enable_tiling(**sizes)

    def disable_tiling(self) -> None:
        self.spatial.disable_tiling()

    def tensors(self) -> dict[str, np.ndarray]:
        return {
            **{SPATIAL_PREFIX + name: array for name, array in self.spatial.tensors().items()},
            **{TEMPORAL_PREFIX + name: array for name, array in self.temporal.tensors().items()},
            **{name: array.copy() for name, array in self.scaling_tensors.items()},
        }

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


def _without_prefix(tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(prefix): array
        for name, array in tensors.items()
        if name.startswith(prefix)
    }


def _cut(clip: Tensor, lengths: list[int]) -> list[Tensor]:
    """Return the pieces of (B, C, T, H, W) that have these lengths in time, in order."""
    starts = np.cumsum([0, *lengths])
    return [clip[:, :, int(a) : int(b)] for a, b in itertools.pairwise(starts)]
