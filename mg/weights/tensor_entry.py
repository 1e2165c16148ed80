"""What a weight file says about a tensor before the tensor is read."""

from typing import NamedTuple

__all__ = ["TensorEntry"]


class TensorEntry(NamedTuple):
    """Type and shape of a stored tensor."""

    dtype: str  # numpy's name of the number type, or `bfloat16`, as it is stored
    shape: tuple[int, ...]
