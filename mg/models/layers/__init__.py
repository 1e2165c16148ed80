"""Layers that video networks are made of, each as its paper defines it.

Layouts
    video    (B, C, T, H, W)   at public borders
    folded   (B*T, C, H, W)    inside networks: frames of a clip follow each other
Cells that look at more than one frame take a folded tensor `x` and `num_frames` (T).
Precision: each cell computes in the dtype of `x` and casts its fp32 weights to it; statistics of
normalisation and softmax are always fp32.

A layer holds its parameters under the names that checkpoints have. The arithmetic on them comes
from one of two modules with the same names: `plain`, the definitions, for every device; `cpu`,
what takes less time and memory there. `operations` says which, `choose` overrides it.
"""

from mg.models.layers.devices import choose, operations
from mg.numpy_two import prepare_for_numpy_two

__all__ = ["choose", "operations"]

prepare_for_numpy_two()
