"""Image VAE -> CausalVideoVAE: 2-D kernels become one tap in time, what has no source does nothing.

A causal convolution sees a frame through its last tap, and through the others the frames before it;
so the last tap takes the 2-D kernel. (The middle one would delay a clip by a frame with every
convolution.) Open-Sora Plan starts its networks so. Weights of Stable Diffusion's names need no
more than that: CausalVideoVAE has the same layers, and beside them those that sample time.
"""

import logging
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mg.models.causal_vae.config import DOWNSAMPLERS, UPSAMPLERS, CausalVAEConfig
from mg.models.causal_vae.names import MIX, MIX_ADVANCED
from mg.weights.image_vae import DEFAULT_NORM_GROUPS, image_vae_config
from mg.weights.vae_names import from_ldm

__all__ = ["METHODS", "inflate_image_vae", "usual_fields"]

logger = logging.getLogger("mg")

Shape = tuple[int, ...]

METHODS = ("central", "tail", "replicate", "average")
SPREAD = ("replicate", "average")
# What a network that is not told takes: attention that keeps frames apart.
ATTENTION = "AttnBlock3DFix"
LINEAR_UPSAMPLERS = ("Spatial2x3DUpsample", "Spatial2xTime2x3DUpsample")
DRAWN = re.compile(r"\.(?:[qkv](?:\.conv)?|res\.conv1\.conv)\.weight$")
ZERO = re.compile(r"\.(?:proj_out|res\.conv2)\b.*\.weight$")


def inflate_image_vae(
    tensors: Mapping[str, np.ndarray],
    config: Mapping[str, Any] | None,
    stated: Mapping[str, Any],
    *,
    method: str,
    shapes: Callable[[CausalVAEConfig], Mapping[str, Shape]],
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return (all tensors of a CausalVideoVAE in float32, the fields of its config).

    What it then has in common with the image VAE:

        method               an image   a still clip   a moving clip
        central, tail        equal      equal          differs: its frames share the statistics of
                                                       each GroupNorm, and time is sampled
        replicate, average   equal      equal          motion blurs over earlier frames besides

    A still clip needs `AttnBlock3DFix` or `AttnBlock`: v1.0's `AttnBlock3D` takes channels of
    several frames together.

    Args:
        tensors: of the image VAE, under diffusers' names of today.
        config: fields of the CausalVideoVAE's config; None takes the usual samplers and
            `AttnBlock3DFix`, in the image VAE's sizes.
        stated: what the image VAE's config.json says (`mg.weights.image_vae.fields_of_vae_config`).
        method: `central` and `tail`, which are the same here, put a 2-D kernel into the last tap;
            `replicate` and `average` put a k-th of it into each of k taps.
        shapes: from a config to {name: shape} of its network.

    Raises:
        ValueError: the tensors are not an image VAE's, hold infinities or NaN, or do not fit the
            config; the fields that disagree are named. Or an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"inflate_method={method!r}; expected one of {', '.join(METHODS)}")
    given = None if config is None else CausalVAEConfig.from_mapping(config)
    groups = DEFAULT_NORM_GROUPS if given is None else given.norm_num_groups
    image = image_vae_config(tensors, norm_groups=stated.get("norm_groups", groups))
    if given is None:
        given = CausalVAEConfig(**usual_fields(image, stated))
    _check_fit(given, image)
    _warn_of_differences(given, stated)
    inflated = {}
    for name, shape in shapes(given).items():
        source = _source(name, given.num_levels, tensors)
        if source is None:
            inflated[name] = _neutral(name, shape, given, spread=method in SPREAD)
        else:
            inflated[name] = _inflated(source, tensors[source], name, shape, method in SPREAD)
    return inflated, given.to_dict()


def usual_fields(image: Mapping[str, Any], stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the config that an image VAE suggests.

    Time is halved twice at most, behind the last levels.

    Args:
        image: from `mg.weights.image_vae.image_vae_config`.
        stated: as for `inflate_image_vae`.
    """
    num_levels = len(image["ch_mult"])
    num_halvings = num_levels - 1
    in_time = min(2, num_halvings)
    early = ("",) * (num_halvings - in_time)
    factor = stated.get("scaling_factor", image["scaling_factor"])
    return {
        "hidden_size": image["ch"],
        "hidden_size_mult": tuple(image["ch_mult"]),
        "num_res_blocks": image["num_res_blocks"],
        "z_channels": image["z_channels"],
        "embed_dim": image["z_channels"],
        "use_quant_layer": image["use_quant_conv"] or image["use_post_quant_conv"],
        "norm_num_groups": image["norm_groups"],
        "scaling_factor": factor,
        "encoder_attention": ATTENTION,
        "decoder_attention": ATTENTION,
        "encoder_resnet_blocks": ("ResnetBlock3D",) * num_levels,
        "decoder_resnet_blocks": ("ResnetBlock3D",) * num_levels,
        "encoder_spatial_downsample": (*("SpatialDownsample2x",) * num_halvings, ""),
        "encoder_temporal_downsample": (*early, *("TimeDownsample2x",) * in_time, ""),
        "decoder_spatial_upsample": ("", *("SpatialUpsample2x",) * num_halvings),
        "decoder_temporal_upsample": ("", *early, *("TimeUpsample2x",) * in_time),
    }


def _check_fit(config: CausalVAEConfig, image: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the fields, unless the network has the image VAE's layers."""
    sizes = {
        "hidden_size": image["ch"],
        "hidden_size_mult": list(image["ch_mult"]),
        "num_res_blocks": image["num_res_blocks"],
        "z_channels": image["z_channels"],
        "norm_num_groups": image["norm_groups"],
    }
    if config.use_quant_layer:
        sizes["embed_dim"] = image["z_channels"]
    elif image["use_quant_conv"] or image["use_post_quant_conv"]:
        sizes["use_quant_layer"] = True
    faults = []
    for name, there in sizes.items():
        here = getattr(config, name)
        here = list(here) if isinstance(here, tuple) else here
        if here != there:
            faults.append(f"{name} is {here} in the config and {there} in the weights")
    halvings = config.num_levels - 1
    down = [DOWNSAMPLERS[name][1] for name in config.encoder_spatial_downsample[:-1]]
    up = [UPSAMPLERS[name][1] for name in config.decoder_spatial_upsample]
    if down != [2] * halvings or up != [1] + [2] * halvings:
        faults.append(
            "encoder_spatial_downsample and decoder_spatial_upsample do not halve and double "
            "between each two levels, as the image VAE does"
        )
    for half in ("encoder", "decoder"):
        if getattr(config, f"{half}_attention") == "TemporalAttnBlock":
            faults.append(
                f"{half}_attention is TemporalAttnBlock, which attends along time, and the image "
                f"VAE's attends in a frame; take {ATTENTION}"
            )
    if faults:
        raise ValueError(
            "the image VAE does not fit the config of the CausalVideoVAE: " + "; ".join(faults)
        )


def _warn_of_differences(config: CausalVAEConfig, stated: Mapping[str, Any]) -> None:
    if "AttnBlock3D" in (config.encoder_attention, config.decoder_attention):
        logger.warning(
            "AttnBlock3D takes channels of several frames together: inflated, the network codes an "
            "image like the image VAE, but no clip; %s does",
            ATTENTION,
        )
    if set(LINEAR_UPSAMPLERS) & set(config.decoder_spatial_upsample):
        logger.warning(
            "%s interpolate where the image VAE repeats pixels: inflated, the network decodes even "
            "an image somewhat differently; SpatialUpsample2x does not",
            " and ".join(LINEAR_UPSAMPLERS),
        )
    if stated.get("shift_factor"):
        logger.warning(
            "the image VAE's shift_factor=%s is left out: a CausalVideoVAE has a scaling_factor "
            "alone",
            stated["shift_factor"],
        )


def _source(name: str, num_levels: int, tensors: Mapping[str, np.ndarray]) -> str | None:
    """Return the image VAE's tensor that one of the CausalVideoVAE is made from, if any."""
    without_wrapper = re.sub(r"\.conv\.(weight|bias)$", r".\1", name)
    for candidate in (without_wrapper, name):  # a 2-D sampler's own name ends in .conv.weight
        source = from_ldm(candidate, num_levels)
        if source in tensors:
            return source
    return None


def _inflated(source: str, array: np.ndarray, name: str, shape: Shape, spread: bool) -> np.ndarray:
    """Return a tensor of the image VAE in the shape of the CausalVideoVAE's, in float32."""
    array = np.array(array, np.float32)
    if not np.isfinite(array).all():
        raise ValueError(f"tensor {source!r} holds infinities or NaN; the file is damaged")
    if array.ndim == 2:  # attention: (C, C)
        array = array[..., None, None]
    in_space = shape if len(shape) < 5 else (*shape[:2], *shape[3:])
    if array.shape != tuple(in_space):
        raise ValueError(
            f"tensor {source!r} is {array.shape}, and {name!r} has room for {tuple(in_space)}"
        )
    return array if len(shape) < 5 else _along_time(array, shape[2], spread)


def _along_time(kernel: np.ndarray, num_taps: int, spread: bool) -> np.ndarray:
    """Return a kernel (O, I, H, W) as (O, I, T, H, W)."""
    if spread:
        return np.stack([kernel / num_taps] * num_taps, axis=2)
    before = np.zeros_like(kernel)
    return np.stack([before] * (num_taps - 1) + [kernel], axis=2)


def _neutral(name: str, shape: Shape, config: CausalVAEConfig, *, spread: bool) -> np.ndarray:
    """Return the start of a tensor without a source: the layer changes nothing.

    Samplers of time and quantisation convolutions pass on what they get. Attention and residual
    blocks add nothing: their last weight is zero, the others are drawn by their names.
    """
    if name.endswith(".mix_factor"):
        half, _, level = name.split(".")[:3]
        samplers = (
            config.encoder_temporal_downsample
            if half == "encoder"
            else config.decoder_temporal_upsample
        )
        is_advanced = samplers[int(level)].endswith("ResAdv2x")
        return np.full(shape, MIX_ADVANCED if is_advanced else MIX, np.float32)
    if len(shape) == 1:
        return (np.zeros if name.endswith(".bias") else np.ones)(shape, np.float32)
    if ZERO.search(name):
        return np.zeros(shape, np.float32)
    if DRAWN.search(name):
        generator = np.random.default_rng(zlib.crc32(name.encode()))
        spread_of = np.sqrt(np.prod(shape[1:]))
        return (generator.standard_normal(shape) / spread_of).astype(np.float32)
    height, width = shape[-2:]
    kernel = np.zeros((*shape[:2], height, width), np.float32)
    kernel[:, :, height // 2, width // 2] = np.eye(*shape[:2])
    return kernel if len(shape) < 5 else _along_time(kernel, shape[2], spread)
