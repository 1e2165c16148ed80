"""Reading parameters and giving them new values from the host.

A parameter may hold this rank's rows of a whole one; then it has an attribute `rows`
(`mg.parallel.rows`). What is saved and loaded is whole.
"""

from collections.abc import Sequence

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, ops

__all__ = ["clones", "set_values", "set_whole_values", "whole_shape", "whole_values"]


def clones(parameters: Sequence[Parameter], names: Sequence[str], *, init: str) -> ParameterTuple:
    """Return new parameters of the same shapes that hold the same rows of whole ones.

    Args:
        parameters: of whose kind they are.
        names: of the new ones.
        init: "same" for the same values, "zeros" for zeros.
    """
    new = [parameter.clone(init) for parameter in parameters]
    for clone, parameter, name in zip(new, parameters, names, strict=True):
        clone.name = name
        if hasattr(parameter, "rows"):  # which MindSpore does not clone
            clone.rows = parameter.rows
    return ParameterTuple(new)


def set_values(parameter: Parameter, values: np.ndarray) -> None:
    """Set a parameter to an array of its shape, whether or not graphs with it are compiled.

    `Parameter.set_data` is not for this: once a graph is compiled (MindSpore 2.10, CPU), it may
    leave the graph with the old values, and reading the parameter with values that stay behind.

    Args:
        parameter: what to set.
        values: of the same shape; cast to the parameter's dtype.

    Raises:
        ValueError: another shape.
    """
    if tuple(values.shape) != tuple(parameter.shape):
        raise ValueError(
            f"{parameter.name} has the shape {tuple(parameter.shape)}, got {tuple(values.shape)}"
        )
    if parameter.has_init:  # built without values, so that no graph has seen any
        parameter.set_data(Tensor(np.array(values), parameter.dtype))
    else:
        ops.assign(parameter, Tensor(np.array(values), parameter.dtype))


def set_whole_values(parameter: Parameter, values: np.ndarray) -> None:
    """Set a parameter from an array of its whole shape, as `set_values` does.

    Raises:
        ValueError: another shape.
    """
    rows = getattr(parameter, "rows", None)
    set_values(parameter, values if rows is None else rows.own(values))


def whole_values(parameter: Parameter) -> np.ndarray:
    """Return a copy of a parameter's values; if it holds rows, all ranks must call it."""
    rows = getattr(parameter, "rows", None)
    values = parameter.asnumpy()
    return values.copy() if rows is None else rows.whole(values)


def whole_shape(parameter: Parameter) -> tuple[int, ...]:
    """Return the shape of `whole_values`."""
    rows = getattr(parameter, "rows", None)
    return tuple(parameter.shape) if rows is None else rows.whole_shape(parameter.shape)
