"""The plain parts of the transformer: the norm of text tokens, the gated feed-forward layer.

Layouts
    tokens   (B, L, D)   L = frames x height x width of the token grid, width fastest
    heads    (B, L, H, d)   D = H d
Precision: each cell computes in the dtype of its input and casts its fp32 weights to it;
normalisation and modulation are always fp32.

Source: Movie Gen (arXiv 2410.13720) section 3.1.3, LLaMa3 (arXiv 2407.21783) section 3.2.
"""

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from mg.models.layers.tokens import Linear

__all__ = [
    "FeedForward",
    "LayerNorm",
]


class LayerNorm(nn.Cell):
    """Layer normalisation over the last axis, computed in fp32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.gamma = Parameter(Tensor(np.ones(width, np.float32)), name="gamma")
        self.beta = Parameter(Tensor(np.zeros(width, np.float32)), name="beta")
        self.norm = ops.LayerNorm(begin_norm_axis=-1, begin_params_axis=-1, epsilon=eps)

    def construct(self, x: Tensor) -> Tensor:
        return self.norm(x.astype(ms.float32), self.gamma, self.beta)[0].astype(x.dtype)


class FeedForward(nn.Cell):
    """SwiGLU: W_down (SiLU(W_gate x) * W_up x)."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.gate = Linear(dim, inner, has_bias=False)
        self.up = Linear(dim, inner, has_bias=False)
        self.down = Linear(inner, dim, has_bias=False)

    def construct(self, x: Tensor) -> Tensor:
        return self.down(ops.silu(self.gate(x)) * self.up(x))
