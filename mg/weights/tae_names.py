"""TAE tensors as they come from files: recognising them, cleaning names, reading the config off.

The network's own names are those of the published MindSpore checkpoint without its dead
time-embedding projections (`temb_proj`), so a cleaned file fits as it is.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mg.weights.own_tensors import own_tensors
from mg.weights.tae_layers import patch_volume

__all__ = [
    "count_levels",
    "explain_config_mismatch",
    "infer_tae_config",
    "is_tae",
    "tae_from_published",
]

logger = logging.getLogger("mg")

DEAD_PART = ".temb_proj."
# What fields mean that `infer_tae_config` leaves out.
ABSENT = {"decoder_ch": None, "linear_path": False}


def is_tae(names: Iterable[str]) -> bool:
    """Return whether tensors of these names are a TAE's (any prefix, any size)."""
    return any(name.endswith("encoder.conv_in.conv_spat.weight") for name in names)


def tae_from_published(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return TAE tensors under the network's own names.

    Prefixes such as `autoencoder.` and `_backbone.`, and what is the optimiser's, go as
    `mg.weights.own_tensors` says; dead `temb_proj.*` are dropped. Everything else stays, for
    `mg.weights.tensor_check.check_tensors` to judge.
    """
    own = own_tensors(tensors)
    living = {name: array for name, array in own.items() if DEAD_PART not in name}
    if len(living) < len(own):
        logger.info("left out %d unused time-embedding projections", len(own) - len(living))
    return living


def infer_tae_config(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the config fields that the names and shapes of TAE tensors determine.

    These are ch, decoder_ch where it differs, linear_path where there is one, ch_mult,
    num_res_blocks, z_channels, double_z, in_channels, out_ch, the temporal levels, attn_type and
    the quant convs. The tensors do not tell the others (resolution and attn_resolutions, dropout,
    scaling_factor, shift_factor, temporal_padding); of patches they show what comes of them,
    in_channels and out_ch times their volume.

    Args:
        tensors: arrays under the network's own names (`tae_from_published`).

    Raises:
        ValueError: a tensor that is needed for it is missing or has impossible sizes.
    """
    ch, in_channels = _conv_sizes(tensors, "encoder.conv_in.conv_spat.weight")
    decoder_width, z_channels = _conv_sizes(tensors, "decoder.conv_in.conv_spat.weight")
    out_ch, _ = _conv_sizes(tensors, "decoder.conv_out.conv_spat.weight")
    num_moments, _ = _conv_sizes(tensors, "encoder.conv_out.conv_spat.weight")
    if num_moments not in (z_channels, 2 * z_channels):
        raise ValueError(
            f"the encoder gives {num_moments} channels, the decoder takes {z_channels}; expected "
            "as many, or twice as many (mean and logvar)"
        )
    widths = [
        _conv_sizes(tensors, f"encoder.down.{level}.block.0.conv1.conv_spat.weight")[0]
        for level in range(count_levels(tensors, r"encoder\.down\.(\d+)\."))
    ]
    odd = [width for width in widths if width % ch]
    if odd:
        raise ValueError(f"level widths {widths} are not multiples of the first convolution's {ch}")
    decoder_ch = decoder_width // (widths[-1] // ch)
    return {
        "ch": ch,
        **({"decoder_ch": decoder_ch} if decoder_ch != ch else {}),
        **({"linear_path": True} if "encoder.linear.weight" in tensors else {}),
        "ch_mult": [width // ch for width in widths],
        "num_res_blocks": count_levels(tensors, r"encoder\.down\.0\.block\.(\d+)\."),
        "z_channels": z_channels,
        "double_z": num_moments == 2 * z_channels,
        "in_channels": in_channels,
        "out_ch": out_ch,
        "temporal_downsample_level": sorted(
            _indices(tensors, r"encoder\.down\.(\d+)\.downsample_temp\.")
        ),
        "temporal_upsample_level": sorted(
            _indices(tensors, r"decoder\.up\.(\d+)\.upsample_temp\."), reverse=True
        ),
        "attn_type": "vanilla" if "encoder.mid.attn_1.1.to_q.weight" in tensors else "spat_only",
        "use_quant_conv": "quant_conv.weight" in tensors,
        "use_post_quant_conv": "post_quant_conv.weight" in tensors,
    }


def explain_config_mismatch(
    tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> list[str]:
    """Return one line per config field that disagrees with the tensors ([] if all agree).

    Args:
        tensors: arrays under the network's own names.
        config: a mapping with keys of `TAE_CONFIG`; absent keys are not compared.

    Raises:
        ValueError: as `infer_tae_config`.
    """
    # At its ends the network has patch_volume channels for each one of the video.
    volume = patch_volume(config)
    wanted = {key: volume * config[key] for key in ("in_channels", "out_ch") if key in config}
    config = {**config, **wanted}
    if "decoder_ch" in config and config["decoder_ch"] == config.get("ch"):
        config["decoder_ch"] = None
    return [
        f"{key}: the file says {value}, the config says {_plain(config[key])}"
        for key, value in {**ABSENT, **infer_tae_config(tensors)}.items()
        if key in config and not _same(key, value, config[key])
    ]


def _same(key: str, found: Any, wanted: Any) -> bool:
    if key in ("temporal_downsample_level", "temporal_upsample_level"):
        return sorted(found) == sorted(wanted)  # a set of levels, in whatever order
    return found == _plain(wanted)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _conv_sizes(tensors: Mapping[str, np.ndarray], name: str) -> tuple[int, int]:
    """Return (output channels, input channels) of a convolution's weight."""
    if name not in tensors:
        raise ValueError(f"these tensors are not a TAE's: {name} is missing")
    shape = tensors[name].shape
    if len(shape) != 4 or 0 in shape:
        raise ValueError(f"{name} is {tuple(shape)}; expected 4 sizes (out, in, height, width)")
    return shape[0], shape[1]


def _indices(tensors: Mapping[str, np.ndarray], pattern: str) -> set[int]:
    """Return the numbers that stand in the pattern's group among the names."""
    matches = (re.match(pattern, name) for name in tensors)
    return {int(match[1]) for match in matches if match}


def count_levels(tensors: Mapping[str, np.ndarray], pattern: str) -> int:
    """Return how many indices 0, 1, 2, ... without a gap stand in the names.

    Args:
        tensors: arrays by name.
        pattern: a regular expression from the name's start, its one group being the index.
    """
    present = _indices(tensors, pattern)
    return next(number for number in range(len(present) + 1) if number not in present)
