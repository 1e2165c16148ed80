"""The settings that encode, decode and reconstruct share, and the autoencoder they describe."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mg.data.latent_files import LatentInfo
from mg.device import DeviceConfig
from mg.known_names import one_of
from mg.models.families import AUTOENCODERS, autoencoder_family
from mg.models.reading import check_checkpoint, read_autoencoder
from mg.tiling.sizes import Tiling
from mg.yaml_file import read_yaml

if TYPE_CHECKING:  # MindSpore takes seconds to import; a wrong flag is answered before.
    from mg.models.autoencoder import Autoencoder, AutoencoderSettings

__all__ = [
    "AutoencoderConfig",
    "check_autoencoder",
    "check_latent_config",
    "config_hash",
    "framewise_settings",
    "load_autoencoder",
    "tensors_hash",
    "weights_hash",
]

NEVER = object()
# Fields that older configs lack, with the values that mean the same as lacking them.
NEWER_FIELDS = {
    "norm_per_frame": False,
    "patch_size": 1,
    "patch_size_t": 1,
    "linear_path": False,
    "decoder_ch": None,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(DeviceConfig):
    """Which autoencoder, and how it runs.

    Args:
        ckpt_path: weights of an autoencoder of any family: a file, a folder or the name of a
            public one, which is downloaded once.
        method: the family: tae, sd (a 2-D VAE), cogvideox, hunyuan, wan, opensora, causal_vae or
            dc_ae; auto recognises it, local too, and never asks the network.
        inflate_method: how a 2-D VAE is inflated into a TAE: central, replicate or average; with
            none it codes frame by frame.
        key: the weights to take from a file that holds several, such as state_dict; null takes
            those averaged over training, if it has some.
        model_config: YAML or JSON file with the fields of the network's config; null takes the
            config that is stored with the weights.
        enable_tile: cut frames into overlapping tiles too, to save memory.
        tiling: sizes of the tiles in frames and pixels; those of Movie Gen where they are not set,
            or what is next to them that fits the latents.
        framewise: whether the networks of CogVideoX, Wan and HunyuanVideo code clips in time as
            published, in chunks or tiles of a few frames; false codes tiles of tiling.frames.
        memory_budget_gb: with enable_tile, choose the tiles so that this much memory is enough.
        encode_dtype: precision of the encoder, float32, float16 or bfloat16.
        decode_dtype: precision of the decoder, float32, float16 or bfloat16.
    """

    ckpt_path: str
    method: str = one_of("auto", ("auto", "local", *AUTOENCODERS))
    inflate_method: str = one_of("central", ("central", "replicate", "average", "none"))
    key: str | None = None
    model_config: str | None = None
    enable_tile: bool = False
    tiling: Tiling = dataclasses.field(default_factory=Tiling)
    framewise: bool = True
    memory_budget_gb: float | None = None
    encode_dtype: str = "float32"
    decode_dtype: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory_budget_gb is not None and not self.enable_tile:
            raise ValueError("memory_budget_gb has no effect without enable_tile=True; set both")
        if self.memory_budget_gb is not None and self.memory_budget_gb <= 0:
            raise ValueError(f"memory_budget_gb={self.memory_budget_gb}; expected more than 0")


def check_autoencoder(config: AutoencoderConfig, sizes: Iterable[tuple[int, int]] = ()) -> None:
    """Raise as `load_autoencoder` would, and for sizes, as far as no weights need be read for it.

    Args:
        config: which autoencoder.
        sizes: height and width of frames that it is to take.
    """
    spec = check_checkpoint(
        config.ckpt_path,
        method=config.method,
        inflate_method=config.inflate_method,
        config=_read_model_config(config.model_config),
    )
    for size in sizes if spec is not None else ():
        spec.check_video((1, spec.video_channels, 1, *size))


def load_autoencoder(config: AutoencoderConfig) -> "Autoencoder":
    """Return the autoencoder with its weights, ready for inference; z is the posterior's mean.

    Raises:
        FileNotFoundError: the weights or the model config do not exist.
        ValueError: they do not fit each other, or tiles that do not fit the network.
    """
    parts = read_autoencoder(
        config.ckpt_path,
        method=config.method,
        inflate_method=config.inflate_method,
        config=_read_model_config(config.model_config),
        key=config.key,
    )
    # Sizes that nobody set are those that fit the latents.
    tiling = Tiling.default(parts.spec) if config.tiling == Tiling() else config.tiling
    tiling.check(parts.spec)
    network = parts.build(
        use_tile=config.enable_tile,
        tiling=tiling,
        encode_dtype=config.encode_dtype,
        decode_dtype=config.decode_dtype,
    )
    if not config.framewise:
        network.set_framewise(False)
    return network


def _read_model_config(path: str | None) -> dict[str, Any] | None:
    """Return the fields of a config in a YAML or JSON file (JSON is YAML)."""
    if path is None:
        return None
    try:
        mapping = read_yaml(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"model_config not found: {path}") from None
    if not isinstance(mapping, dict):
        raise ValueError(f"model_config {path}: expected a mapping of the config's fields")
    return mapping


def framewise_settings(autoencoder: "Autoencoder") -> dict[str, Any]:
    """Return what to record of the way clips are coded in time; {} where there is no choice."""
    if autoencoder.framewise is False:
        return {"framewise": False}
    tiles = autoencoder.frame_tiles
    return {} if tiles is None else {"frame_tiles": list(tiles)}


def config_hash(config: "AutoencoderSettings") -> str:
    """Return the SHA-256 of a config, in hex; equal for equal configs on every machine.

    It also equals that of files that are older than a field, where the field has its default.
    """
    fields = {
        name: value
        for name, value in config.to_dict().items()
        if NEWER_FIELDS.get(name, NEVER) != value
    }
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def check_latent_config(
    path: str | os.PathLike, info: LatentInfo, config: "AutoencoderSettings", *, family: str
) -> None:
    """Raise ValueError, naming the fields, if a latent was made with another config.

    Args:
        path: of the latent.
        info: what it says of itself.
        config: of the autoencoder that is to decode it.
        family: of that autoencoder.
    """
    if info.family != family:
        raise ValueError(
            f"{path} was encoded by a network of family {info.family!r}, but these are weights of "
            f"family {family!r}. Use the weights it was made with"
        )
    if info.config_hash == config_hash(config):
        return
    # Older files lack the later fields.
    defaults = autoencoder_family(info.family).read_config({}).to_dict()
    own, stored = config.to_dict(), defaults | info.config
    differing = [
        f"{key} is {value!r} there and {own.get(key)!r} here"
        for key, value in sorted(stored.items())
        if value != own.get(key)
    ]
    reasons = "; ".join(differing) or f"its config hash is {info.config_hash}"
    raise ValueError(
        f"{path} was encoded with another config: {reasons}. Use the weights it was made with"
    )


def weights_hash(autoencoder: "Autoencoder") -> str:
    """Return the SHA-256 of all parameters, in hex; the same whatever file they came from."""
    return tensors_hash(autoencoder.tensors())


def tensors_hash(tensors: Mapping[str, np.ndarray]) -> str:
    """Return what `weights_hash` returns of an autoencoder with these parameters."""
    digest = hashlib.sha256()
    for name, array in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
