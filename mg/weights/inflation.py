"""Image VAE -> TAE: the spatial halves are copied, the temporal ones start neutral.

Movie Gen (arXiv 2410.13720, section 3.1.1) starts the TAE from an image autoencoder with 16 latent
channels, which the VAE of Stable Diffusion 3.5 has; those of Stable Diffusion and SDXL (4 channels)
fit as well. Whatever has no source is chosen so that the TAE **is** the image VAE on a single
image: temporal kernels pass their input on, and the temporal attention's output projection is zero.
"""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mg.weights.image_vae import DEFAULT_NORM_GROUPS, image_vae_config, temporal_levels
from mg.weights.tae_layers import Layer, tae_layers, tae_shapes
from mg.weights.tae_names import is_tae
from mg.weights.tensor_check import check_tensors
from mg.weights.vae_names import to_diffusers_names

__all__ = [
    "METHODS",
    "STRUCTURE_KEYS",
    "TEMPORAL_PADDINGS",
    "inflate_image_tae",
    "inflate_image_vae",
]

METHODS = ("central", "replicate", "average")
TEMPORAL_PADDINGS = ("published", "replicate")
TEMPORAL_KEYS = ("temporal_downsample_level", "temporal_upsample_level", "norm_per_frame")
STRUCTURE_KEYS = (*TEMPORAL_KEYS, "attn_type", "norm_groups", "scaling_factor", "shift_factor")


def inflate_image_vae(
    tensors: Mapping[str, np.ndarray],
    *,
    method: str = "central",
    temporal_padding: str = "published",
    structure: Mapping[str, Any] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return (all tensors of a TAE in float32, its config) made from an image VAE's tensors.

    Inflating a 2-D kernel to k frames puts it into the middle tap (`central`), or 1/k of it into
    every tap: `replicate` repeats it and divides by k, `average` takes the mean over the taps.
    Both give the same numbers, in a 3-D kernel and here. In the TAE's 2.5-D convolution the 2-D
    kernel stays whole in the spatial half and the rule acts on the temporal half, whose 2-D
    counterpart is the identity: identity in the middle tap, or 1/3 of it in each of three. The TAE
    is not causal: the middle tap is the frame itself. (In a causal network that is the last tap.)

    What the TAE then has in common with the image VAE:

        method               an image   a still clip   a moving clip
        central              equal      equal          equal with norm_per_frame, at every frame
                                                       that the temporal levels keep
        replicate, average   equal      equal          motion blurs over neighbouring frames

    Without norm_per_frame all frames of a clip share the statistics of each GroupNorm, which a
    moving clip shows. Without temporal levels every frame is kept; each level keeps the frames
    0, 2, 4, ....

    A spread kernel needs taps that always see a real frame: the temporal upsampling layers of the
    `published` padding, which surround the clip with zero frames, would darken its ends to 2/3 and
    therefore stay central.

    Temporal attention starts with q, k, v drawn from a normal of variance 1/C, by a seed made
    from each tensor's name (so the result is always the same), zero biases, and a zero output
    projection, so that it adds nothing until it is trained.

    Args:
        tensors: the arrays of an image VAE like Stable Diffusion's, SDXL's or SD3.5's, of any
            float type, size and number of latent channels, with or without quantisation
            convolutions, under the names of diffusers (today's or former) or of LDM.
        method: `central`, `replicate` or `average`.
        temporal_padding: the padding of the TAE to come, `published` or `replicate`.
        structure: config fields of the TAE to come that the VAE's tensors leave open: any of
            `STRUCTURE_KEYS`. By default there is temporal attention, every level that halves
            height and width halves the time as well, GroupNorms have 32 groups and pool all
            frames, and the scaling is guessed (`mg.weights.image_vae.assumed_scaling`). What the
            VAE's config.json states comes from `mg.weights.image_vae.fields_of_vae_config`.

    Raises:
        ValueError: the tensors are not such a VAE's (the message says why), hold infinities or
            NaN, or an argument is unknown.
    """
    _check_choices(method, temporal_padding)
    structure = _checked_structure(structure, STRUCTURE_KEYS)
    if not is_tae(tensors):
        tensors = to_diffusers_names(tensors)
    found = image_vae_config(tensors, norm_groups=structure.get("norm_groups", DEFAULT_NORM_GROUPS))
    config = {**found, **structure, "temporal_padding": temporal_padding}
    inflated = {}
    for layer in tae_layers(config):
        copied = _copied(layer, tensors)
        for suffix, shape in layer.tae_shapes().items():
            name = layer.name + suffix
            if suffix in copied:
                inflated[name] = copied[suffix].reshape(shape)  # attention: (C, C) -> (C, C, 1, 1)
            else:
                inflated[name] = _neutral(
                    name, shape, spread=_is_spread(layer, method, temporal_padding)
                )
    return inflated, config


def inflate_image_tae(
    tensors: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    *,
    method: str = "central",
    temporal_padding: str = "published",
    structure: Mapping[str, Any] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return (tensors, config) of a video TAE from a TAE that was trained on images.

    The image TAE has no temporal levels. Every level that halves height and width gets temporal
    resampling, and the middle gets temporal attention, all with the neutral start that
    `inflate_image_vae` describes; every tensor that is there already is kept.

    Args:
        tensors: the image TAE's arrays, under the network's names.
        config: its config.
        method: `central`, `replicate` or `average`, for the temporal resampling.
        temporal_padding: of the TAE to come, `published` or `replicate`.
        structure: config fields of the TAE to come that differ from the above: any of
            `TEMPORAL_KEYS`. (On images norm_per_frame makes no difference.)

    Raises:
        ValueError: the TAE has temporal levels already, its tensors do not fit its config, or an
            argument is unknown.
    """
    _check_choices(method, temporal_padding)
    structure = _checked_structure(structure, TEMPORAL_KEYS)
    if config["temporal_downsample_level"] or config["temporal_upsample_level"]:
        raise ValueError("these weights are a video TAE already; load them as they are")
    check_tensors(tensors, tae_shapes(config))
    inflated_config = {
        **config,
        "attn_type": "vanilla",
        **temporal_levels(len(config["ch_mult"])),
        **structure,
        "temporal_padding": temporal_padding,
    }
    inflated = {}
    for layer in tae_layers(inflated_config):
        spread = _is_spread(layer, method, temporal_padding)
        for suffix, shape in layer.tae_shapes().items():
            name = layer.name + suffix
            kept = tensors.get(name)
            inflated[name] = (
                np.array(kept, np.float32)
                if kept is not None
                else _neutral(name, shape, spread=spread)
            )
    return inflated, inflated_config


def _check_choices(method: str, temporal_padding: str) -> None:
    for given, known in ((method, METHODS), (temporal_padding, TEMPORAL_PADDINGS)):
        if given not in known:
            raise ValueError(f"unknown choice {given!r}; choose one of {', '.join(known)}")


def _checked_structure(
    structure: Mapping[str, Any] | None, known: tuple[str, ...]
) -> Mapping[str, Any]:
    unknown = sorted(set(structure or {}) - set(known))
    if unknown:
        raise ValueError(f"structure decides {', '.join(known)}, not {unknown[0]!r}")
    return structure or {}


def _is_spread(layer: Layer, method: str, temporal_padding: str) -> bool:
    """Return whether a temporal kernel starts spread over its taps instead of central."""
    sees_zero_frames = layer.kind == "temporal_up" and temporal_padding == "published"
    return method != "central" and not sees_zero_frames


def _copied(layer: Layer, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return {suffix in the TAE: float32 copy} of what the layer takes from the image VAE."""
    copied = {}
    for suffix in layer.source_shapes():
        name = f"{layer.source}{suffix}"
        array = np.array(tensors[name], np.float32)
        if not np.isfinite(array).all():
            raise ValueError(f"tensor {name!r} holds infinities or NaN; the file is damaged")
        copied[layer.target_suffix(suffix)] = array
    return copied


def _neutral(name: str, shape: tuple[int, ...], *, spread: bool) -> np.ndarray:
    """Return the start of a tensor without source: the layer then changes nothing.

    Args:
        name: its name in the TAE.
        shape: its shape; a temporal kernel's is (C, C, 1, taps).
        spread: whether a temporal kernel is spread over its taps.
    """
    if name.endswith(".gamma"):
        return np.ones(shape, np.float32)
    if len(shape) == 1 or name.endswith(".proj_out.weight"):
        return np.zeros(shape, np.float32)
    channels, taps = shape[0], shape[-1]
    if len(shape) == 2:
        generator = np.random.default_rng(zlib.crc32(name.encode()))
        return (generator.standard_normal(shape) / np.sqrt(channels)).astype(np.float32)
    kernel = np.zeros(shape, np.float32)
    identity = np.eye(channels, dtype=np.float32)
    if spread:
        kernel[:, :, 0, :] = identity[:, :, None] / taps
    else:
        kernel[:, :, 0, taps // 2] = identity
    return kernel
