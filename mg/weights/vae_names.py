"""Tensor names of VAE files -> the names that diffusers writes today.

Three older grammars are understood: diffusers' former attention names, the original names of
latent diffusion (LDM: Stable Diffusion's `.ckpt` files, `sdxl_vae.safetensors`), and those of the
original CogVideoX file, which are LDM's with 3-D convolutions.
"""

import re
from collections.abc import Iterable, Mapping

import numpy as np

from mg.weights.own_tensors import own_tensors

__all__ = ["from_ldm", "to_diffusers_names"]

FORMER_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
LDM_ATTENTION = {
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
}
# What names of CausalVideoVAE have in which LDM's are short of: convolutions inside another cell,
# where it is not a sampler's, and samplers of time.
OF_VIDEO = re.compile(r"(?<!sample)\.conv\.(?:weight|bias)$|\.time_(?:down|up)sample\.")
# What follows a level, in the middle of an LDM name.
LDM_LAYERS = {
    "block.": "resnets.",
    "nin_shortcut": "conv_shortcut",
    "downsample.": "downsamplers.0.",
    "upsample.": "upsamplers.0.",
}


def to_diffusers_names(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a VAE's tensors under the names that diffusers writes today.

    Names that are today's already, and those of other networks, stay as they are: whether they fit
    is for the strict loading to say. Prefixes around the VAE, and what is beside it, go as
    `mg.weights.own_tensors` says.

    Args:
        tensors: arrays by name, in any of the grammars of this module. Of the arrays only the 1x1
            convolutions of LDM's attention, (C, C, 1, 1), change: to (C, C).

    Raises:
        ValueError: two VAEs are in the file, or two tensors get the same name.
    """
    tensors = own_tensors(tensors)
    num_levels = _num_ldm_levels(tensors)
    renamed: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        new = _from_former_diffusers(name)
        if num_levels:
            new = from_ldm(name, num_levels, is_3d="encoder.conv_in.conv.weight" in tensors)
            if ".attentions." in new and array.ndim == 4:
                array = array.reshape(array.shape[:2])  # (C, C, 1, 1) -> (C, C)
        if new in renamed:
            raise ValueError(
                f"two tensors of the file get the name {new!r}; one of them is {name!r}"
            )
        renamed[new] = array
    return renamed


def _num_ldm_levels(names: Iterable[str]) -> int:
    """Return how many levels the decoder of a VAE with LDM names has; 0 for other names.

    The names of the TAE, of 3-D VAEs with attention (CausalVideoVAE, any part of which may be 2-D)
    and of others resemble LDM's; only what the renaming is right for counts.
    """
    names = set(names)
    is_2d = (
        "encoder.conv_in.weight" in names
        and "encoder.down.0.block.0.conv1.weight" in names
        and not any(map(OF_VIDEO.search, names))
    )
    is_cogvideox = (
        "encoder.down.0.block.0.conv1.conv.weight" in names
        and "decoder.up.0.block.0.norm1.conv_y.conv.weight" in names
    )
    if not (is_2d or is_cogvideox):
        return 0
    matches = (re.match(r"decoder\.up\.(\d+)\.", name) for name in names)
    return 1 + max((int(match[1]) for match in matches if match), default=0)


def _from_former_diffusers(name: str) -> str:
    match = re.fullmatch(r"(.*\.attentions\.\d+\.)(\w+)(\.(?:weight|bias))", name)
    if match is None or match[2] not in FORMER_ATTENTION:
        return name
    return f"{match[1]}{FORMER_ATTENTION[match[2]]}{match[3]}"


def from_ldm(name: str, num_levels: int, *, is_3d: bool = False) -> str:
    """Return diffusers' name for an LDM name.

    LDM numbers the levels of the decoder from the output side, diffusers in the order in which
    they run. CogVideoX keeps `norm_out`, which the 2-D VAE calls `conv_norm_out`.

    Args:
        name: of a tensor.
        num_levels: of the decoder.
        is_3d: whether it is CogVideoX's.
    """
    if not is_3d:
        name = re.sub(r"^(encoder|decoder)\.norm_out\.", r"\1.conv_norm_out.", name)
    name = re.sub(r"\.mid\.block_([12])\.", lambda m: f".mid_block.resnets.{int(m[1]) - 1}.", name)
    match = re.fullmatch(r"(.*)\.mid\.attn_1\.(\w+)(\..*)", name)
    if match and match[2] in LDM_ATTENTION:
        return f"{match[1]}.mid_block.attentions.0.{LDM_ATTENTION[match[2]]}{match[3]}"
    match = re.fullmatch(r"(encoder\.down|decoder\.up)\.(\d+)\.(.*)", name)
    if match is None:
        return name
    level = int(match[2]) if match[1] == "encoder.down" else num_levels - 1 - int(match[2])
    rest = match[3]
    for former, today in LDM_LAYERS.items():
        rest = rest.replace(former, today)
    return f"{match[1]}_blocks.{level}.{rest}"
