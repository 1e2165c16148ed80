"""Movie Gen's video transformer: the velocity of a noisy latent, given the time and text.

Layouts
    latent   (B, C, T, H, W)   C = 16 channels of the TAE
    tokens   (B, L, D)         a token is a patch of 1 x 2 x 2 latent pixels
    text     (B, L, D_e)       embedding of a text encoder, with a mask (B, L)
Source: Movie Gen (arXiv 2410.13720) sections 3.1.3 and 3.1.4.
"""

from collections.abc import Mapping

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.ops import constexpr

from mg.models.denoiser import Denoiser
from mg.models.layers.devices import operations
from mg.models.layers.tokens import (
    AttentionMask,
    Linear,
    has_flash_attention,
    latent_of_patches,
    patches_of,
)
from mg.models.movie_gen.block import ModulatedNorm, TransformerBlock
from mg.models.movie_gen.conditions import TextInputs, TimeEmbedding
from mg.models.movie_gen.config import MovieGenConfig
from mg.models.movie_gen.positions import PositionTables
from mg.parallel.sequence import SequenceParallel

__all__ = ["MovieGenTransformer"]


class MovieGenTransformer(Denoiser):
    """The transformer; calling it gives the velocity.

    A new network predicts zero, and each of its layers starts without self-attention and
    feed-forward: the last linear map and the modulation start at zero.

    Args:
        config: of the network, as a `MovieGenConfig` or a mapping with its fields.
        dtype: precision of the computation, "float32", "float16" or "bfloat16"; parameters, norms,
            modulation and softmax are float32 in any case.
        recompute_every: in training, compute the insides of every n-th layer again in the backward
            pass instead of keeping them: less memory, more time. 1 is all layers, 0 is none.
        sequence: the ranks that share the tokens of each input; None: all are computed here. Input
            and output are whole, and the same, on each of these ranks.

    Raises:
        ValueError: a config that no network can be built from, a precision that the device lacks,
            heads that the ranks cannot share equally.
    """

    family = "movie_gen"

    def __init__(
        self,
        config: Mapping | MovieGenConfig,
        *,
        dtype: str = "float32",
        recompute_every: int = 0,
        sequence: SequenceParallel | None = None,
    ) -> None:
        config = MovieGenConfig.from_mapping(config)
        super().__init__(config, dtype=dtype, recompute_every=recompute_every)
        self.flash = has_flash_attention(self.dtype)
        self.num_heads = config.num_heads
        self.attention_mask = AttentionMask()
        self.patch_size = config.patch_size
        self.sequence = sequence
        self.tokens_per_rank = constexpr(config.tokens_per_rank)
        if sequence is not None:
            config.tokens_per_rank(0, sequence.size)
        # In here, not only in `__call__`: a graph around the network compiles `construct` alone.
        self.check_inputs = constexpr(config.check_inputs)
        self.patch_embedding = Linear(config.patch_values, config.dim, has_bias=False)
        self.has_condition = config.condition_channels > 0
        if self.has_condition:
            # The columns of the patch embedding for more channels (Movie Gen 5.1.1), as a map of
            # their own: zero at first, so that nothing changes before training, to the last bit.
            self.condition_embedding = Linear(
                config.condition_values, config.dim, has_bias=False, starts_at_zero=True
            )
        self.positions = PositionTables(config.position_table, config.dim)
        self.per_token = operations().PerToken()
        self.text_inputs = TextInputs(config)
        self.time_embedding = TimeEmbedding(config)
        self.time_modulation = Linear(
            config.dim, 6 * config.dim, has_bias=False, starts_at_zero=True
        )
        self.blocks = nn.CellList(
            [
                TransformerBlock(config, flash=self.flash, sequence=sequence)
                for _ in range(config.num_layers)
            ]
        )
        self.final_modulation = Linear(
            config.dim, 2 * config.dim, has_bias=False, starts_at_zero=True
        )
        self.final_norm = ModulatedNorm(config)
        self.final_linear = Linear(
            config.dim, config.patch_values, has_bias=False, starts_at_zero=True
        )
        self.split = ops.Split(axis=1, output_num=2)
        self.recompute_blocks(self.blocks)

    def construct(self, latent: Tensor, t: Tensor, *conditions: Tensor) -> Tensor:
        """Return the velocity (B, C, T, H, W) in fp32.

        Args:
            latent: noisy latent (B, C, T, H, W).
            t: time of each clip (B,), 0 (noise) to 1 (data).
            conditions: for each of `config.text_encoders`, in order, an embedding (B, L, width)
                and a mask (B, L) bool, true where a token counts; then, with
                `config.condition_channels`, what lies beside the latent, (B, C_c, T, H, W).
        """
        shapes = ()
        for tensor in conditions:
            shapes += (tensor.shape,)
        grid = self.check_inputs(latent.shape, t.shape, *shapes)  # frames, height, width
        text = conditions[:-1] if self.has_condition else conditions
        x = patches_of(latent.astype(self.dtype), self.patch_size)  # (B, L, C pt ph pw)
        positions = self.positions(grid)  # (1, L, D)
        if self.sequence is not None:  # from here on L is this rank's part
            num_tokens = self.tokens_per_rank(x.shape[1], self.sequence.size)
            x = self.sequence.own(x, num_tokens)
            positions = self.sequence.own(positions, num_tokens)
        x = self.patch_embedding(x)  # (B, L, D)
        if self.has_condition:
            beside = patches_of(conditions[-1].astype(self.dtype), self.patch_size)
            if self.sequence is not None:
                beside = self.sequence.own(beside, num_tokens)
            x = x + self.condition_embedding(beside)
        positions = self.per_token(positions, x.shape[0]).astype(self.dtype)
        text_tokens, valid = self.text_inputs(self.dtype, *text)
        mask = self.attention_mask(valid, x.shape[1], self.num_heads, self.flash)
        time = self.time_embedding(t)  # (B, D)
        modulation = self.time_modulation(time)  # (B, 6 D)
        for number in range(len(self.blocks)):
            # Movie Gen section 3.1.3: positions are added at every layer.
            x = self.blocks[number](x + positions, modulation, text_tokens, mask, grid)
        shift, scale = self.split(self.final_modulation(time))  # (B, D) each
        y = self.final_linear(self.final_norm(x, shift, scale))  # (B, L, C pt ph pw)
        if self.sequence is not None:
            y = self.sequence.gather(y)
        return latent_of_patches(y, grid, self.patch_size).astype(ms.float32)
