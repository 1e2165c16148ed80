"""Giving parameters new values from the host."""

import numpy as np
from mindspore import Parameter, Tensor, ops

__all__ = ["set_values"]


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
    ops.assign(parameter, Tensor(np.array(values), parameter.dtype))
