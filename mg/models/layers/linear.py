"""The linear map of tokens."""

from mindspore import Tensor, nn, ops

from mg.models.layers.convolution import drawn_weight, zero_bias

__all__ = ["Linear"]


class Linear(nn.Cell):
    """y = x W^T + b over the last axis, computing in the dtype of its input."""

    def __init__(self, in_width: int, out_width: int, *, starts_at_zero: bool = False) -> None:
        super().__init__()
        self.weight = drawn_weight((out_width, in_width), starts_at_zero=starts_at_zero)
        self.bias = zero_bias(out_width)
        # The primitive: the gradient of `ops.matmul` copies its operands to transpose them.
        self.matmul = ops.MatMul(transpose_b=True)

    def construct(self, x: Tensor) -> Tensor:
        tokens = x.reshape(-1, x.shape[-1])
        y = self.matmul(tokens, self.weight.astype(x.dtype)) + self.bias.astype(x.dtype)
        return y.reshape((*x.shape[:-1], y.shape[-1]))
