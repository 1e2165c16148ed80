"""Single-head attention over the pixels of frames.

Layouts and precision: see `mg.models.layers`.
"""

import mindspore as ms
from mindspore import Tensor, nn, ops

from mg.models.layers.linear import Linear
from mg.models.layers.normalisation import GroupNorm

__all__ = ["PixelAttention", "attend", "attend_to_past"]


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(C)) v for (N, L, C) tensors, with the softmax in fp32."""
    channels = query.shape[-1]
    # Scaling q instead of the product keeps fp16 products in range.
    logits = ops.bmm(query * channels**-0.5, key.transpose(0, 2, 1))  # (N, L, L)
    weights = ops.softmax(logits.astype(ms.float32), axis=-1).astype(value.dtype)
    return ops.bmm(weights, value)


def attend_to_past(query: Tensor, key: Tensor, value: Tensor, num_frames: int) -> Tensor:
    """Return the attention of tokens (B, T*L, C) to those of their own frame and earlier ones.

    Frame by frame, which leaves out half of the products and needs no mask.
    """
    length = query.shape[1] // num_frames
    parts = []
    for frame in range(num_frames):
        seen = (frame + 1) * length
        own = query[:, frame * length : seen]
        parts.append(attend(own, key[:, :seen], value[:, :seen]))
    return parts[0] if num_frames == 1 else ops.concat(parts, 1)


class PixelAttention(nn.Cell):
    """x plus single-head attention over pixels, with the names of diffusers' `Attention`.

    Args:
        channels: C.
        norm_groups: of the normalisation before it.
        sees_past: whether a pixel attends to all pixels of its own frame and of those before it,
            with statistics of the whole clip; else each frame is an image by itself.
        epsilon: of the normalisation.
    """

    def __init__(
        self, channels: int, *, norm_groups: int, sees_past: bool = False, epsilon: float = 1e-6
    ) -> None:
        super().__init__()
        self.sees_past = sees_past
        self.group_norm = GroupNorm(channels, norm_groups, epsilon=epsilon, per_frame=not sees_past)
        self.to_q = Linear(channels, channels)
        self.to_k = Linear(channels, channels)
        self.to_v = Linear(channels, channels)
        self.to_out = nn.CellList([Linear(channels, channels)])

    def construct(self, x: Tensor, num_frames: int = 1) -> Tensor:
        total, channels, height, width = x.shape
        num_frames = num_frames if self.sees_past else 1
        h = self.group_norm(x, num_frames).reshape(total, channels, -1)
        # (B*T, C, H*W) -> (B, T*H*W, C), or (B*T, H*W, C)
        tokens = h.transpose(0, 2, 1).reshape(total // num_frames, -1, channels)
        query, key, value = self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)
        h = self.to_out[0](attend_to_past(query, key, value, num_frames))
        h = h.reshape(total, height * width, channels).transpose(0, 2, 1)
        return x + h.reshape(x.shape)
