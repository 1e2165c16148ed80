"""The settings that encode, decode and reconstruct share, and the autoencoder they describe."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

from mg.data.latent_files import LatentInfo
from mg.device import DeviceConfig
from mg.models.tae.config import TAEConfig
from mg.models.tae.tiling import Tiling

if TYPE_CHECKING:  # MindSpore takes seconds to import; a wrong flag is answered before.
    from mg.models.tae.tae import TemporalAutoencoder

__all__ = [
    "AutoencoderConfig",
    "check_latent_config",
    "config_hash",
    "load_autoencoder",
    "tensors_hash",
    "weights_hash",
]

# Fields of the TAE's config that the first latent files did not have.
LATER_FIELDS = ("norm_per_frame", "patch_size", "patch_size_t")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(DeviceConfig):
    """Which autoencoder, and how it runs.

    Args:
        ckpt_path: weights: our .safetensors or .ckpt, a public MindSpore TAE checkpoint, or an
            SD3.5 image VAE.
        model_config: YAML or JSON file with keys of TAE_CONFIG; null takes the config that is
            stored with the weights.
        enable_tile: cut frames into overlapping tiles too, to save memory.
        tiling: sizes of the tiles in frames and pixels.
        memory_budget_gb: with enable_tile, choose the tiles so that this much memory is enough.
        encode_dtype: precision of the encoder, float32, float16 or bfloat16.
        decode_dtype: precision of the decoder, float32, float16 or bfloat16.
    """

    ckpt_path: str
    model_config: str | None = None
    enable_tile: bool = False
    tiling: Tiling = dataclasses.field(default_factory=Tiling)
    memory_budget_gb: float | None = None
    encode_dtype: str = "float32"
    decode_dtype: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory_budget_gb is not None and not self.enable_tile:
            raise ValueError("memory_budget_gb has no effect without enable_tile=True; set both")
        if self.memory_budget_gb is not None and self.memory_budget_gb <= 0:
            raise ValueError(f"memory_budget_gb={self.memory_budget_gb}; expected more than 0")


def load_autoencoder(config: AutoencoderConfig) -> "TemporalAutoencoder":
    """Return the autoencoder with its weights, ready for inference; z is the posterior's mean.

    Raises:
        FileNotFoundError: the weights or the model config do not exist.
        ValueError: they do not fit each other, or tiles that do not fit the network.
    """
    from mg.models.tae.tae import TemporalAutoencoder

    tae = TemporalAutoencoder(
        _read_model_config(config.model_config),
        config.ckpt_path,
        config.enable_tile,
        tiling=config.tiling,
        sample_deterministic=True,
        encode_dtype=config.encode_dtype,
        decode_dtype=config.decode_dtype,
    )
    config.tiling.check(tae.config)
    tae.set_train(False)
    return tae


def _read_model_config(path: str | None) -> TAEConfig | None:
    """Return the TAE config of a YAML or JSON file (JSON is YAML)."""
    if path is None:
        return None
    if not Path(path).is_file():
        raise FileNotFoundError(f"model_config not found: {path}")
    try:
        mapping = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"model_config {path} is neither YAML nor JSON: {error}") from error
    if not isinstance(mapping, dict):
        raise ValueError(f"model_config {path}: expected a mapping with the keys of TAE_CONFIG")
    return TAEConfig.from_mapping(mapping)


def config_hash(config: TAEConfig) -> str:
    """Return the SHA-256 of a config, in hex; equal for equal configs on every machine.

    It also equals that of files that are older than a field, where the field has its default.
    """
    fields, defaults = config.to_dict(), TAEConfig().to_dict()
    for name in LATER_FIELDS:
        if fields[name] == defaults[name]:
            del fields[name]
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def check_latent_config(path: str | os.PathLike, info: LatentInfo, config: TAEConfig) -> None:
    """Raise ValueError, naming the fields, if a latent was made with another config."""
    if info.config_hash == config_hash(config):
        return
    own, stored = config.to_dict(), TAEConfig().to_dict() | info.config
    differing = [
        f"{key} is {value!r} there and {own.get(key)!r} here"
        for key, value in sorted(stored.items())
        if value != own.get(key)
    ]
    reasons = "; ".join(differing) or f"its config hash is {info.config_hash}"
    raise ValueError(
        f"{path} was encoded with another TAE config: {reasons}. Use the weights it was made with"
    )


def weights_hash(tae: "TemporalAutoencoder") -> str:
    """Return the SHA-256 of all parameters, in hex; the same whatever file they came from."""
    return tensors_hash(tae.tensors())


def tensors_hash(tensors: Mapping[str, np.ndarray]) -> str:
    """Return what `weights_hash` returns of an autoencoder with these parameters."""
    digest = hashlib.sha256()
    for name, array in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
