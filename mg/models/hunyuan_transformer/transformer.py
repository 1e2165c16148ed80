"""HunyuanVideo's video transformer: the flow of a noisy latent, given a time and two texts.

Layouts
    latent   (B, C, T, H, W)
    tokens   (B, L, D)      patches of the latent, width fastest; text has its own, (B, L_t, D)
    heads    (B, L, H, d)   D = H d
It predicts noise - data, and its time is 1000 sigma, 1000 noise to 0 data: see
`mg.flow.parametrisation`.
Source: HunyuanVideo (arXiv 2412.03603) section 4.2; names as diffusers has them.
"""

from collections.abc import Mapping

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import constexpr

from mg.models.denoiser import Denoiser
from mg.models.hunyuan_transformer.config import HunyuanVideoConfig
from mg.models.hunyuan_transformer.embeddings import Conditions
from mg.models.hunyuan_transformer.text_refiner import NORM_EPS, TextRefiner
from mg.models.layers.devices import operations
from mg.models.layers.tokens import (
    AttentionMask,
    GeluFeedForward,
    LayerNorm,
    Linear,
    PatchLinear,
    RMSNorm,
    attend,
    gate_tokens,
    has_flash_attention,
    latent_of_patches,
    modulate,
    patches_of,
    rotate_pairs,
)
from mg.parallel.sequence import JointExchange, SequenceParallel

__all__ = ["HunyuanVideoTransformer"]

PUBLISHED_GUIDANCE = 6000.0  # 1000 times the weight that the published pipeline has by default


class HunyuanVideoTransformer(Denoiser):
    """The transformer; calling it gives the flow, noise - data.

    Args:
        config: the network's config, as a `HunyuanVideoConfig` or a mapping with its fields.
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

    family = "hunyuan"

    def __init__(
        self,
        config: Mapping | HunyuanVideoConfig,
        *,
        dtype: str = "float32",
        recompute_every: int = 0,
        sequence: SequenceParallel | None = None,
    ) -> None:
        config = HunyuanVideoConfig.from_mapping(config)
        super().__init__(config, dtype=dtype, recompute_every=recompute_every)
        self.flash = has_flash_attention(self.dtype)
        self.sequence = sequence
        self.tokens_per_rank = constexpr(config.tokens_per_rank)
        self.num_heads = config.num_attention_heads  # that attend here
        if sequence is not None:
            config.tokens_per_rank(0, sequence.size)
            self.num_heads //= sequence.size
        self.attention_mask = AttentionMask()
        self.patch = config.patch
        self.check_inputs = constexpr(config.check_inputs)
        self.rotations = constexpr(_rotations_of(config))
        self.has_guidance = config.guidance_embeds
        self.x_embedder = PatchEmbedding(config)
        self.has_condition = config.condition_channels > 0
        self.context_embedder = TextRefiner(config)
        self.time_text_embed = Conditions(config)
        self.transformer_blocks = nn.CellList(
            [
                DoubleBlock(config, flash=self.flash, sequence=sequence)
                for _ in range(config.num_layers)
            ]
        )
        self.single_transformer_blocks = nn.CellList(
            [
                SingleBlock(config, flash=self.flash, sequence=sequence)
                for _ in range(config.num_single_layers)
            ]
        )
        self.norm_out = NormOut(config)
        values = config.out_channels * config.patch_size_t * config.patch_size**2
        self.proj_out = Linear(config.dim, values)
        self.recompute_blocks([*self.transformer_blocks, *self.single_transformer_blocks])

    def construct(self, latent: Tensor, t: Tensor, *conditions: Tensor) -> Tensor:
        """Return noise - data (B, C, T, H, W) in fp32.

        Args:
            latent: noisy latent (B, C, T, H, W).
            t: time of each clip (B,), 0 (data) to 1000 (noise).
            conditions: text embedding (B, L, text_embed_dim) and mask (B, L); pooled embedding
                (B, 1, pooled_projection_dim) and mask (B, 1), which is not used; 1000 times the
                weight of guidance (B,), without which that of the published pipeline is taken.
                With more channels in than out, what lies beside the latent (B, C_c, T, H, W) is
                last.
        """
        shapes = ()
        for condition in conditions:
            shapes += (condition.shape,)
        grid = self.check_inputs(latent.shape, t.shape, *shapes)  # frames, height, width
        beside = None
        if self.has_condition:
            beside, conditions = conditions[-1].astype(self.dtype), conditions[:-1]
        text, mask, pooled = conditions[0].astype(self.dtype), conditions[1], conditions[2]
        guidance = conditions[4] if len(conditions) > 4 else t * 0 + PUBLISHED_GUIDANCE
        patches = patches_of(latent.astype(self.dtype), self.patch)  # (B, L, C pt p p)
        beside = None if beside is None else patches_of(beside, self.patch)
        logits = self.key_mask(mask, patches.shape[1])
        if self.sequence is not None:  # from here on L is this rank's part
            num_tokens = self.tokens_per_rank(patches.shape[1], self.sequence.size)
            patches = self.sequence.own(patches, num_tokens)
            beside = None if beside is None else self.sequence.own(beside, num_tokens)
        x = self.x_embedder(patches, beside)  # (B, L, D)
        text = self.context_embedder(text, t, mask)  # (B, L_t, D)
        time = self.time_text_embed(t, pooled, guidance)  # (B, D) fp32
        cos, sin = self.rotations(grid, text.shape[1])
        for number in range(len(self.transformer_blocks)):
            x, text = self.transformer_blocks[number](x, text, time, logits, cos, sin)
        num_tokens, num_text = x.shape[1], text.shape[1]
        x = ops.concat((x, text), axis=1)
        for number in range(len(self.single_transformer_blocks)):
            x = self.single_transformer_blocks[number](x, num_text, time, logits, cos, sin)
        y = self.proj_out(self.norm_out(x[:, :num_tokens], time))
        if self.sequence is not None:
            y = self.sequence.gather(y)
        return latent_of_patches(y, grid, self.patch).astype(ms.float32)

    def key_mask(self, mask: Tensor, num_tokens: int) -> Tensor:
        """Return what `attend` takes as mask: video counts, and the text that the mask has."""
        video = ops.ones((mask.shape[0], num_tokens), ms.float32)
        valid = ops.concat((video, mask.astype(ms.float32)), axis=1) > 0.5
        return self.attention_mask(valid, valid.shape[1], self.num_heads, self.flash)


def _rotations_of(config: HunyuanVideoConfig):
    """Return a function from a token grid and a length of text to cosine and sine of all angles."""

    def rotations(grid: tuple[int, int, int], num_text: int) -> tuple[Tensor, Tensor]:
        shape = (1, -1, 1, config.attention_head_dim)
        still = np.zeros((num_text, config.attention_head_dim))  # text is not turned
        angles = np.concatenate((_angles(config, grid), still))
        return tuple(
            Tensor(table.astype(np.float32).reshape(shape))
            for table in (np.cos(angles), np.sin(angles))
        )

    return rotations


def _angles(config: HunyuanVideoConfig, grid: tuple[int, int, int]) -> np.ndarray:
    """Return the angle of each number of a head at each token, (L, d); pairs have the same."""
    parts = []
    for axis, (count, width) in enumerate(zip(grid, config.rope_axes_dim, strict=True)):
        rates = config.rope_theta ** (-np.arange(0, width, 2) / width)
        angles = (np.arange(count)[:, None] * rates).repeat(2, axis=1)  # (count, width)
        shape = [1, 1, 1, width]
        shape[axis] = count
        parts.append(np.broadcast_to(angles.reshape(shape), (*grid, width)))
    return np.concatenate(parts, axis=-1).reshape(-1, config.attention_head_dim)


class PatchEmbedding(nn.Cell):
    """Patches of the latent as tokens."""

    def __init__(self, config: HunyuanVideoConfig) -> None:
        super().__init__()
        pt, p, _ = config.patch
        self.proj = PatchLinear(  # stored as the convolution that it is, with stride = kernel
            config.latent_channels * pt * p * p,
            config.condition_channels * pt * p * p,
            config.dim,
            weight_shape=(config.dim, config.in_channels, pt, p, p),
        )

    def construct(self, patches: Tensor, beside: Tensor | None = None) -> Tensor:
        """Return tokens (B, L, D) of the latent's patches, and of those of what lies beside it."""
        return self.proj(patches, beside)


class Modulation(nn.Cell):
    """Normalised tokens, scaled and shifted as the time says, and what else it says."""

    def __init__(self, config: HunyuanVideoConfig, *, num_values: int) -> None:
        super().__init__()
        self.num_values = num_values
        self.linear = Linear(config.dim, num_values * config.dim)
        self.norm = LayerNorm(config.dim, NORM_EPS, has_weights=False)

    def values(self, time: Tensor) -> tuple[Tensor, ...]:
        """Return `num_values` of (B, D): shift, scale, gate, and again for the second part."""
        return ops.chunk(self.linear(ops.silu(time)), self.num_values, axis=1)


class SharedAttention(nn.Cell):
    """Attention of all tokens with the same maps; positions turn those of the video."""

    def __init__(
        self, config: HunyuanVideoConfig, *, flash: bool, sequence: SequenceParallel | None
    ) -> None:
        super().__init__()
        dim, head = config.dim, config.attention_head_dim
        self.heads = config.num_attention_heads
        self.flash = flash
        self.exchange = None
        if sequence is not None:
            self.exchange = JointExchange(sequence, self.heads, text_first=False)
        self.norm_q, self.norm_k = RMSNorm(head, NORM_EPS), RMSNorm(head, NORM_EPS)
        self.to_q, self.to_k, self.to_v = Linear(dim, dim), Linear(dim, dim), Linear(dim, dim)

    def mix(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        num_text: int,
        logits: Tensor,
        cos: Tensor,
        sin: Tensor,
    ) -> Tensor:
        """Return what attention gives, (B, L, D), for queries, keys and values (B, L, H, d).

        Where ranks share the video's tokens, L are this rank's and those of the text, while
        logits, cos and sin are of all tokens.

        Args:
            query, key, value: of the video's tokens, then of the text's.
            num_text: tokens of the text.
            logits: what to add to logits, or what else `AttentionMask` returns.
            cos, sin: of the angles to turn by.
        """
        if self.exchange is not None:  # all tokens of a part of the heads, for the time being
            query, key, value = self.exchange.to_heads(query, key, value, num_text)
        query, key = rotate_pairs(query, cos, sin), rotate_pairs(key, cos, sin)
        mixed = attend(query, key, value, logits, flash=self.flash)
        return mixed if self.exchange is None else self.exchange.to_tokens(mixed, num_text)

    def construct(
        self, x: Tensor, num_text: int, logits: Tensor, cos: Tensor, sin: Tensor
    ) -> Tensor:
        batch, length, dim = x.shape
        shape = (batch, length, self.heads, dim // self.heads)
        query = self.norm_q(self.to_q(x).reshape(shape))
        key = self.norm_k(self.to_k(x).reshape(shape))
        value = self.to_v(x).reshape(shape)
        return self.mix(query, key, value, num_text, logits, cos, sin)


class JointAttention(SharedAttention):
    """Attention of video and text tokens, each with maps of their own, to all of them."""

    def __init__(
        self, config: HunyuanVideoConfig, *, flash: bool, sequence: SequenceParallel | None
    ) -> None:
        super().__init__(config, flash=flash, sequence=sequence)
        dim, head = config.dim, config.attention_head_dim
        self.add_k_proj, self.add_v_proj = Linear(dim, dim), Linear(dim, dim)
        self.add_q_proj = Linear(dim, dim)
        self.to_out = nn.CellList([Linear(dim, dim)])
        self.to_add_out = Linear(dim, dim)
        self.norm_added_q, self.norm_added_k = RMSNorm(head, NORM_EPS), RMSNorm(head, NORM_EPS)

    def construct(
        self, x: Tensor, text: Tensor, logits: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor]:
        batch, length, dim = x.shape
        shape = (batch, -1, self.heads, dim // self.heads)
        query, key = (
            self.norm_q(self.to_q(x).reshape(shape)),
            self.norm_k(self.to_k(x).reshape(shape)),
        )
        text_query = self.norm_added_q(self.add_q_proj(text).reshape(shape))
        text_key = self.norm_added_k(self.add_k_proj(text).reshape(shape))
        query = ops.concat((query, text_query), axis=1)
        key = ops.concat((key, text_key), axis=1)
        value = ops.concat((self.to_v(x), self.add_v_proj(text)), axis=1).reshape(shape)
        mixed = self.mix(query, key, value, text.shape[1], logits, cos, sin)
        return self.to_out[0](mixed[:, :length]), self.to_add_out(mixed[:, length:])


class DoubleBlock(nn.Cell):
    """Video and text attend to each other; all else they have apart."""

    def __init__(
        self, config: HunyuanVideoConfig, *, flash: bool, sequence: SequenceParallel | None
    ) -> None:
        super().__init__()
        self.norm1 = Modulation(config, num_values=6)
        self.norm1_context = Modulation(config, num_values=6)
        self.attn = JointAttention(config, flash=flash, sequence=sequence)
        self.norm2 = LayerNorm(config.dim, NORM_EPS, has_weights=False)
        self.ff = GeluFeedForward(config.dim, config.mlp_dim)
        self.norm2_context = LayerNorm(config.dim, NORM_EPS, has_weights=False)
        self.ff_context = GeluFeedForward(config.dim, config.mlp_dim)

    def construct(
        self, x: Tensor, text: Tensor, time: Tensor, logits: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor]:
        shift, scale, gate, ff_shift, ff_scale, ff_gate = self.norm1.values(time)
        t_shift, t_scale, t_gate, t_ff_shift, t_ff_scale, t_ff_gate = self.norm1_context.values(
            time
        )
        y, text_y = self.attn(
            modulate(self.norm1.norm(x), shift, scale),
            modulate(self.norm1_context.norm(text), t_shift, t_scale),
            logits,
            cos,
            sin,
        )
        x = x + gate_tokens(y, gate)
        text = text + gate_tokens(text_y, t_gate)
        y = self.ff(modulate(self.norm2(x), ff_shift, ff_scale))
        text_y = self.ff_context(modulate(self.norm2_context(text), t_ff_shift, t_ff_scale))
        return x + gate_tokens(y, ff_gate), text + gate_tokens(text_y, t_ff_gate)


class SingleBlock(nn.Cell):
    """x + gate W [attention(norm(x)), gelu(W' norm(x))] of all tokens alike."""

    def __init__(
        self, config: HunyuanVideoConfig, *, flash: bool, sequence: SequenceParallel | None
    ) -> None:
        super().__init__()
        self.attn = SharedAttention(config, flash=flash, sequence=sequence)
        self.norm = Modulation(config, num_values=3)
        self.proj_mlp = Linear(config.dim, config.mlp_dim)
        self.gelu = operations().GeLU()
        self.proj_out = Linear(config.dim + config.mlp_dim, config.dim)

    def construct(
        self, x: Tensor, num_text: int, time: Tensor, logits: Tensor, cos: Tensor, sin: Tensor
    ) -> Tensor:
        """Return the tokens (B, L, D) after this layer; the last `num_text` are the text's."""
        shift, scale, gate = self.norm.values(time)
        y = modulate(self.norm.norm(x), shift, scale)
        mlp = self.gelu(self.proj_mlp(y))
        mixed = self.attn(y, num_text, logits, cos, sin)
        return x + gate_tokens(self.proj_out(ops.concat((mixed, mlp), axis=2)), gate)


class NormOut(nn.Cell):
    """The last norm; scale and shift, in this order, follow the time."""

    def __init__(self, config: HunyuanVideoConfig) -> None:
        super().__init__()
        self.linear = Linear(config.dim, 2 * config.dim)
        self.norm = LayerNorm(config.dim, NORM_EPS, has_weights=False)

    def construct(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = ops.chunk(self.linear(ops.silu(time)), 2, axis=1)
        return modulate(self.norm(x), shift, scale)
