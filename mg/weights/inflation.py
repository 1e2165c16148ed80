"""SD3.5-type image VAE -> TAE: the spatial halves are copied, the temporal ones start neutral.

Movie Gen (arXiv 2410.13720, section 3.1.1) starts the TAE from an image autoencoder; with 16
latent channels the VAE of Stable Diffusion 3.5 fits. Whatever has no source is chosen so that the
TAE **is** the image VAE on a single image: temporal kernels pass their input on, and the temporal
attention's output projection is zero.
"""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mg.weights.tae_layers import Layer, sd35_shapes, tae_layers, tae_shapes
from mg.weights.tae_names import check_tensors, count_levels, is_tae

__all__ = [
    "METHODS",
    "STRUCTURE_KEYS",
    "TEMPORAL_PADDINGS",
    "inflate_image_tae",
    "inflate_image_vae",
    "sd35_config",
]

METHODS = ("central", "replicate", "average")
TEMPORAL_PADDINGS = ("published", "replicate")
STRUCTURE_KEYS = ("attn_type", "temporal_downsample_level", "temporal_upsample_level")

Z_CHANNELS = 16
NORM_GROUPS = 32


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
    counterpart is the identity: identity in the middle tap, or 1/3 of it in each of three.

    `central` gives the image VAE on images and is the start the paper's recipe wants. A spread
    kernel gives it on images and still clips too, but blurs motion over neighbouring frames. It
    needs taps that always see a real frame: the temporal upsampling layers of the `published`
    padding, which surround the clip with zero frames, would darken its ends to 2/3 and therefore
    stay central; their downsampling repeats the last frame and may spread.

    Temporal attention starts with q, k, v drawn from a normal of variance 1/C, by a seed made
    from each tensor's name (so the result is always the same), zero biases, and a zero output
    projection, so that it adds nothing until it is trained.

    Args:
        tensors: an SD3.5-type VAE's arrays (diffusers naming), of any float type and any size.
        method: `central`, `replicate` or `average`.
        temporal_padding: the padding of the TAE to come, `published` or `replicate`.
        structure: config fields of the TAE to come that an image VAE leaves open: any of
            `STRUCTURE_KEYS`. By default there is temporal attention, and every level that halves
            height and width halves the time as well.

    Raises:
        ValueError: the tensors are not such a VAE's (the message says why), hold infinities or
            NaN, or an argument is unknown.
    """
    _check_choices(method, temporal_padding)
    unknown = sorted(set(structure or {}) - set(STRUCTURE_KEYS))
    if unknown:
        raise ValueError(f"structure decides {', '.join(STRUCTURE_KEYS)}, not {unknown[0]!r}")
    config = {**sd35_config(tensors), **(structure or {}), "temporal_padding": temporal_padding}
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

    Raises:
        ValueError: the TAE has temporal levels already, its tensors do not fit its config, or an
            argument is unknown.
    """
    _check_choices(method, temporal_padding)
    if config["temporal_downsample_level"] or config["temporal_upsample_level"]:
        raise ValueError("these weights are a video TAE already; load them as they are")
    check_tensors(tensors, tae_shapes(config))
    levels = len(config["ch_mult"])
    inflated_config = {
        **config,
        "attn_type": "vanilla",
        "temporal_downsample_level": list(range(levels - 1)),
        "temporal_upsample_level": list(range(levels - 1, 0, -1)),
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


def _is_spread(layer: Layer, method: str, temporal_padding: str) -> bool:
    """Return whether a temporal kernel starts spread over its taps instead of central."""
    sees_zero_frames = layer.kind == "temporal_up" and temporal_padding == "published"
    return method != "central" and not sees_zero_frames


def sd35_config(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the config of the TAE that fits an SD3.5-type image VAE, read off its shapes.

    What the shapes leave open (`STRUCTURE_KEYS`, the scaling) is as in `TAE_CONFIG`.

    Raises:
        ValueError: it is no such VAE; says what is missing, unexpected or of another size.
    """
    _refuse_other_kinds(tensors)
    z = tensors["decoder.conv_in.weight"].shape[1]
    levels = count_levels(tensors, r"encoder\.down_blocks\.(\d+)\.")
    ch, in_channels = tensors["encoder.conv_in.weight"].shape[:2]
    widths = [
        tensors.get(f"encoder.down_blocks.{i}.resnets.0.conv1.weight", np.empty(0)).shape[0]
        for i in range(levels)
    ]
    if ch % NORM_GROUPS or any(width == 0 or width % ch for width in widths):
        raise ValueError(
            f"not an SD3.5-type VAE: its levels have {widths} channels after a first convolution "
            f"to {ch}; expected multiples of that, and that a multiple of {NORM_GROUPS}"
        )
    config = {
        "double_z": True,
        "z_channels": z,
        "resolution": 256,
        "in_channels": in_channels,
        "out_ch": tensors["decoder.conv_out.weight"].shape[0],
        "ch": ch,
        "ch_mult": [width // ch for width in widths],
        "num_res_blocks": count_levels(tensors, r"encoder\.down_blocks\.0\.resnets\.(\d+)\."),
        "attn_resolutions": [],
        "dropout": 0.0,
        "scaling_factor": 1.5305,
        "shift_factor": 0.0609,
        "use_post_quant_conv": False,
        "use_quant_conv": False,
        "attn_type": "vanilla",
        "temporal_downsample_level": list(range(levels - 1)),
        "temporal_upsample_level": list(range(levels - 1, 0, -1)),
    }
    try:
        check_tensors(tensors, sd35_shapes(config))
    except ValueError as error:
        raise ValueError(f"not an SD3.5-type VAE: {error}") from error
    return config


def _refuse_other_kinds(tensors: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError, with the reason, for what is recognisably something else."""
    if is_tae(tensors):
        raise ValueError("these weights are a TAE already, not an image VAE; load them as they are")
    if any(".down.0.block.0." in name for name in tensors):
        raise ValueError(
            "these weights have the original (LDM) names such as encoder.down.0.block.0; give the "
            "diffusers file, vae/diffusion_pytorch_model.safetensors"
        )
    ends = [
        f"{half}.{conv}.weight"
        for half in ("encoder", "decoder")
        for conv in ("conv_in", "conv_out")
    ]
    missing = [name for name in ends if name not in tensors]
    if not any(name.startswith("encoder.down_blocks.0.") for name in tensors):
        missing.append("encoder.down_blocks.0")
    if missing:
        raise ValueError(
            f"not an SD3.5-type VAE: it lacks {', '.join(missing)} (of the "
            f"file's {len(tensors)} tensors the first are {', '.join(list(tensors)[:3])})"
        )
    if any(tensors[name].ndim != 4 for name in ends):
        raise ValueError(
            "not an SD3.5-type VAE: its convolutions are not 2-D (a video VAE's weights?)"
        )
    reasons = []
    z, num_moments = tensors[ends[2]].shape[1], tensors[ends[1]].shape[0]
    if z != Z_CHANNELS or num_moments != 2 * Z_CHANNELS:
        reasons.append(
            f"it has {z} latent channels ({num_moments} from the encoder), expected {Z_CHANNELS} "
            f"({2 * Z_CHANNELS})"
        )
    quant = [name for name in ("quant_conv", "post_quant_conv") if f"{name}.weight" in tensors]
    if quant:
        reasons.append(f"it has {' and '.join(quant)}, which SD3.5's has not")
    if reasons:
        raise ValueError(f"not an SD3.5-type VAE: {'; '.join(reasons)}")


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
