"""Whether tensors are those of a network: the same names, the same shapes."""

from collections.abc import Mapping

import numpy as np

__all__ = ["check_tensors"]

NUM_LISTED = 8


def check_tensors(
    tensors: Mapping[str, np.ndarray], expected_shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise ValueError unless `tensors` are exactly those expected: same names, same shapes.

    Raises:
        ValueError: with the numbers of missing, extra and misshapen tensors and the first names.
    """
    missing = [name for name in expected_shapes if name not in tensors]
    extra = [name for name in tensors if name not in expected_shapes]
    misshapen = [
        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(shape)}"
        for name, shape in expected_shapes.items()
        if name in tensors and tuple(tensors[name].shape) != tuple(shape)
    ]
    faults = [
        f"{len(names)} {kind} ({_listed(names)})"
        for kind, names in (("missing", missing), ("extra", extra), ("misshapen", misshapen))
        if names
    ]
    if faults:
        raise ValueError(
            f"the tensors do not fit the network of {len(expected_shapes)} tensors: "
            + "; ".join(faults)
        )


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:NUM_LISTED])
    return shown + (f", and {len(names) - NUM_LISTED} more" if len(names) > NUM_LISTED else "")
