"""mindone's VAE networks: built from a checkpoint's config, filled strictly, run on CPU too.

The architectures are mindone's (`mindone.diffusers`), which are those of diffusers; names and
shapes of tensors are diffusers'. What is added here: strict loading, names that stay what they
are, shapes without weights, and stand-ins for the operators that CPUs lack.

AutoencoderKL and AutoencoderKLCogVideoX run in both modes. AutoencoderKLHunyuanVideo does not
compile: run it within `pynative_mode`.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.nn.utils import no_init_parameters

from mg.cpu_stand_ins import install_stand_ins
from mg.parameters import set_values
from mg.quiet_imports import quiet_imports
from mg.weights.tae_names import check_tensors
from mg.weights.vae_names import to_diffusers_names

__all__ = [
    "CLASS_NAMES",
    "build_network",
    "load_network",
    "network_shapes",
    "network_tensors",
    "pynative_mode",
]

CLASS_NAMES = ("AutoencoderKL", "AutoencoderKLCogVideoX", "AutoencoderKLHunyuanVideo")


def build_network(
    class_name: str, config: Mapping[str, Any], *, initialize: bool = True
) -> nn.Cell:
    """Return a VAE network of mindone, in evaluation mode.

    Its methods `encode(video)` and `decode(latent)` return tuples whose first entry is the moments
    (mean and logvar along axis 1) and the frames. On CPU the stand-ins are installed.

    Args:
        class_name: one of `CLASS_NAMES`, as in `_class_name` of a config.json.
        config: the fields of config.json; absent ones get the class's defaults, and those that the
            class does not know (`_diffusers_version` ...) have no effect.
        initialize: whether to draw random weights. If not, the weights have no values and take no
            memory until `load_network` sets them, which is quicker by seconds.

    Raises:
        ValueError: another class, or a config of which no such network can be made.
    """
    network_class = _network_class(class_name)
    install_stand_ins()
    weights = contextlib.nullcontext() if initialize else no_init_parameters()
    try:
        with weights:
            network = network_class.from_config(dict(config))
    except (AssertionError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"no {class_name} can be built from this config: {error}") from error
    _keep_names_when_sliced(network)
    return network.set_train(False)


def network_shapes(class_name: str, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return {name: shape} of the tensors of such a network; no memory is taken for weights.

    Args:
        class_name: as for `build_network`.
        config: as for `build_network`.

    Raises:
        ValueError: as `build_network`.
    """
    return _shapes(build_network(class_name, config, initialize=False))


def load_network(network: nn.Cell, tensors: Mapping[str, np.ndarray]) -> None:
    """Give a network the weights of a file.

    Args:
        network: from `build_network`.
        tensors: arrays by name, floating-point of any precision; the names may be diffusers' of
            today, with the former attention names, or LDM's (`mg.weights.vae_names`).

    Raises:
        ValueError: tensors that are missing, left over, of another shape, or not floating-point;
            the network is then unchanged.
    """
    tensors = to_diffusers_names(tensors)
    check_tensors(tensors, _shapes(network))
    for name, array in tensors.items():
        if array.dtype.kind != "f":
            raise ValueError(
                f"tensor {name!r} holds {array.dtype}, expected floating-point numbers"
            )
    for name, parameter in network.parameters_and_names():
        _set(parameter, tensors[name])


def network_tensors(network: nn.Cell) -> dict[str, np.ndarray]:
    """Return {name: array} of a network's weights, under diffusers' names."""
    # Copies: on CPU `asnumpy` shows the parameter's memory, which later steps write to.
    return {
        name: np.array(parameter.asnumpy()) for name, parameter in network.parameters_and_names()
    }


@contextlib.contextmanager
def pynative_mode() -> Iterator[None]:
    """Run what is in the block line by line, whichever mode is set outside."""
    before = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        yield
    finally:
        ms.set_context(mode=before)


def _shapes(network: nn.Cell) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in network.parameters_and_names()}


def _set(parameter: Parameter, values: np.ndarray) -> None:
    if parameter.has_init:  # built without values
        parameter.set_data(Tensor(np.array(values), parameter.dtype))
    else:
        set_values(parameter, values)


def _network_class(class_name: str) -> type[nn.Cell]:
    if class_name not in CLASS_NAMES:
        raise ValueError(
            f"class {class_name!r} is not known here; expected one of {', '.join(CLASS_NAMES)}"
        )
    with quiet_imports():
        import mindone.diffusers

        return getattr(mindone.diffusers, class_name)


class _Cells(nn.CellList):
    """A list of cells whose slices are plain lists.

    A slice of `nn.CellList` is a new CellList, which renames the parameters in it for good:
    `blocks[1:]` in a network's construct makes `blocks.1.weight` into `0.weight`. Saving then
    loses tensors, and optimisers find names twice.
    """

    def __getitem__(self, index):
        if isinstance(index, slice):
            return list(self._cells.values())[index]
        return super().__getitem__(index)


def _keep_names_when_sliced(network: nn.Cell) -> None:
    for _, cell in network.cells_and_names():
        if type(cell) is nn.CellList:
            object.__setattr__(cell, "__class__", _Cells)
