"""The families of video VAEs: their public names, and how a checkpoint of each is recognised."""

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

from mg.vaes.video_vae import VideoVAE
from mg.weights.tae_names import is_tae

__all__ = [
    "FAMILIES",
    "NAMES",
    "family_class",
    "family_of_config",
    "family_of_shapes",
    "recognise",
    "unknown_name",
]

# Family -> module and class. Imported when asked for: mindone alone takes seconds.
FAMILIES = {
    "opensora": ("mg.vaes.opensora", "OpenSoraVAE"),
    "cogvideox": ("mg.vaes.cogvideox", "CogVideoXVAE"),
    "hunyuan": ("mg.vaes.hunyuan", "HunyuanVideoVAE"),
    "sd": ("mg.vaes.autoencoder_kl", "AutoencoderKLVAE"),
    "tae": ("mg.vaes.tae", "TAEVideoVAE"),
}

# Public checkpoints by the name of their repository -> family.
NAMES = {
    "hpcai-tech/OpenSora-VAE-v1.2": "opensora",
    "THUDM/CogVideoX-2b": "cogvideox",
    "THUDM/CogVideoX-5b": "cogvideox",
    "zai-org/CogVideoX-2b": "cogvideox",
    "zai-org/CogVideoX-5b": "cogvideox",
    "tencent/HunyuanVideo": "hunyuan",
    "hunyuanvideo-community/HunyuanVideo": "hunyuan",
    "stabilityai/sd-vae-ft-mse": "sd",
    "stabilityai/sdxl-vae": "sd",
    "stabilityai/stable-diffusion-3.5-large": "sd",
    "stabilityai/stable-diffusion-3.5-medium": "sd",
}

CLASS_FAMILIES = {
    "VideoAutoencoderPipeline": "opensora",
    "AutoencoderKLCogVideoX": "cogvideox",
    "AutoencoderKLHunyuanVideo": "hunyuan",
    "AutoencoderKLCausal3D": "hunyuan",
    "AutoencoderKL": "sd",
    "TemporalAutoencoder": "tae",
}

Shapes = Mapping[str, tuple[int, ...]]


def family_class(family: str) -> type[VideoVAE]:
    """Return the class of a family."""
    module, name = FAMILIES[family]
    return getattr(importlib.import_module(module), name)


def unknown_name(name: str) -> ValueError:
    """Return the error for a name that is neither a path on disk nor a public checkpoint."""
    known = {candidate.lower(): candidate for candidate in NAMES}
    near = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean {known[near[0]]!r}?" if near else f"known names: {', '.join(NAMES)}."
    return ValueError(
        f"{name!r} is neither a file or folder on disk nor a known checkpoint; {hint} Other "
        "checkpoints: download them and give their folder"
    )


def recognise(config: Mapping[str, Any] | None, shapes: Shapes) -> str:
    """Return the family of a checkpoint, as its config and its tensors say.

    Args:
        config: fields of its config.json; None if there is none.
        shapes: of its tensors, by name (diffusers' names of today).

    Raises:
        ValueError: no family is recognised, or config and tensors are of different ones.
    """
    by_config = family_of_config(config) if config else None
    by_shapes = family_of_shapes(shapes)
    if by_shapes is None:
        raise ValueError(
            f"the {len(shapes)} tensors ({', '.join(list(shapes)[:3])}, ...) are no VAE of a known "
            f"family; known are {', '.join(FAMILIES)}"
        )
    if by_config not in (None, by_shapes):
        raise ValueError(
            f"the config is of family {by_config}, the tensors are of family {by_shapes}; the "
            "two belong to different checkpoints"
        )
    return by_shapes


def family_of_config(config: Mapping[str, Any]) -> str | None:
    """Return the family that a config states; None if it states none.

    Raises:
        ValueError: it is the config of a class of no known family.
    """
    stated = config.get("_class_name") or next(iter(config.get("architectures") or []), None)
    stated = stated or config.get("model_type")
    if stated is not None:
        if stated not in CLASS_FAMILIES:
            raise ValueError(
                f"the config is of class {stated!r}; known are {', '.join(CLASS_FAMILIES)}"
            )
        return CLASS_FAMILIES[stated]
    return "tae" if "ch_mult" in config and "temporal_downsample_level" in config else None


def family_of_shapes(shapes: Shapes) -> str | None:
    """Return the family that tensor names and ranks show; None if none is recognised."""
    if is_tae(shapes):
        return "tae"
    if any(name.startswith("temporal_vae.") for name in shapes):
        return "opensora"
    if "decoder.mid_block.resnets.0.norm1.conv_y.conv.weight" in shapes:
        return "cogvideox"
    if "encoder.down_blocks.0.resnets.0.conv1.conv.weight" in shapes:
        return "hunyuan"
    if len(shapes.get("encoder.down_blocks.0.resnets.0.conv1.weight", ())) == 4:
        return "sd"
    return None
