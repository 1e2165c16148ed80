"""Attention: one function for every device, and the cell around it.

Layouts
    tokens   (B, L, D)
    heads    (B, L, H, d)   D = H d
Source: Movie Gen (arXiv 2410.13720) section 3.1.3.
"""

import mindspore as ms
from mindspore import Tensor, nn, ops

from mg.models.movie_gen.config import MovieGenConfig
from mg.models.movie_gen.layers import Linear, RMSNorm
from mg.models.movie_gen.positions import RotaryPositions
from mg.parallel.sequence import SequenceParallel

__all__ = ["Attention", "attend", "attention_mask", "has_flash_attention"]

# Far below every logit, so that exp() of it is exactly 0 in fp32.
MASKED_LOGIT = -1e9


def has_flash_attention(dtype: ms.Type) -> bool:
    """Return whether Ascend's flash attention is to be used: it takes half precision alone."""
    return ms.get_context("device_target") == "Ascend" and dtype != ms.float32


def attention_mask(valid: Tensor, num_queries: int, num_heads: int, *, flash: bool) -> Tensor:
    """Return the mask of keys in the form that `attend` takes, to be made once for all layers.

    Args:
        valid: (B, Lk) bool, which keys count; at least one of each clip must.
        num_queries: Lq.
        num_heads: H.
        flash: whether it is for flash attention.
    """
    batch, num_keys = valid.shape
    valid = valid.reshape(batch, 1, 1, num_keys)
    if flash:  # (B, 1, Lq, Lk), true where a key is left out
        return ops.broadcast_to(ops.logical_not(valid), (batch, 1, num_queries, num_keys))
    logits = (1.0 - valid.astype(ms.float32)) * MASKED_LOGIT
    # In full: adding with broadcasting in every layer takes three times longer on CPU.
    return ops.broadcast_to(logits, (batch, num_heads, num_queries, num_keys))


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, flash: bool
) -> Tensor:
    """Return softmax(q k^T / sqrt(d) + mask) v, (B, Lq, D), with the softmax in fp32.

    Args:
        query: (B, Lq, H, d).
        key: (B, Lk, H, d).
        value: (B, Lk, H, d).
        mask: what `attention_mask` returns, or None for all keys.
        flash: use Ascend's flash attention (fp16 and bf16 only).
    """
    batch, num_queries, heads, width = query.shape
    num_keys = key.shape[1]
    if flash:
        return ops.flash_attention_score(
            query.reshape(batch, num_queries, heads * width),
            key.reshape(batch, num_keys, heads * width),
            value.reshape(batch, num_keys, heads * width),
            heads,
            attn_mask=mask,
            scalar_value=width**-0.5,
            input_layout="BSH",
        )
    # (B, L, H, d) -> (B, H, L, d); scaling q instead of the product keeps fp16 in range
    query = (query * width**-0.5).transpose(0, 2, 1, 3)
    key, value = key.transpose(0, 2, 1, 3), value.transpose(0, 2, 1, 3)
    logits = ops.BatchMatMul(transpose_b=True)(query, key).astype(ms.float32)  # (B, H, Lq, Lk)
    if mask is not None:
        logits = logits + mask
    # As rows: on CPU the gradient over an axis of more than two takes three times longer.
    weights = ops.softmax(logits.reshape(-1, num_keys), axis=-1).reshape(logits.shape)
    weights = weights.astype(value.dtype)
    mixed = ops.BatchMatMul()(weights, value)  # (B, H, Lq, d)
    return mixed.transpose(0, 2, 1, 3).reshape(batch, num_queries, heads * width)


class Attention(nn.Cell):
    """Multi-head attention of tokens to a context: to themselves, or to text.

    Args:
        config: of the network.
        flash: use Ascend's flash attention.
        sequence: the ranks that each have a part of the tokens and of the context; None: all here.
    """

    def __init__(
        self, config: MovieGenConfig, *, flash: bool, sequence: SequenceParallel | None = None
    ) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.flash = flash
        self.sequence = sequence
        self.query = Linear(config.dim, config.dim)
        self.key = Linear(config.dim, config.dim)
        self.value = Linear(config.dim, config.dim)
        self.output = Linear(config.dim, config.dim)
        self.qk_norm = config.qk_norm
        if config.qk_norm:
            self.query_norm = RMSNorm(config.head_dim, config.norm_eps)
            self.key_norm = RMSNorm(config.head_dim, config.norm_eps)
        self.rotate = RotaryPositions(config.head_dim)

    def heads(self, x: Tensor) -> Tensor:
        """Return (B, L, D) as (B, L, H, d)."""
        batch, length, dim = x.shape
        return x.reshape(batch, length, self.num_heads, dim // self.num_heads)

    def construct(
        self,
        x: Tensor,
        context: Tensor,
        mask: Tensor | None = None,
        rotary_grid: tuple[int, int, int] | None = None,
    ) -> Tensor:
        """Return (B, L, D).

        Args:
            x: tokens that ask, (B, L, D).
            context: tokens that are asked, (B, Lk, D).
            mask: what `attention_mask` returns, or None.
            rotary_grid: the token grid of x and context (of all ranks), to turn queries and keys
                by, or None.
        """
        query, key = self.heads(self.query(x)), self.heads(self.key(context))
        value = self.heads(self.value(context))
        if self.qk_norm:
            query, key = self.query_norm(query), self.key_norm(key)
        if self.sequence is not None:  # all tokens of a part of the heads, for the time being
            query, key, value = self.sequence.to_heads(query, key, value)
        if rotary_grid is not None:
            query, key = self.rotate(query, rotary_grid), self.rotate(key, rotary_grid)
        mixed = attend(query, key, value, mask, flash=self.flash)
        if self.sequence is not None:
            mixed = self.sequence.to_tokens(mixed, self.num_heads)
        return self.output(mixed)
