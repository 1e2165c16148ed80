"""Single-head attention over the pixels of frames.

Layouts and precision: see `mg.models.layers`.
"""

import mindspore as ms
from mindspore import Tensor, ops

__all__ = ["attend"]


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(C)) v for (N, L, C) tensors, with the softmax in fp32."""
    channels = query.shape[-1]
    # Scaling q instead of the product keeps fp16 products in range.
    logits = ops.bmm(query * channels**-0.5, key.transpose(0, 2, 1))  # (N, L, L)
    weights = ops.softmax(logits.astype(ms.float32), axis=-1).astype(value.dtype)
    return ops.bmm(weights, value)
