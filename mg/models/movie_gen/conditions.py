"""What the video depends on: the time of the flow, and text.

Layouts
    text     (B, L, D)   tokens of all encoders, one after the other
    mask     (B, L)      bool, true where a token counts
Source: Movie Gen (arXiv 2410.13720) section 3.1.3; the shared modulation: PixArt (arXiv
2310.00426) section 2.3.
"""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mg.models.layers.tokens import Linear
from mg.models.movie_gen.config import MovieGenConfig
from mg.models.movie_gen.layers import LayerNorm

__all__ = ["TextInputs", "TimeEmbedding"]

# t is in [0, 1]; this many units let the slowest and the quickest wave tell times apart.
TIME_UNITS = 1000.0
LONGEST_PERIOD = 10000.0


class TimeEmbedding(nn.Cell):
    """SiLU(W_2 SiLU(W_1 waves(t))), (B, D) in fp32."""

    def __init__(self, config: MovieGenConfig) -> None:
        super().__init__()
        half = config.timestep_width // 2
        rates = TIME_UNITS * LONGEST_PERIOD ** (-np.arange(half) / half)
        self.rates = Tensor(rates.reshape(1, -1).astype(np.float32))
        self.first = Linear(config.timestep_width, config.dim, has_bias=False)
        self.second = Linear(config.dim, config.dim, has_bias=False)

    def construct(self, t: Tensor) -> Tensor:
        """Return the embedding (B, D) of t (B,)."""
        angles = t.astype(ms.float32).reshape(-1, 1) * self.rates
        waves = ops.concat((ops.cos(angles), ops.sin(angles)), axis=1)
        return ops.silu(self.second(ops.silu(self.first(waves))))


class TextInput(nn.Cell):
    """Bring one encoder's tokens to the model's width: linear, then LayerNorm."""

    def __init__(self, width: int, config: MovieGenConfig) -> None:
        super().__init__()
        self.linear = Linear(width, config.dim, has_bias=False)
        self.norm = LayerNorm(config.dim, config.norm_eps)

    def construct(self, values: Tensor) -> Tensor:
        return self.norm(self.linear(values))


class TextInputs(nn.Cell):
    """Join the tokens of all text encoders, and their masks."""

    def __init__(self, config: MovieGenConfig) -> None:
        super().__init__()
        self.inputs = nn.CellList([TextInput(e.width, config) for e in config.text_encoders])

    def construct(self, dtype: ms.Type, *text: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens (B, L, D) in `dtype`, zero where masked, and which to attend to (B, L).

        Where a caption has no valid token at all, the mask returned has them all: they are zero,
        so attention to them, which has no biases, gives zero.

        Args:
            dtype: of the tokens.
            text: for each encoder an embedding (B, L, width) and a mask (B, L).
        """
        tokens, masks = (), ()
        for number in range(len(self.inputs)):
            values, mask = text[2 * number].astype(dtype), text[2 * number + 1].astype(ms.bool_)
            # Before the norm as well, so that not even a NaN in the padding gets through.
            values = ops.masked_fill(values, ops.logical_not(mask).expand_dims(-1), 0.0)
            tokens += (self.inputs[number](values),)
            masks += (mask,)
        tokens, mask = ops.concat(tokens, axis=1), ops.concat(masks, axis=1)
        tokens = tokens * mask.expand_dims(-1).astype(dtype)
        is_empty = ops.logical_not(mask.astype(ms.float32).sum(axis=1, keepdims=True) > 0)
        return tokens, ops.logical_or(mask, is_empty)
