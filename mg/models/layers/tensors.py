"""Arrays where tensors are expected."""

import mindspore as ms
import numpy as np
from mindspore import Tensor

__all__ = ["as_tensor"]


def as_tensor(value: Tensor | np.ndarray, name: str) -> Tensor:
    """Return an array of numbers as a float32 tensor, one of bools as such; a tensor as it is.

    Raises:
        TypeError: it is neither, or has bytes, as pixels of files are: networks take [-1, 1].
    """
    if getattr(value, "dtype", None) in (np.uint8, ms.uint8):
        raise TypeError(
            f"{name} is uint8; expected floats in [-1, 1], x / 127.5 - 1 of pixels, as "
            "mg.load_video gives them"
        )
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray):
        return Tensor(value if value.dtype == bool else value.astype(np.float32, copy=False))
    raise TypeError(
        f"{name} is {type(value).__name__}; expected a MindSpore tensor or a numpy array"
    )
