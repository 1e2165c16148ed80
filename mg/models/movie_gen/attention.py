"""Attention of the transformer's tokens, to themselves and to text.

Layouts
    tokens   (B, L, D)
    heads    (B, L, H, d)   D = H d
Source: Movie Gen (arXiv 2410.13720) section 3.1.3.
"""

from mindspore import Tensor, nn

from mg.models.layers.tokens import Linear, RMSNorm, attend
from mg.models.movie_gen.config import MovieGenConfig
from mg.models.movie_gen.positions import RotaryPositions
from mg.parallel.sequence import SequenceParallel

__all__ = ["Attention"]


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
        self.query = Linear(config.dim, config.dim, has_bias=False)
        self.key = Linear(config.dim, config.dim, has_bias=False)
        self.value = Linear(config.dim, config.dim, has_bias=False)
        self.output = Linear(config.dim, config.dim, has_bias=False)
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
            mask: what `AttentionMask` returns, or None.
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
