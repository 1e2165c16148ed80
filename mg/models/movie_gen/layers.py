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
from mindspore.ops import constexpr

__all__ = ["FeedForward", "LayerNorm", "Linear", "PerClip", "RMSNorm", "runs_on_cpu"]


def runs_on_cpu() -> bool:
    """Return whether MindSpore runs on CPU, where some operations need another form."""
    return ms.get_context("device_target") == "CPU"


class Linear(nn.Cell):
    """y = x W^T over the last axis, without bias."""

    def __init__(self, in_width: int, out_width: int, *, starts_at_zero: bool = False) -> None:
        super().__init__()
        # Variance 1 / in_width: the output is as large as the input.
        start = Zero() if starts_at_zero else Uniform(math.sqrt(3.0 / in_width))
        self.weight = Parameter(initializer(start, (out_width, in_width)), name="weight")
        # The primitive: the gradient of `ops.matmul` copies its operands to transpose them.
        self.matmul = ops.MatMul(transpose_b=True)

    def construct(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        y = self.matmul(rows, self.weight.astype(x.dtype))
        return y.reshape((*x.shape[:-1], y.shape[-1]))


class _Normalise(nn.Cell):
    """x r with r = 1 / sqrt(mean(x^2) + eps) for rows x (N, D), with its own gradient.

    From y = x r follows dx = r (dy - y mean(dy y)): one product and one sum less than the compiler
    finds, and nothing is kept but x and y.
    """

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.mean = ops.ReduceMean(keep_dims=True)

    def inverse_rms(self, x: Tensor) -> Tensor:
        return ops.rsqrt(self.mean(x * x, -1) + self.eps)

    def construct(self, x: Tensor) -> Tensor:
        return x * self.inverse_rms(x)

    def bprop(self, x, out, dout):
        return ((dout - out * self.mean(dout * out, -1)) * self.inverse_rms(x),)


class RMSNorm(nn.Cell):
    """x / sqrt(mean(x^2) + eps) over the last axis in fp32; the gain is for the caller to apply.

    The gain multiplies whatever the caller scales by anyway, which are few numbers.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = Parameter(Tensor(np.ones(width, np.float32)), name="weight")
        self.normalise = _Normalise(eps)

    def construct(self, x: Tensor) -> Tensor:
        """Return the normalised x times the gain, in the dtype of x."""
        return (self.normalised_rows(x) * self.weight).astype(x.dtype).reshape(x.shape)

    def without_gain(self, x: Tensor) -> Tensor:
        """Return the normalised x in fp32."""
        return self.normalised_rows(x).reshape(x.shape)

    def normalised_rows(self, x: Tensor) -> Tensor:
        # As rows: on CPU sums over an axis of a tensor of three axes take eight times longer.
        return self.normalise(x.reshape(-1, x.shape[-1]).astype(ms.float32))


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


@constexpr
def _ones(*shape: int) -> Tensor:
    return Tensor(np.ones(shape, np.float32))


class PerClip(nn.Cell):
    """Values per clip, in a shape to multiply tokens with or to add to them."""

    def __init__(self) -> None:
        super().__init__()
        self.repeats = runs_on_cpu()
        self.matmul = ops.BatchMatMul()

    def construct(self, values: Tensor, num_tokens: int) -> Tensor:
        """Return values (B, D) as (B, 1, D), on CPU repeated to (B, L, D)."""
        values = values.reshape(values.shape[0], 1, values.shape[1])
        if not self.repeats:
            return values
        # The CPU kernel that sums over a middle axis, the gradient of broadcasting, is ten times
        # slower than a product with ones, whose gradient is another product with ones.
        return self.matmul(_ones(values.shape[0], num_tokens, 1), values)
