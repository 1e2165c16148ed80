"""The straight path from noise to data (Movie Gen 3.1.2), and the velocity along it.

Plain arithmetic: the same functions take numpy arrays and tensors, in compiled graphs too.
"""

import numpy as np
from mindspore import Tensor

__all__ = ["SIGMA_MIN", "noisy_latent", "target_velocity"]

SIGMA_MIN = 1e-5  # how much noise is left at t = 1


def noisy_latent(
    data: np.ndarray | Tensor, noise: np.ndarray | Tensor, t: np.ndarray | Tensor
) -> np.ndarray | Tensor:
    """Return x_t = t x_1 + (1 - (1 - sigma_min) t) x_0.

    Args:
        data: x_1, (B, C, T, H, W).
        noise: x_0, standard normal, the same shape.
        t: (B,) in [0, 1].
    """
    t = t.reshape((-1,) + (1,) * (data.ndim - 1))  # (B,) -> (B, 1, 1, 1, 1)
    # 1 - (1 - sigma_min) t, without the difference of two nearly equal float32 numbers at t = 1
    remaining = (1.0 - t) + SIGMA_MIN * t
    return t * data + remaining * noise


def target_velocity(data: np.ndarray | Tensor, noise: np.ndarray | Tensor) -> np.ndarray | Tensor:
    """Return dx_t / dt = x_1 - (1 - sigma_min) x_0, the same at every t.

    Args:
        data: x_1, (B, C, T, H, W).
        noise: x_0, the same shape.
    """
    return data - (1.0 - SIGMA_MIN) * noise
