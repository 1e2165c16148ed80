"""Weight files of Open-Sora-Plan's CausalVideoVAE: which of their weights count.

v1.0 and v1.1 come as safetensors or as Lightning's `.ckpt`, the loss's networks among them. A
`checkpoint.ckpt` of v1.2 holds the weights, those averaged over training and the discriminator;
the averaged ones are meant to be used.
"""

import os

import numpy as np

from mg.weights.checkpoint_file import list_tensors
from mg.weights.own_tensors import read_own_tensors

__all__ = ["read_causal_vae"]

AVERAGED = "ema_state_dict"


def read_causal_vae(path: str | os.PathLike, *, key: str | None = None) -> dict[str, np.ndarray]:
    """Return the network's tensors in a file or folder, the averaged ones if it has some.

    Args:
        path: the file, or a folder that holds it.
        key: the weights to take instead, such as `state_dict` for those that are not averaged.

    Raises:
        FileNotFoundError, ValueError: as `mg.weights.own_tensors.read_own_tensors`.
    """
    if key is None and _holds_averaged(path):
        key = AVERAGED
    return read_own_tensors(path, key=key)


def _holds_averaged(path: str | os.PathLike) -> bool:
    try:
        return bool(list_tensors(path, key=AVERAGED))
    except ValueError:  # none there; what is wrong with the file itself, reading it says
        return False
