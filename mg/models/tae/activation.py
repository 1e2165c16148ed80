"""SiLU with a gradient that takes little time on CPU."""

from mindspore import Tensor, nn, ops
from mindspore.ops.operations._grad_ops import SigmoidGrad

from mg.device import runs_on_cpu

__all__ = ["SiLU"]


class SiLU(nn.Cell):
    """x sigmoid(x), of any shape, in the dtype of x (arXiv 1702.03118)."""

    def __init__(self) -> None:
        super().__init__()
        self.on_cpu = runs_on_cpu()
        self.composed = _ComposedSiLU()

    def construct(self, x: Tensor) -> Tensor:
        if self.on_cpu:
            return self.composed(x)
        return ops.silu(x)


class _ComposedSiLU(nn.Cell):
    """SiLU where it has no kernel of its own, with one operation less in its gradient.

    With s = sigmoid(x),

        dx = dy (s + x s (1 - s))
    """

    def __init__(self) -> None:
        super().__init__()
        self.sigmoid = ops.Sigmoid()
        self.sigmoid_grad = SigmoidGrad()

    def construct(self, x: Tensor) -> Tensor:
        return x * self.sigmoid(x)

    def bprop(self, x, out, dout):
        # Once dout is there, not before: otherwise s of the forward pass is kept until now.
        s = self.sigmoid(ops.depend(x, dout))
        return (dout * (s + self.sigmoid_grad(s, x)),)
