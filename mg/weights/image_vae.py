"""Image VAEs (Stable Diffusion's, SDXL's, SD3.5's and their like) as what a TAE is made from.

Recognises their tensors, reads the TAE's config off the shapes, and reads the rest in the VAE's
`config.json`. All have diffusers' network `AutoencoderKL`, here with diffusers' names of today
(`vae_names.py` renames older files).
"""

import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mg.weights.tae_layers import image_vae_shapes
from mg.weights.tae_names import count_levels, is_tae
from mg.weights.tensor_check import check_tensors

__all__ = [
    "DEFAULT_NORM_GROUPS",
    "assumed_scaling",
    "fields_of_vae_config",
    "image_vae_config",
    "temporal_levels",
]

logger = logging.getLogger("mg")

DEFAULT_NORM_GROUPS = 32  # in every published image VAE
DEFAULT_SCALING_FACTOR = 0.18215  # Stable Diffusion's, and diffusers' where none is stated
# The only 16-channel VAE without quantisation convolutions in Stable Diffusion is version 3's.
SD3_LATENT_CHANNELS, SD3_SCALING = 16, (1.5305, 0.0609)


def assumed_scaling(num_latent_channels: int) -> dict[str, float]:
    """Return scaling_factor and shift_factor of a VAE whose config is not known.

    A guess: Stable Diffusion 3.5's for 16 channels (FLUX's VAE, of the same shapes, has 0.3611 and
    0.1159), else Stable Diffusion's 0.18215 without shift (SDXL's has 0.13025). Weights do not
    depend on them; a generator that was trained on the scaled latents does.
    """
    if num_latent_channels == SD3_LATENT_CHANNELS:
        return dict(zip(("scaling_factor", "shift_factor"), SD3_SCALING, strict=True))
    return {"scaling_factor": DEFAULT_SCALING_FACTOR, "shift_factor": 0.0}


def fields_of_vae_config(vae_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return {TAE config field: value} that an image VAE's `config.json` states.

    These are scaling_factor and shift_factor (0.18215 and 0 where they are not stated, as in
    diffusers) and norm_groups (32).

    Raises:
        ValueError: a value is not a number, or the VAE has an activation that the TAE has not.
    """
    activation = vae_config.get("act_fn", "silu")
    if activation not in ("silu", "swish"):
        raise ValueError(f"the VAE's activation is {activation!r}; a TAE has 'silu'")
    if vae_config.get("latents_mean") is not None or vae_config.get("latents_std") is not None:
        logger.warning(
            "the VAE's config states latents_mean or latents_std; a TAE has one scaling_factor and "
            "shift_factor for all channels, so they are left out"
        )
    stated = {key: value for key, value in vae_config.items() if value is not None}
    try:
        fields = {
            "scaling_factor": float(stated.get("scaling_factor", DEFAULT_SCALING_FACTOR)),
            "shift_factor": float(stated.get("shift_factor", 0.0)),
            "norm_groups": int(stated.get("norm_num_groups", DEFAULT_NORM_GROUPS)),
        }
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"a value in the VAE's config is not a number: {error}") from error
    if not all(map(math.isfinite, fields.values())):
        raise ValueError(f"a value in the VAE's config is not finite: {fields}")
    return fields


def image_vae_config(
    tensors: Mapping[str, np.ndarray], *, norm_groups: int = DEFAULT_NORM_GROUPS
) -> dict[str, Any]:
    """Return the config of the TAE that fits an image VAE, read off its shapes.

    What the shapes leave open is as in `TAE_CONFIG`, the scaling as `assumed_scaling` says. Every
    level that halves height and width halves the time as well.

    Args:
        tensors: the VAE's arrays under diffusers' names of today.
        norm_groups: the groups of its GroupNorms, which no shape tells.

    Raises:
        ValueError: it is not such a VAE; says what is missing, unexpected or of another size.
    """
    _refuse_other_kinds(tensors)
    z = tensors["decoder.conv_in.weight"].shape[1]
    levels = count_levels(tensors, r"encoder\.down_blocks\.(\d+)\.")
    config = {
        "double_z": True,
        "z_channels": z,
        "resolution": 256,
        "in_channels": tensors["encoder.conv_in.weight"].shape[1],
        "out_ch": tensors["decoder.conv_out.weight"].shape[0],
        "ch": tensors["encoder.conv_in.weight"].shape[0],
        "ch_mult": _level_multiples(tensors, levels, norm_groups),
        "num_res_blocks": count_levels(tensors, r"encoder\.down_blocks\.0\.resnets\.(\d+)\."),
        "attn_resolutions": [],
        "dropout": 0.0,
        **assumed_scaling(z),
        "use_post_quant_conv": "post_quant_conv.weight" in tensors,
        "use_quant_conv": "quant_conv.weight" in tensors,
        "attn_type": "vanilla",
        **temporal_levels(levels),
        "norm_groups": norm_groups,
        "norm_per_frame": False,
    }
    try:
        check_tensors(tensors, image_vae_shapes(config))
    except ValueError as error:
        raise ValueError(f"not an image VAE like Stable Diffusion's: {error}") from error
    return config


def temporal_levels(num_levels: int, temporal_compression: int | None = None) -> dict[str, Any]:
    """Return the config fields temporal_downsample_level and temporal_upsample_level.

    Args:
        num_levels: levels of the TAE; all but one of them halve height and width.
        temporal_compression: frames per frame of latent, 1, 2, 4, ... up to the spatial
            compression, which is the default. The first levels of the encoder compress.

    Raises:
        ValueError: another compression.
    """
    possible = [2**num for num in range(num_levels)]
    compression = possible[-1] if temporal_compression is None else temporal_compression
    if compression not in possible:
        raise ValueError(
            f"temporal_compression={compression}; {num_levels} levels can have one of {possible}"
        )
    num = possible.index(compression)
    return {
        "temporal_downsample_level": list(range(num)),
        "temporal_upsample_level": list(range(num, 0, -1)),
    }


def _level_multiples(tensors: Mapping[str, np.ndarray], levels: int, norm_groups: int) -> list[int]:
    """Return the channels of each level as multiples of the first convolution's."""
    ch = tensors["encoder.conv_in.weight"].shape[0]
    widths = [
        tensors.get(f"encoder.down_blocks.{i}.resnets.0.conv1.weight", np.empty(0)).shape[0]
        for i in range(levels)
    ]
    if any(width == 0 or width % ch for width in widths):
        raise ValueError(
            f"not an image VAE like Stable Diffusion's: its levels have {widths} channels after a "
            f"first convolution to {ch}; expected multiples of that"
        )
    if norm_groups < 1 or ch % norm_groups:
        raise ValueError(
            f"the VAE's {ch} channels are not a multiple of norm_groups={norm_groups}; the "
            "config.json that belongs beside its weights states the groups as norm_num_groups"
        )
    return [width // ch for width in widths]


def _refuse_other_kinds(tensors: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError, with the reason, for what is recognisably something else."""
    if is_tae(tensors):
        raise ValueError("these weights are a TAE already, not an image VAE; load them as they are")
    in_3d = [name for name, array in tensors.items() if array.ndim == 5]
    if in_3d:
        raise ValueError(
            f"these weights are a video VAE's, not an image VAE's: {len(in_3d)} convolutions are "
            f"3-D ({in_3d[0]} is {tuple(tensors[in_3d[0]].shape)}); there is nothing to inflate"
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
            f"not an image VAE like Stable Diffusion's: it lacks {', '.join(missing)} (of the "
            f"file's {len(tensors)} tensors the first are {', '.join(list(tensors)[:3])})"
        )
    odd = [name for name in ends if tensors[name].ndim != 4]
    if odd:
        raise ValueError(
            f"not an image VAE like Stable Diffusion's: {odd[0]} is "
            f"{tuple(tensors[odd[0]].shape)}, expected 4 sizes (out, in, height, width)"
        )
    z, num_moments = tensors[ends[2]].shape[1], tensors[ends[1]].shape[0]
    if num_moments != 2 * z:
        raise ValueError(
            f"not an image VAE like Stable Diffusion's: it has {z} latent channels and "
            f"{num_moments} from the encoder, expected {2 * z} (mean and logvar)"
        )
