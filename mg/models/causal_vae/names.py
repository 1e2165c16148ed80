"""The tensors of a CausalVideoVAE against its config: what v1.0 leaves out, which fields disagree.

Neither MindSpore nor the network is needed here.
"""

import re
from collections.abc import Mapping

import numpy as np

from mg.models.causal_vae.config import CausalVAEConfig

__all__ = ["MIX", "MIX_ADVANCED", "completed", "explain_names"]

Shape = tuple[int, ...]

# What the mixing of `Time*Res2x` and of `Time*ResAdv2x` starts from.
MIX, MIX_ADVANCED = 2.0, 1.5
# sigmoid of it is 1 in float32, with a gradient of 0: x alone is kept, nothing is mixed in.
MIX_NOTHING = 100.0
# Where a tensor stands -> the field of the config that decides whether it is there, and its rank.
FIELDS = {
    r"(encoder|decoder)\.(conv_in|conv_out)\.": r"\1_\2",
    r"(encoder|decoder)\.(?:mid\.attn_1|(?:down|up)\.\d+\.attn)\.": r"\1_attention",
    r"(encoder|decoder)\.mid\.block_": r"\1_mid_resnet",
    r"(encoder|decoder)\.(?:down|up)\.\d+\.block\.": r"\1_resnet_blocks",
    r"encoder\.down\.\d+\.downsample\.": "encoder_spatial_downsample",
    r"encoder\.down\.\d+\.time_downsample\.": "encoder_temporal_downsample",
    r"decoder\.up\.\d+\.upsample\.": "decoder_spatial_upsample",
    r"decoder\.up\.\d+\.time_upsample\.": "decoder_temporal_upsample",
    r"(?:post_)?quant_conv\.": "q_conv",
}
SIZES = "hidden_size, hidden_size_mult, z_channels, embed_dim"


def completed(tensors: Mapping[str, np.ndarray], config: CausalVAEConfig) -> dict[str, np.ndarray]:
    """Return the tensors with `mix_factor` where v1.0's advanced samplers have none.

    Args:
        tensors: arrays by name.
        config: the network's config.
    """
    places = [
        *_places("encoder.down.{}.time_downsample", config.encoder_temporal_downsample),
        *_places("decoder.up.{}.time_upsample", config.decoder_temporal_upsample),
    ]
    nothing = {f"{place}.mix_factor": np.full(1, MIX_NOTHING, np.float32) for place in places}
    return {**nothing, **tensors}


def _places(place: str, samplers: tuple[str, ...]) -> list[str]:
    return [place.format(i) for i, name in enumerate(samplers) if name.endswith("ResAdv2x")]


def explain_names(
    own: Mapping[str, Shape], tensors: Mapping[str, np.ndarray], config: CausalVAEConfig
) -> list[str]:
    """Return one text for each field of the config that disagrees with tensors.

    Args:
        own: shapes of the network's tensors, by name.
        tensors: those of a file, or anything with shapes.
        config: the network's config.
    """
    there = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    found: dict[str, str] = {}
    for name in (*there, *own):
        wanted, given = own.get(name), there.get(name)
        if wanted == given:
            continue
        field = _field(name)
        if field is None:
            continue
        if wanted is not None and given is not None and len(wanted) == len(given):
            found.setdefault(SIZES, f"{SIZES}: {name} is {given}, expected {wanted}")
        else:
            what = f"have {name} {given}" if given else f"have no {name}"
            value = getattr(config, field)
            value = list(value) if isinstance(value, tuple) else value
            found.setdefault(field, f"{field} is {value} in the config, the weights {what}")
    return list(found.values())


def _field(name: str) -> str | None:
    """Return the field of the config that a tensor's name belongs to."""
    for pattern, field in FIELDS.items():
        match = re.match(pattern, name)
        if match:
            return match.expand(field)
    return None
