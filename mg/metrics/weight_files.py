"""Where the weights of metrics' networks live, and how they get into them."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mg.weights.safetensors_file import read_safetensors

if TYPE_CHECKING:
    from mindspore import nn

__all__ = ["cached_weights", "load_parameters"]


def cached_weights(folder: str, name: str) -> Path:
    """Return `~/.cache/mg/FOLDER/NAME.safetensors`; `MG_CACHE` replaces `~/.cache/mg`."""
    cache = os.environ.get("MG_CACHE") or Path.home() / ".cache" / "mg"
    return Path(cache) / folder / f"{name}.safetensors"


def load_parameters(network: "nn.Cell", path: Path, kind: str, tool: str) -> None:
    """Put the tensors of a safetensors file into a network that needs exactly these.

    Args:
        network: whose parameters have the names of the tensors.
        path: of the file.
        kind: what the network is called, for messages.
        tool: what writes such files, for messages.

    Raises:
        ValueError: a damaged file, or missing, unknown or misshapen tensors.
    """
    from mindspore import Tensor

    tensors = read_safetensors(path)
    parameters = network.parameters_dict()
    _check_names_and_shapes(
        path, tensors, {name: p.shape for name, p in parameters.items()}, kind, tool
    )
    for name, parameter in parameters.items():
        parameter.set_data(Tensor(np.array(tensors[name], np.float32)))


def _check_names_and_shapes(
    path: Path,
    tensors: dict[str, np.ndarray],
    expected: dict[str, tuple[int, ...]],
    kind: str,
    tool: str,
) -> None:
    """Raise ValueError, naming tensors, unless the file holds exactly what the network needs."""
    faults = {
        "missing": sorted(expected.keys() - tensors.keys()),
        "unknown": sorted(tensors.keys() - expected.keys()),
        "misshapen": [
            f"{name} {tensors[name].shape} instead of {tuple(shape)}"
            for name, shape in expected.items()
            if name in tensors and tensors[name].shape != tuple(shape)
        ],
    }
    if any(faults.values()):
        text = "; ".join(f"{what}: {', '.join(names)}" for what, names in faults.items() if names)
        raise ValueError(
            f"{path} does not fit this {kind} ({text}). Is it the other backbone, or not "
            f"written by {tool}?"
        )
