"""CogVideoX's video transformer: what a network of 2b, 5b or 1.5 makes of a noisy latent.

Layouts
    latent   (B, C, T, H, W)   the official border has (B, T, C, H, W); here as everywhere else
    tokens   (B, L, D)         of the patches of the latent, width fastest, or of the text
    heads    (B, L, H, d)      D = H d
It predicts v, and its time is a step from 0 (data) to 999 (noise): see `mg.flow.parametrisation`.
Source: CogVideoX (arXiv 2408.06072) section 2.3; names as diffusers has them.
"""

from collections.abc import Mapping

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import constexpr

from mg.models.cogvideox_transformer.config import CogVideoXConfig
from mg.models.cogvideox_transformer.positions import position_waves, rotations
from mg.models.denoiser import Denoiser
from mg.models.layers.tokens import (
    GeluFeedForward,
    LayerNorm,
    Linear,
    PatchLinear,
    attend,
    gate_tokens,
    has_flash_attention,
    latent_of_patches,
    modulate,
    patches_of,
    rotate_pairs,
    time_waves,
)
from mg.parallel.sequence import JointExchange, SequenceParallel

__all__ = ["CogVideoXTransformer"]

QK_NORM_EPS = 1e-6
PUBLISHED_OFFSET = 2.0  # of CogVideoX 1.5, image to video


class CogVideoXTransformer(Denoiser):
    """The transformer; calling it gives v.

    Args:
        config: the network's config, as a `CogVideoXConfig` or a mapping with its fields.
        dtype: precision of the computation, "float32", "float16" or "bfloat16"; parameters, norms
            and softmax are float32 in any case.
        recompute_every: in training, compute the insides of every n-th block again in the backward
            pass instead of keeping them: less memory, more time. 1 is all blocks, 0 is none.
        sequence: the ranks that share the video's tokens, and each have all of the text's; None:
            all are computed here. Input and output are whole, and the same, on each of these ranks.

    Raises:
        ValueError: a config that no network can be built from, a precision that the device lacks,
            heads that the ranks cannot share equally.
    """

    family = "cogvideox"

    def __init__(
        self,
        config: Mapping | CogVideoXConfig,
        *,
        dtype: str = "float32",
        recompute_every: int = 0,
        sequence: SequenceParallel | None = None,
    ) -> None:
        config = CogVideoXConfig.from_mapping(config)
        super().__init__(config, dtype=dtype, recompute_every=recompute_every)
        self.sequence = sequence
        self.tokens_per_rank = constexpr(config.tokens_per_rank)
        if sequence is not None:
            config.tokens_per_rank(0, sequence.size)
        self.check_inputs = constexpr(config.check_inputs)
        self.positions = constexpr(_positions_of(config))
        self.patch_embed = PatchEmbedding(config)
        self.has_condition = config.condition_channels > 0
        self.time_embedding = TimeEmbedding(config.dim, config.time_embed_dim)
        self.has_offset = config.ofs_embed_dim is not None
        if self.has_offset:
            self.ofs_embedding = TimeEmbedding(config.ofs_embed_dim, config.ofs_embed_dim)
        self.time_width, self.ofs_width = config.dim, config.ofs_embed_dim
        self.is_rotary = config.use_rotary_positional_embeddings
        flash = has_flash_attention(self.dtype)
        self.transformer_blocks = nn.CellList(
            [Block(config, flash=flash, sequence=sequence) for _ in range(config.num_layers)]
        )
        self.norm_final = LayerNorm(config.dim, config.norm_eps)
        self.norm_out = NormOut(config)
        patch_t, patch, _ = config.patch
        self.proj_out = Linear(config.dim, config.out_channels * patch_t * patch**2)
        self.patch = config.patch
        self.recompute_blocks(self.transformer_blocks)

    def construct(self, latent: Tensor, t: Tensor, *conditions: Tensor) -> Tensor:
        """Return v (B, C, T, H, W) in fp32.

        Args:
            latent: noisy latent (B, C, T, H, W).
            t: step of each clip (B,), 0 (data) to 999 (noise).
            conditions: text embedding (B, L, text_embed_dim), and its mask, which this network
                does not use: it attends to the padding too. With `ofs_embed_dim` the offset (B,)
                may follow; without it that of the published pipeline from images is taken. With
                more channels in than out, what lies beside the latent (B, C_c, T, H, W) is last.
        """
        shapes = ()
        for condition in conditions:
            shapes += (condition.shape,)
        grid = self.check_inputs(latent.shape, t.shape, *shapes)
        text, beside = conditions[0], None
        if self.has_condition:
            beside, conditions = conditions[-1].astype(self.dtype), conditions[:-1]
        patches = patches_of(latent.astype(self.dtype), self.patch)  # (B, L, C pt p p)
        beside = None if beside is None else patches_of(beside, self.patch)
        waves, cos, sin = self.positions(grid, text.shape[1])
        if self.sequence is not None:  # from here on L is this rank's part
            num_tokens = self.tokens_per_rank(patches.shape[1], self.sequence.size)
            patches = self.sequence.own(patches, num_tokens)
            beside = None if beside is None else self.sequence.own(beside, num_tokens)
            waves = waves if self.is_rotary else self.sequence.own(waves, num_tokens)
        x, text = self.patch_embed(patches, text.astype(self.dtype), beside)
        if not self.is_rotary:
            x = x + waves.astype(self.dtype)
        time = self.time_embedding(time_waves(t, self.time_width))  # (B, time_embed_dim) fp32
        if self.has_offset:
            offset = conditions[2] if len(conditions) > 2 else t * 0 + PUBLISHED_OFFSET
            time = time + self.ofs_embedding(time_waves(offset, self.ofs_width))
        for number in range(len(self.transformer_blocks)):
            x, text = self.transformer_blocks[number](x, text, time, cos, sin)
        y = self.proj_out(self.norm_out(self.norm_final(x), time))
        if self.sequence is not None:
            y = self.sequence.gather(y)
        return latent_of_patches(y, grid, self.patch).astype(ms.float32)


def _positions_of(config: CogVideoXConfig):
    """Return a function from a token grid and a length of text to the constants of positions."""

    def positions(grid: tuple[int, int, int], num_text: int) -> tuple[Tensor, Tensor, Tensor]:
        if not config.use_rotary_positional_embeddings:
            none = Tensor(np.zeros((1, 1), np.float32))
            return Tensor(position_waves(config, grid)[None]), none, none
        cos, sin = rotations(config, grid)
        # Text is not turned.
        still = np.zeros((num_text, config.attention_head_dim), np.float32)
        cos, sin = np.concatenate((still + 1, cos)), np.concatenate((still, sin))
        shape = (1, -1, 1, config.attention_head_dim)
        return Tensor(np.zeros((1, 1, 1), np.float32)), *(
            Tensor(table.reshape(shape)) for table in (cos, sin)
        )

    return positions


class PatchEmbedding(nn.Cell):
    """Text and patches of the latent as tokens of one width."""

    def __init__(self, config: CogVideoXConfig) -> None:
        super().__init__()
        pt, p, _ = config.patch
        is_convolution = config.patch_size_t is None  # with stride = kernel, and stored as one
        self.proj = PatchLinear(
            config.latent_channels * pt * p * p,
            config.condition_channels * pt * p * p,
            config.dim,
            has_bias=not is_convolution or config.patch_bias,  # 1.5 has one whatever it says
            weight_shape=(config.dim, config.in_channels, p, p) if is_convolution else None,
        )
        self.text_proj = Linear(config.text_embed_dim, config.dim)

    def construct(
        self, patches: Tensor, text: Tensor, beside: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the tokens of the patches (B, L, D) and of the text (B, L_text, D)."""
        return self.proj(patches, beside), self.text_proj(text)


class TimeEmbedding(nn.Cell):
    """W_2 SiLU(W_1 waves), (B, width) in fp32."""

    def __init__(self, waves: int, width: int) -> None:
        super().__init__()
        self.linear_1 = Linear(waves, width)
        self.linear_2 = Linear(width, width)

    def construct(self, waves: Tensor) -> Tensor:
        return self.linear_2(ops.silu(self.linear_1(waves)))


class ModulatedNorm(nn.Cell):
    """LayerNorm whose scale and shift, and a gate, follow the time, apart for text and video."""

    def __init__(self, config: CogVideoXConfig) -> None:
        super().__init__()
        self.linear = Linear(config.time_embed_dim, 6 * config.dim)
        self.norm = LayerNorm(config.dim, config.norm_eps)

    def construct(
        self, x: Tensor, text: Tensor, time: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the tokens of video and text (B, L, D), and the gates of both (B, D)."""
        values = self.linear(ops.silu(time))  # (B, 6 D)
        shift, scale, gate, text_shift, text_scale, text_gate = ops.chunk(values, 6, axis=1)
        x = modulate(self.norm(x), shift, scale)
        text = modulate(self.norm(text), text_shift, text_scale)
        return x, text, gate, text_gate


class JointAttention(nn.Cell):
    """Attention of all tokens, video and text, to all; positions turn those of the video."""

    def __init__(
        self, config: CogVideoXConfig, *, flash: bool, sequence: SequenceParallel | None
    ) -> None:
        super().__init__()
        dim = config.dim
        self.heads = config.num_attention_heads
        self.flash = flash
        self.exchange = None
        if sequence is not None:
            self.exchange = JointExchange(sequence, self.heads, text_first=True)
        self.is_rotary = config.use_rotary_positional_embeddings
        self.norm_q = LayerNorm(config.attention_head_dim, QK_NORM_EPS)
        self.norm_k = LayerNorm(config.attention_head_dim, QK_NORM_EPS)
        self.to_q, self.to_k, self.to_v = Linear(dim, dim), Linear(dim, dim), Linear(dim, dim)
        self.to_out = nn.CellList([Linear(dim, dim)])

    def construct(self, x: Tensor, text: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the tokens of video and of text take in, (B, L, D) each."""
        num_text = text.shape[1]
        x = ops.concat((text, x), axis=1)
        batch, length, dim = x.shape
        shape = (batch, length, self.heads, dim // self.heads)
        query = self.norm_q(self.to_q(x).reshape(shape))
        key = self.norm_k(self.to_k(x).reshape(shape))
        value = self.to_v(x).reshape(shape)
        if self.exchange is not None:  # all tokens of a part of the heads, for the time being
            query, key, value = self.exchange.to_heads(query, key, value, num_text)
        if self.is_rotary:
            query, key = rotate_pairs(query, cos, sin), rotate_pairs(key, cos, sin)
        mixed = attend(query, key, value, flash=self.flash)
        if self.exchange is not None:
            mixed = self.exchange.to_tokens(mixed, num_text)
        y = self.to_out[0](mixed)
        return y[:, num_text:], y[:, :num_text]


class Block(nn.Cell):
    """x + gate attention(norm(x)), then x + gate feed_forward(norm(x)); for the text alike."""

    def __init__(
        self, config: CogVideoXConfig, *, flash: bool, sequence: SequenceParallel | None
    ) -> None:
        super().__init__()
        self.norm1 = ModulatedNorm(config)
        self.attn1 = JointAttention(config, flash=flash, sequence=sequence)
        self.norm2 = ModulatedNorm(config)
        self.ff = GeluFeedForward(config.dim, 4 * config.dim)

    def construct(
        self, x: Tensor, text: Tensor, time: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the tokens of video and text (B, L, D) after this layer."""
        y, text_y, gate, text_gate = self.norm1(x, text, time)
        y, text_y = self.attn1(y, text_y, cos, sin)
        x, text = x + gate_tokens(y, gate), text + gate_tokens(text_y, text_gate)
        y, text_y, gate, text_gate = self.norm2(x, text, time)
        x = x + gate_tokens(self.ff(y), gate)
        return x, text + gate_tokens(self.ff(text_y), text_gate)


class NormOut(nn.Cell):
    """The last norm, whose shift and scale follow the time."""

    def __init__(self, config: CogVideoXConfig) -> None:
        super().__init__()
        self.linear = Linear(config.time_embed_dim, 2 * config.dim)
        self.norm = LayerNorm(config.dim, config.norm_eps)

    def construct(self, x: Tensor, time: Tensor) -> Tensor:
        shift, scale = ops.chunk(self.linear(ops.silu(time)), 2, axis=1)
        return modulate(self.norm(x), shift, scale)
