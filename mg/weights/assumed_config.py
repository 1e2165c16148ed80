"""The config of a VAE's weights that come without one: read off the shapes, the rest assumed."""

import logging
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from mg.weights.image_vae import DEFAULT_NORM_GROUPS, assumed_scaling

__all__ = ["assumed_config", "check_fields", "completed_config", "shapes_of", "warn_of_assumed"]

logger = logging.getLogger("mg")

Shapes = Mapping[str, tuple[int, ...]]

# What no shape tells: the values of each family's best-known checkpoint.
ASSUMED = {
    "cogvideox": {
        "scaling_factor": 1.15258426,  # of CogVideoX-2b; CogVideoX-5b has 0.7
        "temporal_compression_ratio": 4,
    },
    "hunyuan": {"scaling_factor": 0.476986, "temporal_compression_ratio": 4},
}
BLOCKS = {
    "sd": ("DownEncoderBlock2D", "UpDecoderBlock2D"),
    "cogvideox": ("CogVideoXDownBlock3D", "CogVideoXUpBlock3D"),
    "hunyuan": ("HunyuanVideoDownBlock3D", "HunyuanVideoUpBlock3D"),
}
# Fields that the shapes determine, in the configs of all publishers.
COMPARED = (
    "in_channels",
    "out_channels",
    "latent_channels",
    "block_out_channels",
    "layers_per_block",
    "width_list",
    "encoder_depth_list",
    "decoder_depth_list",
    "block_type",
)


def shapes_of(tensors: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """Return {name: shape} of arrays."""
    return {name: array.shape for name, array in tensors.items()}


def assumed_config(family: str, shapes: Shapes) -> dict[str, Any]:
    """Return a config for tensors without one, with a warning that names what was assumed.

    Args:
        family: sd, cogvideox or hunyuan.
        shapes: of the tensors, by name (diffusers' names of today).

    Raises:
        ValueError: the shapes are not a whole network's, or do not go with what has to be assumed.
    """
    try:
        config = _config_of_shapes(family, shapes)
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"these weights come without a config.json, and {error} is not among them to read the "
            "network's sizes off; give the config of the checkpoint (config=...)"
        ) from error
    scaling = assumed_scaling(config["latent_channels"]) if family == "sd" else ASSUMED[family]
    assumed = {**scaling, "norm_num_groups": DEFAULT_NORM_GROUPS}
    odd = [width for width in config["block_out_channels"] if width % DEFAULT_NORM_GROUPS]
    if odd:
        raise ValueError(
            f"these weights come without a config.json, and with {odd[0]} channels the usual "
            f"{DEFAULT_NORM_GROUPS} groups of normalisation cannot be assumed; give the config of "
            "the checkpoint (config=...)"
        )
    warn_of_assumed(assumed)
    return {**config, **assumed}


def completed_config(
    family: str, config: Mapping[str, Any] | None, tensors: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Return a config as it is if it is that of the tensors, else `assumed_config`.

    Args:
        family: sd, cogvideox or hunyuan.
        config: the checkpoint's; None if there is none.
        tensors: by name (diffusers' names of today).

    Raises:
        ValueError: as `assumed_config`, or a config of another network than the tensors.
    """
    shapes = shapes_of(tensors)
    if config is None:
        return assumed_config(family, shapes)
    try:
        found = _config_of_shapes(family, shapes)
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"the weights are not those of a whole network: {error} is missing"
        ) from error
    check_fields(config, found)
    return dict(config)


def check_fields(config: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the fields, if a config states others than the tensors show.

    Args:
        config: the checkpoint's.
        found: fields as the tensors have them; of those about blocks their number is compared.
    """
    differing = [
        f"{key}: the file says {found[key]}, the config says {config[key]}"
        for key in COMPARED
        if key in found and key in config and _plain(config[key]) != found[key]
    ]
    differing += [
        f"{key}: the file has {len(found[key])} levels, the config names {config[key]}"
        for key in ("down_block_types", "up_block_types")
        if key in found and key in config and not _is_list_of(config[key], len(found[key]))
    ]
    if differing:
        raise ValueError("the weights are of another config: " + "; ".join(differing))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _is_list_of(value: Any, length: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == length


def warn_of_assumed(fields: Mapping[str, Any]) -> None:
    """Log a warning that these config fields are assumed."""
    logger.warning(
        "no config.json beside the weights: sizes are read off the tensors, assumed are %s. Other "
        "checkpoints of the family may differ; give config=... to be sure",
        ", ".join(f"{key}={value}" for key, value in fields.items()),
    )


def _config_of_shapes(family: str, shapes: Shapes) -> dict[str, Any]:
    """Return the fields that the shapes determine."""
    conv = "" if family == "sd" else ".conv"  # causal convolutions wrap a plain one
    first = f"encoder.conv_in{conv}.weight"
    levels = _count(shapes, r"encoder\.down_blocks\.(\d+)\.resnets\.")
    down, up = BLOCKS[family]
    config = {
        "in_channels": shapes[first][1],
        "out_channels": shapes[f"decoder.conv_out{conv}.weight"][0],
        "latent_channels": shapes[f"decoder.conv_in{conv}.weight"][1],
        "block_out_channels": [
            shapes[f"encoder.down_blocks.{level}.resnets.0.conv1{conv}.weight"][0]
            for level in range(levels)
        ],
        "layers_per_block": _count(shapes, r"encoder\.down_blocks\.0\.resnets\.(\d+)\."),
        "down_block_types": [down] * levels,
        "up_block_types": [up] * levels,
    }
    if family != "hunyuan":  # which always has both
        config["use_quant_conv"] = "quant_conv.weight" in shapes
        config["use_post_quant_conv"] = "post_quant_conv.weight" in shapes
    if family != "cogvideox":  # which never attends
        config["mid_block_add_attention"] = (
            "encoder.mid_block.attentions.0.group_norm.weight" in shapes
        )
    return config


def _count(shapes: Shapes, pattern: str) -> int:
    """Return how many different numbers stand in the pattern's group among the names."""
    matches = (re.match(pattern, name) for name in shapes)
    return len({match[1] for match in matches if match})
