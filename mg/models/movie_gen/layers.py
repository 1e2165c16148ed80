"""The plain parts of the transformer: linear maps, norms, the gated feed-forward layer.

Layouts
    tokens   (B, L, D)   L = frames x height x width of the token grid, width fastest
    heads    (B, L, H, d)   D = H d
Precision: each cell computes in the dtype of its input and casts its fp32 weights to it;
normalisation and modulation are always fp32.

Source: Movie Gen (arXiv 2410.13720) section 3.1.3, LLaMa3 (arXiv 2407.21783) section 3.2.
"""

import math

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Uniform, Zero, initializer

__all__ = [
    "FeedForward",
    "LayerNorm",
    "Linear",
]


class Linear(nn.Cell):
    """y = x W^T over the last axis, without bias."""

    def __init__(self, in_width: int, out_width: int, *, starts_at_zero: bool = False) -> None:
        super().__init__()
        # Variance 1 / in_width: the output is as large as the input.
        start = Zero() if starts_at_zero else Uniform(math.sqrt(3.0 / in_width))
        self.weight = Parameter(initializer(start, (out_width, in_width)), name="weight")
        # The primitive: the gradient of `ops.matmul` copies its operands to transpose them.
        self.matmul = ops.MatMul(transpose_b=True)
        self.gathered_product = None  # set where ranks share the rows of the weight (mg.parallel)
        self.lora_A = None  # set, with lora_B and lora_scale, by `mg.models.lora.add_lora`

    def construct(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if self.gathered_product is None:
            y = self.matmul(rows, self.weight.astype(x.dtype))
        else:
            y = self.gathered_product(rows, self.weight)
        if self.lora_A is not None:
            y = y + self.lora_scale * self.lora_B(self.lora_A(rows))
        return y.reshape((*x.shape[:-1], y.shape[-1]))


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
        self.gate = Linear(dim, inner)
        self.up = Linear(dim, inner)
        self.down = Linear(inner, dim)

    def construct(self, x: Tensor) -> Tensor:
        return self.down(ops.silu(self.gate(x)) * self.up(x))
