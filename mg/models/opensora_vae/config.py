"""What Open-Sora's VAE v1.2 is made of: the configs of the temporal VAE and of the whole.

Source: github.com/hpcaitech/Open-Sora, release v1.2; the field names are the ones that its
checkpoints' config.json uses. The defaults are those of the published weights.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mg.known_names import check_known
from mg.latent_spec import LatentSpec
from mg.models.autoencoder_kl.config import AutoencoderKLConfig
from mg.type_checks import check_structure

__all__ = ["OPENSORA_CONFIG", "OpenSoraVAEConfig", "TemporalVAEConfig", "stored_spec"]

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


@dataclasses.dataclass(frozen=True)
class TemporalVAEConfig:
    """The structure of a temporal VAE.

    Raises:
        ValueError: a value that no network can be built from, with what to change.
    """

    in_out_channels: int = 4  # channels of the spatial VAE's latent, which go in and come out
    latent_embed_dim: int = 4  # channels that the decoder takes; the encoder gives twice as many
    embed_dim: int = 4  # channels of the latent
    filters: int = 128  # channels of the first level
    num_res_blocks: int = 4  # residual blocks of each level, and of the middle
    channel_multipliers: tuple[int, ...] = (1, 2, 2, 4)  # channels of each level / filters
    temporal_downsample: tuple[bool, ...] = (False, True, True)  # halve T after each level but last
    num_groups: int = 32  # groups of every GroupNorm
    activation_fn: str = "swish"  # activation function; no other is implemented

    def __post_init__(self) -> None:
        check_structure(self, any_whole=("channel_multipliers",))
        if not self.channel_multipliers:
            raise ValueError("channel_multipliers is empty: a network needs at least one level")
        if len(self.temporal_downsample) != self.num_levels - 1:
            raise ValueError(
                f"temporal_downsample={self.temporal_downsample} has "
                f"{len(self.temporal_downsample)} values; between the {self.num_levels} levels of "
                f"channel_multipliers there are {self.num_levels - 1} places"
            )
        wrong = [width for width in self.widths if width < 1 or width % self.num_groups]
        if wrong:
            raise ValueError(
                f"filters={self.filters} with channel_multipliers={self.channel_multipliers} gives "
                f"levels of {wrong} channels; GroupNorm needs multiples of "
                f"num_groups={self.num_groups}"
            )
        if self.filters % self.num_groups:
            raise ValueError(f"filters={self.filters} is not a multiple of num_groups")
        if self.activation_fn != "swish":
            raise ValueError(
                f"activation_fn={self.activation_fn!r}; the published weights use 'swish', and "
                "no other is supported"
            )

    @property
    def num_levels(self) -> int:
        return len(self.channel_multipliers)

    @property
    def widths(self) -> list[int]:
        """Channels of each level."""
        return [self.filters * multiple for multiple in self.channel_multipliers]

    @property
    def temporal_compression(self) -> int:
        """Frames in per frame of latent."""
        return 2 ** sum(self.temporal_downsample)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "TemporalVAEConfig":
        """Return the config that a mapping describes; fields that it lacks have their defaults.

        Raises:
            ValueError: an unknown field (the nearest right one is named) or a wrong value.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        check_known(mapping, known, kind="field", place="of the temporal VAE")
        return cls(**mapping)


@dataclasses.dataclass(frozen=True)
class OpenSoraVAEConfig:
    """The structure of Open-Sora's VAE.

    Attributes:
        fields: all fields of config.json, which are those below.
        spatial: the 2-D VAE.
        temporal: the temporal VAE.
        architectures, model_type: name of the class in Open-Sora.
        vae_2d: the 2-D VAE: its type, and where its weights are from; `config` describes another
            one than SDXL's.
        vae_temporal: the temporal VAE: its type, and fields that differ from the type's.
        micro_frame_size: frames of video that are coded together; null codes all together.
        shift, scale: mean and deviation of each channel of the latent, to scale it for a
            generator.
    """

    fields: Mapping[str, Any]
    spatial: AutoencoderKLConfig
    temporal: TemporalVAEConfig

    @property
    def micro_frame_size(self) -> int | None:
        """Frames of video that are coded together; None codes all of them together."""
        return self.fields["micro_frame_size"]

    @property
    def spec(self) -> LatentSpec:
        """The size of the latents, and the scale that config.json states."""
        return LatentSpec(
            self.temporal.embed_dim,
            t=self.temporal.temporal_compression,
            h=self.spatial.spatial_compression,
            w=self.spatial.spatial_compression,
            chunk=self.micro_frame_size,
            **_scaling(**self.stated_scaling()),
        )

    def stated_scaling(self) -> dict[str, np.ndarray]:
        """Return `scale` and `shift` in the shapes of the stored tensors."""
        values = {name: np.array(self.fields[name], np.float32) for name in ("scale", "shift")}
        return {
            name: value.reshape(1, -1, 1, 1, 1) if value.ndim else value
            for name, value in values.items()
        }

    @classmethod
    def from_mapping(cls, mapping: "Mapping[str, Any] | OpenSoraVAEConfig") -> "OpenSoraVAEConfig":
        """Return the config that the fields of a config.json describe.

        Those that it lacks are taken from `OPENSORA_CONFIG`.

        Raises:
            ValueError: a value that no network can be built from.
        """
        if isinstance(mapping, cls):
            return mapping
        fields = _completed(mapping)
        spatial = AutoencoderKLConfig.from_mapping(_spatial_fields(fields))
        return cls(fields, spatial, _temporal_config(fields, spatial.latent_channels))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return dict(self.fields)


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


def _spatial_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the 2-D VAE, in diffusers' terms."""
    fields = config["vae_2d"]
    kind = fields.get("type", "VideoAutoencoderKL")
    if kind != "VideoAutoencoderKL":
        raise ValueError(f"vae_2d is of type {kind!r}; known is 'VideoAutoencoderKL'")
    return {**SDXL_CONFIG, **fields.get("config", {})}


def _temporal_config(config: Mapping[str, Any], channels: int) -> TemporalVAEConfig:
    """Return the config of the temporal VAE of 2-D latents of so many channels."""
    fields = dict(config["vae_temporal"])
    fields.pop("from_pretrained", None)
    kind = fields.pop("type", "VAE_Temporal_SD")
    if kind not in TEMPORAL_TYPES:
        raise ValueError(
            f"vae_temporal is of type {kind!r}; known are {', '.join(map(repr, TEMPORAL_TYPES))}"
        )
    temporal = TemporalVAEConfig.from_mapping({**TEMPORAL_TYPES[kind], **fields})
    if temporal.in_out_channels != channels:
        raise ValueError(
            f"vae_temporal takes in_out_channels={temporal.in_out_channels}, but the latents of "
            f"vae_2d have {channels}"
        )
    return temporal


def stored_spec(config: OpenSoraVAEConfig, tensors: Mapping[str, np.ndarray]) -> LatentSpec:
    """Return the spec of the latents, with the scale that is stored among the weights.

    Weights that lack it, which no network takes, leave the config's.
    """
    if not {"scale", "shift"} <= tensors.keys():
        return config.spec
    scaling = _scaling(tensors["scale"], tensors["shift"])
    return dataclasses.replace(config.spec, **scaling)


def _scaling(scale: np.ndarray, shift: np.ndarray) -> dict[str, float | list[float]]:
    """Return factor and offset of a `LatentSpec` for scaled latents (z - shift) / scale."""
    scale, shift = np.float64(scale), np.float64(shift)
    pair = {"factor": 1 / scale, "offset": -shift / scale}
    return {name: v.ravel().tolist() if v.size > 1 else float(v) for name, v in pair.items()}
