"""The families of video VAEs, and how a checkpoint of each is recognised."""

import importlib
from collections.abc import Mapping
from typing import Any

from mg.vaes.video_vae import VideoVAE
from mg.weights.families import FAMILIES as KNOWN_WEIGHTS
from mg.weights.families import guess_family
from mg.weights.tae_names import is_tae

__all__ = [
    "FAMILIES",
    "family_class",
    "family_of_config",
    "family_of_shapes",
    "recognise",
]

# Family -> module and class. Imported when asked for: MindSpore takes seconds.
FAMILIES = {
    "opensora": ("mg.vaes.opensora", "OpenSoraVAE"),
    "cogvideox": ("mg.vaes.cogvideox", "CogVideoXVAE"),
    "hunyuan": ("mg.vaes.hunyuan", "HunyuanVideoVAE"),
    "wan": ("mg.vaes.wan", "WanVAE"),
    "causal_vae": ("mg.vaes.causal_vae", "CausalVideoVAE"),
    "dc_ae": ("mg.vaes.dc_ae", "VideoDCAE"),
    "sd": ("mg.vaes.autoencoder_kl", "AutoencoderKLVAE"),
    "tae": ("mg.vaes.tae", "TAEVideoVAE"),
}

CLASS_FAMILIES = {
    "VideoAutoencoderPipeline": "opensora",
    "AutoencoderKLCogVideoX": "cogvideox",
    "AutoencoderKLHunyuanVideo": "hunyuan",
    "AutoencoderKLCausal3D": "hunyuan",
    "AutoencoderKLWan": "wan",
    "CausalVAEModel": "causal_vae",
    "VideoDCAE": "dc_ae",
    "AutoencoderKL": "sd",
    "TemporalAutoencoder": "tae",
}

Shapes = Mapping[str, tuple[int, ...]]


def family_class(family: str) -> type[VideoVAE]:
    """Return the class of a family."""
    module, name = FAMILIES[family]
    return getattr(importlib.import_module(module), name)


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
        kind = guess_family(shapes)
        seen = f"they look like {KNOWN_WEIGHTS[kind].description}" if kind else "they are unknown"
        raise ValueError(
            f"the {len(shapes)} tensors ({', '.join(list(shapes)[:3])}, ...) are of no VAE that "
            f"can be loaded: {seen}; families that can are {', '.join(FAMILIES)}"
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
    architectures = config.get("architectures")
    first = next(iter(architectures), None) if isinstance(architectures, list | tuple) else None
    stated = config.get("_class_name") or first or config.get("model_type")
    if stated is not None:
        if not isinstance(stated, str) or stated not in CLASS_FAMILIES:
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
    if "decoder.mid_block.resnets.0.norm1.gamma" in shapes:
        return "wan"
    if len(shapes.get("encoder.mid.block_1.conv1.conv.weight", ())) == 5:
        return "causal_vae"
    if "decoder.stages.0.op_list.0.main.conv.conv.weight" in shapes:
        return "dc_ae"
    if len(shapes.get("encoder.down_blocks.0.resnets.0.conv1.weight", ())) == 4:
        return "sd"
    return None
