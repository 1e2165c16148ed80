"""One layer of the transformer: self-attention, attention to text, feed-forward."""

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from mg.models.layers.devices import operations
from mg.models.layers.tokens import RMSNorm
from mg.models.movie_gen.attention import Attention
from mg.models.movie_gen.config import MovieGenConfig
from mg.models.movie_gen.layers import FeedForward
from mg.parallel.sequence import SequenceParallel

__all__ = ["ModulatedNorm", "TransformerBlock"]


class ModulatedNorm(nn.Cell):
    """RMSNorm(x) (1 + scale) + shift with a scale and a shift per clip, computed in fp32."""

    def __init__(self, config: MovieGenConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.per_clip = operations().PerClip()

    def construct(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Return (B, L, D) in the dtype of x (B, L, D); shift and scale (B, D) in fp32."""
        y = self.norm.scaled(x, self.norm.weight * (1.0 + scale))
        return (y + self.per_clip(shift, x.shape[1])).astype(x.dtype)


class TransformerBlock(nn.Cell):
    """x + gate SA(norm(x)), + CA(norm(x), text), + gate FFN(norm(x)).

    Shift, scale and gate of self-attention and feed-forward come from the time, plus a learned
    table of the layer's own (PixArt). Attention to text has neither: PixArt's does not normalise
    x, LLaMa's layers all do, and so does this one.

    Args:
        config: of the network.
        flash: use Ascend's flash attention.
        sequence: the ranks that each have a part of the tokens; None: all are here.
    """

    def __init__(
        self, config: MovieGenConfig, *, flash: bool, sequence: SequenceParallel | None = None
    ) -> None:
        super().__init__()
        self.modulation = Parameter(
            Tensor(np.zeros((6, config.dim), np.float32)), name="modulation"
        )
        self.self_norm = ModulatedNorm(config)
        self.self_attention = Attention(config, flash=flash, sequence=sequence)
        self.cross_norm = RMSNorm(config.dim, config.norm_eps)
        self.cross_attention = Attention(config, flash=flash)
        self.ffn_norm = ModulatedNorm(config)
        self.ffn = FeedForward(config.dim, config.ffn_dim)
        self.rope = config.rope
        self.per_clip = operations().PerClip()
        self.split = ops.Split(axis=1, output_num=6)

    def gated(self, gate: Tensor, y: Tensor) -> Tensor:
        """Return gate y for y (B, L, D) and one gate (B, D) per clip, computed in fp32."""
        return (y.astype(ms.float32) * self.per_clip(gate, y.shape[1])).astype(y.dtype)

    def construct(
        self,
        x: Tensor,
        time: Tensor,
        text: Tensor,
        text_mask: Tensor,
        grid: tuple[int, int, int],
    ) -> Tensor:
        """Return the tokens (B, L, D) after this layer.

        Args:
            x: tokens (B, L, D).
            time: modulation from the time, (B, 6 D) in fp32.
            text: text tokens (B, Lt, D).
            text_mask: what `AttentionMask` returns.
            grid: of the tokens (of all ranks): frames, height, width.
        """
        values = time + self.modulation.reshape(1, -1)
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.split(values)  # (B, D) each
        h = self.self_norm(x, shift_1, scale_1)
        x = x + self.gated(gate_1, self.self_attention(h, h, None, grid if self.rope else None))
        x = x + self.cross_attention(self.cross_norm(x), text, text_mask)
        h = self.ffn_norm(x, shift_2, scale_2)
        return x + self.gated(gate_2, self.ffn(h))
