"""Tensors of Wan's VAEs: the names of the original files -> diffusers', and what shapes tell.

`Wan2.1_VAE.pth` and `Wan2.2_VAE.pth` hold the same tensors as diffusers' files under other names;
none is transposed or split. Wan 2.1 counts blocks and samplers of all levels in one row.
"""

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from mg.weights.own_tensors import own_tensors

__all__ = ["is_original_wan", "wan_config_fields", "wan_diffusers_names", "wan_from_original"]

Shapes = Mapping[str, tuple[int, ...]]

MARK = "decoder.middle.0.residual.0.gamma"
# What a name starts with, and what stands in it where a block is.
STARTS = {
    r"conv1\.": "quant_conv.",
    r"conv2\.": "post_quant_conv.",
    r"(encoder|decoder)\.conv1\.": r"\1.conv_in.",
    r"(encoder|decoder)\.middle\.0\.": r"\1.mid_block.resnets.0.",
    r"(encoder|decoder)\.middle\.1\.": r"\1.mid_block.attentions.0.",
    r"(encoder|decoder)\.middle\.2\.": r"\1.mid_block.resnets.1.",
    r"(encoder|decoder)\.head\.0\.": r"\1.norm_out.",
    r"(encoder|decoder)\.head\.2\.": r"\1.conv_out.",
}
BLOCK = {
    ".residual.0.": ".norm1.",
    ".residual.2.": ".conv1.",
    ".residual.3.": ".norm2.",
    ".residual.6.": ".conv2.",
    ".shortcut.": ".conv_shortcut.",
}
SAMPLER = ("resample.", "time_conv.")
# Of Wan 2.2: level, then block or sampler. Of Wan 2.1: the number in the row.
NESTED = re.compile(r"(encoder\.down|decoder\.up)samples\.(\d{1,4})\.\w+samples\.(\d{1,4})\.(.+)")
FLAT = re.compile(r"(encoder\.down|decoder\.up)samples\.(\d{1,4})\.(.+)")


def is_original_wan(names: Iterable[str]) -> bool:
    """Return whether tensors of these names are a Wan VAE's under the original names."""
    return MARK in names


def wan_from_original(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a Wan VAE's tensors under diffusers' names.

    Names that are diffusers' already stay as they are, and so do unknown ones: whether they fit is
    for the strict loading to say. Prefixes go as `mg.weights.own_tensors` says.

    Args:
        tensors: arrays by name, original or diffusers'.

    Raises:
        ValueError: two VAEs are in the file, or two tensors get the same name.
    """
    tensors = own_tensors(tensors)
    if not is_original_wan(tensors):
        return tensors
    renamed: dict[str, np.ndarray] = {}
    for name, new in wan_diffusers_names(tensors).items():
        if new in renamed:
            raise ValueError(
                f"two tensors of the file get the name {new!r}; one of them is {name!r}"
            )
        renamed[new] = tensors[name]
    return renamed


def wan_diffusers_names(names: Iterable[str]) -> dict[str, str]:
    """Return {original name: diffusers' name} of all tensors of a Wan VAE.

    Args:
        names: of all its tensors: where levels end in Wan 2.1 is seen from where samplers are.
    """
    names = list(names)
    samplers = (re.match(r"decoder\.upsamples\.(\d{1,4})\.resample\.", name) for name in names)
    per_level = min((int(match[1]) + 1 for match in samplers if match), default=len(names))
    return {name: _diffusers_name(name, per_level) for name in names}


def _diffusers_name(name: str, per_level: int) -> str:
    """Return diffusers' name; `per_level` cells of the decoder of Wan 2.1 make a level."""
    for former, new in BLOCK.items():
        name = name.replace(former, new)
    if match := NESTED.fullmatch(name):
        way, level, block, rest = match.groups()
        cell = f"{way[8:]}sampler" if rest.startswith(SAMPLER) else f"resnets.{int(block)}"
        return f"{way}_blocks.{int(level)}.{cell}.{rest}"
    if match := FLAT.fullmatch(name):
        way, number, rest = match.groups()
        if way == "encoder.down":
            return f"{way}_blocks.{int(number)}.{rest}"
        level, block = divmod(int(number), per_level)
        cell = "upsamplers.0" if rest.startswith(SAMPLER) else f"resnets.{block}"
        return f"{way}_blocks.{level}.{cell}.{rest}"
    for start, new in STARTS.items():
        name, count = re.subn(f"^{start}", new, name)
        if count:
            break
    return name


def wan_config_fields(shapes: Shapes) -> dict[str, Any]:
    """Return the fields of a Wan VAE's config that the shapes of its tensors tell.

    That is all but mean and standard deviation of the latents.

    Args:
        shapes: of all its tensors, by diffusers' names.

    Raises:
        ValueError: the tensors are not those of a whole Wan VAE.
    """
    try:
        levels, samplers = _levels(shapes)
        base, in_channels = shapes["encoder.conv_in.weight"][:2]
        decoder_base = shapes["decoder.norm_out.gamma"][0] * base // levels[0][0]
        patch = math.isqrt(in_channels // 3)
        return {
            "base_dim": base,
            "decoder_base_dim": None if decoder_base == base else decoder_base,
            "z_dim": shapes["post_quant_conv.weight"][0],
            "dim_mult": [width // base for width, _ in levels],
            "num_res_blocks": levels[0][1],
            "temperal_downsample": [
                f"{sampler}.time_conv.weight" in shapes for sampler in samplers
            ],
            "is_residual": _is_residual(shapes),
            "in_channels": in_channels,
            "out_channels": shapes["decoder.conv_out.weight"][0],
            "patch_size": None if patch == 1 else patch,
        }
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise ValueError(f"the tensors are not those of a whole Wan VAE: {error}") from error


def _is_residual(shapes: Shapes) -> bool:
    return "encoder.down_blocks.0.resnets.0.conv1.weight" in shapes


def _levels(shapes: Shapes) -> tuple[list[tuple[int, int]], list[str]]:
    """Return channels and number of blocks of each level of the encoder, and the samplers' names.

    Raises:
        KeyError: there is no level.
    """
    cells = _nested_cells(shapes) if _is_residual(shapes) else _row_of_cells(shapes)
    levels, samplers, num_blocks, width = [], [], 0, 0
    for cell in cells:
        if f"{cell}.conv1.weight" in shapes:
            num_blocks, width = num_blocks + 1, shapes[f"{cell}.conv1.weight"][0]
        else:
            levels.append((width, num_blocks))
            samplers.append(cell)
            num_blocks = 0
    if not num_blocks:
        raise KeyError("a last level of encoder.down_blocks")
    return [*levels, (width, num_blocks)], samplers


def _row_of_cells(shapes: Shapes) -> Iterator[str]:
    """Yield blocks and samplers of the encoder of Wan 2.1."""
    for number in itertools.count():
        cell = f"encoder.down_blocks.{number}"
        if f"{cell}.conv1.weight" not in shapes and f"{cell}.resample.1.weight" not in shapes:
            return
        yield cell


def _nested_cells(shapes: Shapes) -> Iterator[str]:
    """Yield blocks and samplers of the encoder of Wan 2.2."""
    for level in itertools.count():
        start = f"encoder.down_blocks.{level}"
        if f"{start}.resnets.0.conv1.weight" not in shapes:
            return
        for block in itertools.count():
            if f"{start}.resnets.{block}.conv1.weight" not in shapes:
                break
            yield f"{start}.resnets.{block}"
        if f"{start}.downsampler.resample.1.weight" in shapes:
            yield f"{start}.downsampler"
