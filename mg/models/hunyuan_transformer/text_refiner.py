"""The refiner: a small transformer over the text's tokens before they meet the video's."""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mg.models.hunyuan_transformer.config import HunyuanVideoConfig
from mg.models.hunyuan_transformer.embeddings import TimeAndText
from mg.models.layers.tokens import MASKED_LOGIT, LayerNorm, Linear, attend, gate_tokens

__all__ = ["NORM_EPS", "TextRefiner"]

NORM_EPS = 1e-6


class TextRefiner(nn.Cell):
    """Text tokens at the width of the network, which have attended to each other."""

    def __init__(self, config: HunyuanVideoConfig) -> None:
        super().__init__()
        self.time_text_embed = TimeAndText(config)
        self.proj_in = Linear(config.text_embed_dim, config.dim)
        self.token_refiner = RefinerBlocks(config)
        self.num_heads = config.num_attention_heads

    def construct(self, text: Tensor, t: Tensor, mask: Tensor) -> Tensor:
        """Return tokens (B, L, D) of an embedding (B, L, text_embed_dim)."""
        batch, length = mask.shape
        counts = mask.astype(ms.float32)
        total = counts.sum(axis=1).reshape(batch, 1)
        weights = (counts / ops.maximum(total, ops.ones_like(total))).reshape(batch, 1, length)
        pooled = ops.bmm(weights, text.astype(ms.float32)).reshape(batch, -1)
        time = self.time_text_embed(t, pooled)
        return self.token_refiner(self.proj_in(text), time, self.logits(counts))

    def logits(self, counts: Tensor) -> Tensor:
        """Return what to add to logits: valid tokens attend to valid ones, all to the first."""
        batch, length = counts.shape
        pairs = counts.reshape(batch, length, 1) * counts.reshape(batch, 1, length)
        first = Tensor((np.arange(length) == 0).astype(np.float32)).reshape(1, 1, length)
        logits = (1.0 - ops.maximum(pairs, first)) * MASKED_LOGIT
        shape = (batch, self.num_heads, length, length)
        return ops.broadcast_to(logits.reshape(batch, 1, length, length), shape)


class RefinerBlocks(nn.Cell):
    """The blocks of the refiner, in a row."""

    def __init__(self, config: HunyuanVideoConfig) -> None:
        super().__init__()
        self.refiner_blocks = nn.CellList(
            [RefinerBlock(config) for _ in range(config.num_refiner_layers)]
        )

    def construct(self, x: Tensor, time: Tensor, logits: Tensor) -> Tensor:
        for number in range(len(self.refiner_blocks)):
            x = self.refiner_blocks[number](x, time, logits)
        return x


class RefinerBlock(nn.Cell):
    """x + gate attention(norm(x)), then x + gate feed_forward(norm(x)); the gates follow time."""

    def __init__(self, config: HunyuanVideoConfig) -> None:
        super().__init__()
        self.norm1 = LayerNorm(config.dim, NORM_EPS)
        self.attn = RefinerAttention(config)
        self.norm2 = LayerNorm(config.dim, NORM_EPS)
        self.ff = SiluFeedForward(config.dim, config.mlp_dim)
        self.norm_out = Gates(config)

    def construct(self, x: Tensor, time: Tensor, logits: Tensor) -> Tensor:
        gate, gate_of_ff = ops.chunk(self.norm_out(time), 2, axis=1)  # (B, D) each
        x = x + gate_tokens(self.attn(self.norm1(x), logits), gate)
        return x + gate_tokens(self.ff(self.norm2(x)), gate_of_ff)


class RefinerAttention(nn.Cell):
    """Attention of text tokens to each other."""

    def __init__(self, config: HunyuanVideoConfig) -> None:
        super().__init__()
        dim = config.dim
        self.heads = config.num_attention_heads
        self.to_q, self.to_k, self.to_v = Linear(dim, dim), Linear(dim, dim), Linear(dim, dim)
        self.to_out = nn.CellList([Linear(dim, dim)])

    def construct(self, x: Tensor, logits: Tensor) -> Tensor:
        batch, length, dim = x.shape
        shape = (batch, length, self.heads, dim // self.heads)
        query, key, value = self.to_q(x), self.to_k(x), self.to_v(x)
        mixed = attend(query.reshape(shape), key.reshape(shape), value.reshape(shape), logits)
        return self.to_out[0](mixed)


class Gates(nn.Cell):
    """W SiLU(time), (B, 2 D)."""

    def __init__(self, config: HunyuanVideoConfig) -> None:
        super().__init__()
        self.linear = Linear(config.dim, 2 * config.dim)

    def construct(self, time: Tensor) -> Tensor:
        return self.linear(ops.silu(time))


class SiluFeedForward(nn.Cell):
    """W_2 SiLU(W_1 x), named `net.0.proj` and `net.2`."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.net = nn.CellList([_SiluMap(width, inner), nn.Identity(), Linear(inner, width)])

    def construct(self, x: Tensor) -> Tensor:
        return self.net[2](self.net[0](x))


class _SiluMap(nn.Cell):
    """SiLU(W x + b)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = Linear(width, inner)

    def construct(self, x: Tensor) -> Tensor:
        return ops.silu(self.proj(x))
