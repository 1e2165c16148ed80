"""Networks and their weights: built without values, filled strictly, read back."""

from collections.abc import Callable, Mapping

import numpy as np
from mindspore import nn
from mindspore.nn.utils import no_init_parameters

from mg.parameters import set_values
from mg.weights.tensor_check import check_tensors
from mg.weights.vae_names import to_diffusers_names

__all__ = [
    "built_without_values",
    "load_network",
    "network_shapes",
    "network_tensors",
]


def built_without_values(build: Callable[[], nn.Cell]) -> nn.Cell:
    """Return the network that `build` returns, its weights without values.

    They take no memory until `load_network` sets them, which is also quicker by seconds.
    """
    with no_init_parameters():
        return build()


def network_shapes(network: nn.Cell) -> dict[str, tuple[int, ...]]:
    """Return {name: shape} of a network's weights."""
    return {name: tuple(parameter.shape) for name, parameter in network.parameters_and_names()}


def load_network(network: nn.Cell, tensors: Mapping[str, np.ndarray]) -> None:
    """Give a network with diffusers' names the weights of a file.

    Args:
        network: the network, with values or without.
        tensors: arrays by name, floating-point of any precision; the names may be diffusers' of
            today, with the former attention names, or LDM's (`mg.weights.vae_names`).

    Raises:
        ValueError: tensors that are missing, left over, of another shape, or not floating-point;
            the network is then unchanged.
    """
    tensors = to_diffusers_names(tensors)
    check_tensors(tensors, network_shapes(network))
    for name, array in tensors.items():
        if array.dtype.kind != "f":
            raise ValueError(
                f"tensor {name!r} holds {array.dtype}, expected floating-point numbers"
            )
    for name, parameter in network.parameters_and_names():
        set_values(parameter, tensors[name])


def network_tensors(network: nn.Cell) -> dict[str, np.ndarray]:
    """Return {name: array} of a network's weights."""
    # Copies: on CPU `asnumpy` shows the parameter's memory, which later steps write to.
    return {
        name: np.array(parameter.asnumpy()) for name, parameter in network.parameters_and_names()
    }
