"""LoRA files: low-rank changes to linear maps (arXiv 2106.09685), under diffusers' names.

    transformer.{map}.lora_A.weight   (rank, in)
    transformer.{map}.lora_B.weight   (out, rank)
    metadata "lora_adapter_metadata"  JSON with transformer.r, .lora_alpha, .target_modules

A map's weight becomes W + weight alpha / rank B A. Of metadata that PEFT wrote, `alpha_pattern`
holds alphas of single maps, and `use_rslora` stands for alpha / sqrt(rank) (arXiv 2312.03732); a
map's rank is that of its tensors, whatever `r` and `rank_pattern` say. Files without metadata may
have a tensor `{map}.alpha`; where there is none either, alpha is the rank.
"""

import dataclasses
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mg.console import one_line
from mg.json_file import parse_json
from mg.weights.safetensors_file import (
    find_in_folder,
    read_safetensors,
    read_safetensors_metadata,
    write_safetensors,
)

__all__ = [
    "LORA_FILE",
    "LORA_PARAMETERS",
    "LowRankMap",
    "check_maps",
    "find_lora",
    "merge_lora",
    "read_lora",
    "write_lora",
]

LORA_FILE = "pytorch_lora_weights.safetensors"
# Patterns of its parameters in a network that trains.
LORA_PARAMETERS = ("*.lora_A.weight", "*.lora_B.weight")
PREFIX = "transformer."
METADATA_KEY = "lora_adapter_metadata"
NUM_SHOWN = 5  # names in messages


@dataclasses.dataclass(frozen=True)
class LowRankMap:
    """What is added to one linear map: scale * up @ down.

    Attributes:
        down: (rank, in).
        up: (out, rank).
        scale: alpha / rank, or alpha / sqrt(rank) of a rank-stabilised LoRA.
    """

    down: np.ndarray
    up: np.ndarray
    scale: float


def write_lora(
    path: str | os.PathLike,
    maps: Mapping[str, LowRankMap],
    *,
    overwrite: bool = False,
) -> None:
    """Write the changes of linear maps, all of one rank and scale, by the maps' names.

    Raises:
        FileExistsError: the file exists and `overwrite` is false.
        ValueError: there is no map.
    """
    if not maps:
        raise ValueError("a LoRA without maps; expected at least one")
    first = next(iter(maps.values()))
    rank = len(first.down)
    about = {
        "transformer.r": rank,
        "transformer.lora_alpha": first.scale * rank,
        "transformer.target_modules": sorted(maps),
    }
    tensors = {}
    for name, change in maps.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = change.down
        tensors[f"{PREFIX}{name}.lora_B.weight"] = change.up
    metadata = {"format": "pt", METADATA_KEY: json.dumps(about)}
    write_safetensors(path, tensors, metadata=metadata, overwrite=overwrite)


def find_lora(path: str | os.PathLike) -> Path:
    """Return the file of a LoRA: the path itself, or the one in the folder that it names.

    Raises:
        FileNotFoundError: the folder holds none.
        ValueError: it holds several, none of which is called `LORA_FILE`.
    """
    path = Path(path)
    return find_in_folder(path, (LORA_FILE, "*.safetensors")) if path.is_dir() else path


def read_lora(path: str | os.PathLike) -> dict[str, LowRankMap]:
    """Return the changes of a file by the names of the maps.

    Args:
        path: of a .safetensors file, or a folder that holds one (`find_lora`).

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file holds something else, or states what is not applied here (DoRA).
    """
    path = find_lora(path)
    tensors = {name.removeprefix(PREFIX): a for name, a in read_safetensors(path).items()}
    stated = _stated_scales(path)
    maps = {}
    for name in sorted({name.rpartition(".lora_")[0] for name in tensors if ".lora_" in name}):
        down, up = (tensors.pop(f"{name}.lora_{part}.weight", None) for part in "AB")
        right = down is not None and up is not None and down.ndim == up.ndim == 2
        if not right or len(down) != up.shape[1]:
            raise ValueError(
                f"{path}: {name} needs lora_A.weight (rank, in) and lora_B.weight (out, rank), got "
                f"{None if down is None else down.shape} and {None if up is None else up.shape}"
            )
        own = tensors.pop(f"{name}.alpha", None)
        scale = stated.scale(name, len(down), None if own is None else float(own))
        maps[name] = LowRankMap(np.float32(down), np.float32(up), scale)
    if tensors or not maps:
        raise ValueError(
            f"{path} is not a LoRA of a transformer: expected names like "
            f"{PREFIX}MAP.lora_A.weight, got {', '.join(sorted(tensors)[:NUM_SHOWN]) or 'nothing'}"
        )
    return maps


@dataclasses.dataclass(frozen=True)
class _StatedScales:
    """What a file's metadata state about the scales of its maps.

    Attributes:
        alpha: of the maps that no pattern fits; None where the metadata do not say.
        patterns: alphas of single maps, by their names or what these end with after a dot; the
            first that fits counts, as in PEFT.
        is_stabilised: whether the scale is alpha / sqrt(rank).
    """

    alpha: float | None = None
    patterns: tuple[tuple[str, float], ...] = ()
    is_stabilised: bool = False

    def scale(self, name: str, rank: int, own_alpha: float | None) -> float:
        """Return the factor on a map; `own_alpha` is that of its tensor, which counts first."""
        alpha = own_alpha
        if alpha is None:
            fitting = (v for end, v in self.patterns if f".{name}".endswith(f".{end}"))
            alpha = next(fitting, self.alpha)
        if alpha is None:
            alpha = rank
        return float(alpha) / (math.sqrt(rank) if self.is_stabilised else rank)


def _stated_scales(path: str | os.PathLike) -> _StatedScales:
    """Return what a file's metadata state; nothing where there are none."""
    text = read_safetensors_metadata(path).get(METADATA_KEY)
    about = {} if text is None else parse_json(text, f"{path}, {METADATA_KEY}")
    about = about if isinstance(about, dict) else {}
    if about.get(f"{PREFIX}use_dora"):
        raise ValueError(
            f"{path}: {PREFIX}use_dora is set; a DoRA's magnitudes are not applied here, take a "
            "LoRA that was trained without"
        )
    stabilised = about.get(f"{PREFIX}use_rslora") or False
    if not isinstance(stabilised, bool):
        raise ValueError(f"{path}: {PREFIX}use_rslora={stabilised!r}; expected true or false")
    alpha = about.get(f"{PREFIX}lora_alpha")
    if alpha is not None and not _is_number(alpha):
        raise ValueError(f"{path}: {PREFIX}lora_alpha={alpha!r}; expected a number")
    stated = about.get(f"{PREFIX}alpha_pattern") or {}
    if not isinstance(stated, dict) or not all(map(_is_number, stated.values())):
        raise ValueError(
            f"{path}: {PREFIX}alpha_pattern={stated!r}; expected a number for each pattern"
        )
    for pattern in stated:  # PEFT takes regular expressions; a file's could run without end
        if not re.fullmatch(r"[\w.]+", pattern):
            raise ValueError(
                f"{path}: {PREFIX}alpha_pattern has {one_line(repr(pattern))}; expected the name "
                "of a map, or its end, of letters, digits, underscores and dots"
            )
    return _StatedScales(alpha, tuple(stated.items()), stabilised)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_maps(maps: Mapping[str, LowRankMap], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError for a map that a network has not, or that has another size there.

    Args:
        maps: from `read_lora`.
        shapes: of the network's tensors, by its names.
    """
    unknown = [name for name in maps if f"{name}.weight" not in shapes]
    if unknown:
        raise ValueError(
            f"the LoRA is of another network: {len(unknown)} of its {len(maps)} maps are not in "
            f"this one, such as {', '.join(unknown[:NUM_SHOWN])}"
        )
    for name, change in maps.items():
        size, old = (len(change.up), change.down.shape[1]), shapes[f"{name}.weight"]
        if size[0] != old[0] or math.prod(size) != math.prod(old):
            raise ValueError(
                f"the LoRA is of another network: {name} has the shape {size} in it and {old} here"
            )


def merge_lora(
    tensors: Mapping[str, np.ndarray], maps: Mapping[str, LowRankMap], *, weight: float = 1.0
) -> dict[str, np.ndarray]:
    """Return the tensors of a network with the changes added: W + weight scale up down.

    Args:
        tensors: of the network, by its names.
        maps: from `read_lora`.
        weight: how much of the change; 1 is what was trained, 0 none of it.

    Raises:
        ValueError: as `check_maps`.
    """
    check_maps(maps, {name: array.shape for name, array in tensors.items()})
    merged = dict(tensors)
    for name, change in maps.items():
        old = tensors[f"{name}.weight"]
        added = change.up @ change.down  # (out, in)
        new = np.float32(old) + weight * change.scale * added.reshape(old.shape)
        merged[f"{name}.weight"] = new.astype(old.dtype)
    return merged
