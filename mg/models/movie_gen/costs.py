"""FLOPs and activation memory of a transformer, counted from its config; nothing is built.

Counted are the products of matrices, 2 FLOPs per multiply-add. Norms, gates, softmax and sums are
not: they are some numbers per token where a product has thousands.
"""

import dataclasses
from collections.abc import Sequence

from mg.models.movie_gen.config import MovieGenConfig
from mg.models.movie_gen.parameter_shapes import num_parameters

__all__ = [
    "ActivationBytes",
    "ForwardFlops",
    "activation_bytes",
    "block_parameters",
    "forward_flops",
]

FULL_BYTES, HALF_BYTES = 4, 2  # float32; float16 and bfloat16
# Ascend's flash attention keeps the maximum and the sum of each row, 8 times each, in float32.
FLASH_STATISTICS = 2 * 8


@dataclasses.dataclass(frozen=True)
class ForwardFlops:
    """FLOPs of one forward pass, by what they are for.

    Attributes:
        video_maps: linear maps of the video's tokens, feed-forward layers included.
        text_maps: linear maps of the text's tokens, keys and values of all layers included.
        time_maps: linear maps of the time's embedding.
        self_attention: the two products of queries, keys and values among the video's tokens.
        cross_attention: the same between the video's and the text's tokens.
    """

    video_maps: int
    text_maps: int
    time_maps: int
    self_attention: int
    cross_attention: int

    @property
    def total(self) -> int:
        return sum(dataclasses.astuple(self))

    @property
    def attention_share(self) -> float:
        """Part of all FLOPs that the products of attention, self and cross, take."""
        return (self.self_attention + self.cross_attention) / self.total


def forward_flops(
    config: MovieGenConfig,
    num_tokens: int,
    *,
    batch_size: int = 1,
    text_tokens: Sequence[int] | None = None,
) -> ForwardFlops:
    """Return the FLOPs of one forward pass; a training step takes three times as many.

    The backward pass has two products for each of the forward pass; with all layers recomputed, a
    step takes four times as many.

    Args:
        config: of the transformer.
        num_tokens: L, of one clip: frames x height x width of its token grid.
        batch_size: clips.
        text_tokens: of each text encoder, in order, padding included; None: the most it may have.

    Raises:
        ValueError: a number of tokens or clips below 1, or text that the config does not take.
    """
    text_tokens = _checked_text(config, num_tokens, batch_size, text_tokens)
    dim, layers, num_text = config.dim, config.num_layers, sum(text_tokens)
    # Query, key, value and output of self-attention; query and output of attention to text.
    per_token = layers * (6 * dim * dim + 3 * dim * config.ffn_dim)
    per_token += 2 * dim * config.patch_values  # into the first layer and out of the last
    if config.rope:  # a quarter turn of each head's queries and keys
        per_token += layers * 2 * dim * config.head_dim
    text = layers * 2 * num_text * dim * dim
    for encoder, length in zip(config.text_encoders, text_tokens, strict=True):
        text += length * encoder.width * dim
    time = (config.timestep_width + (1 + 6 + 2) * dim) * dim
    return ForwardFlops(
        video_maps=2 * batch_size * num_tokens * per_token,
        text_maps=2 * batch_size * text,
        time_maps=2 * batch_size * time,
        self_attention=2 * batch_size * layers * 2 * num_tokens * num_tokens * dim,
        cross_attention=2 * batch_size * layers * 2 * num_tokens * num_text * dim,
    )


@dataclasses.dataclass(frozen=True)
class ActivationBytes:
    """What the backward pass of a training step needs of the forward pass, in bytes.

    Attributes:
        layer: kept by one layer.
        layer_input: the part of it that recomputation keeps.
        outside: kept outside the layers.
        num_layers: of the transformer.
    """

    layer: int
    layer_input: int
    outside: int
    num_layers: int

    def peak(self, *, recompute: bool) -> int:
        """Return the most that there is at once, with the gradients of activations.

        Args:
            recompute: every layer keeps its input alone, and its insides are computed again when
                its turn comes: one layer at a time is whole.
        """
        layers = self.num_layers * (self.layer_input if recompute else self.layer)
        # Gradients in flight were half of a layer's activations on CPU; as much is assumed of all.
        in_flight = self.layer // 2
        return layers + self.outside + in_flight + (self.layer if recompute else 0)


def activation_bytes(
    config: MovieGenConfig,
    num_tokens: int,
    *,
    batch_size: int = 1,
    text_tokens: Sequence[int] | None = None,
    half: bool = True,
    flash: bool = True,
) -> ActivationBytes:
    """Return what the graph's gradient, taken operator by operator, keeps of a forward pass.

    The latents of the loss, some hundred numbers per token, are not in it.

    Args:
        config: of the transformer.
        num_tokens: L, of one clip; with sequence parallel, those of one device.
        batch_size: clips.
        text_tokens: of each text encoder, in order, padding included; None: the most it may have.
        half: float16 or bfloat16; norms, modulation and softmax are in float32 all the same.
        flash: flash attention, which keeps no (L, L) matrix; False: as on CPU, where values per
            clip are also repeated for each token.

    Raises:
        ValueError: as `forward_flops`.
    """
    text_tokens = _checked_text(config, num_tokens, batch_size, text_tokens)
    dim, num_text = config.dim, sum(text_tokens)
    bytes_each = HALF_BYTES if half else FULL_BYTES
    layer = num_tokens * _layer_bytes_per_token(
        config, num_tokens, num_text, half=half, flash=flash
    )
    layer += 2 * num_text * dim * bytes_each  # keys and values of the text
    # Positions for all layers, the last norm and its result, patches in and out.
    outside = num_tokens * (2 * dim * FULL_BYTES + 2 * dim * bytes_each)
    outside += num_tokens * 2 * config.patch_values * bytes_each
    outside += num_tokens * num_text * (1 if flash else config.num_heads * FULL_BYTES)  # mask
    widths = sum(n * e.width for n, e in zip(text_tokens, config.text_encoders, strict=True))
    outside += (widths + 3 * num_text * dim) * bytes_each
    return ActivationBytes(
        layer=batch_size * layer,
        layer_input=batch_size * num_tokens * dim * bytes_each,
        outside=batch_size * outside,
        num_layers=config.num_layers,
    )


def _layer_bytes_per_token(
    config: MovieGenConfig, num_tokens: int, num_text: int, *, half: bool, flash: bool
) -> int:
    """Return what a layer keeps for each token of the video."""
    dim, heads = config.dim, config.num_heads
    in_half = 3 * dim  # results of the three norms
    in_half += 4 * dim + 2 * dim  # query, key, value, result of self-attention; query, result
    in_half += 4 * config.ffn_dim  # gate, SiLU(gate), up, their product
    # For each norm x and x / rms(x); for each of the two gates what it multiplies.
    in_full = 3 * 2 * dim + 2 * dim
    if config.qk_norm:
        in_full += 2 * 2 * dim
    if flash:
        in_full += 2 * FLASH_STATISTICS * heads
    else:
        in_full += 2 * dim  # the gates, repeated
        weights = heads * (num_tokens + num_text)
        in_full += weights
        in_half += weights if half else 0  # cast for the product with the values
    return in_half * (HALF_BYTES if half else FULL_BYTES) + in_full * FULL_BYTES


def block_parameters(config: MovieGenConfig) -> int:
    """Return how many numbers the parameters of one layer hold."""
    larger = dataclasses.replace(config, num_layers=config.num_layers + 1)
    return num_parameters(larger) - num_parameters(config)


def _checked_text(
    config: MovieGenConfig,
    num_tokens: int,
    batch_size: int,
    text_tokens: Sequence[int] | None,
) -> tuple[int, ...]:
    """Return the tokens of each text encoder."""
    if num_tokens < 1 or batch_size < 1:
        raise ValueError(f"{batch_size} clips of {num_tokens} tokens; expected 1 or more of each")
    most = tuple(encoder.max_tokens for encoder in config.text_encoders)
    text_tokens = most if text_tokens is None else tuple(text_tokens)
    fits = len(text_tokens) == len(most)
    if not fits or any(not 1 <= n <= m for n, m in zip(text_tokens, most, strict=True)):
        raise ValueError(
            f"text_tokens={text_tokens}; expected a number for each of "
            f"{[encoder.name for encoder in config.text_encoders]}, from 1 to {most}"
        )
    return text_tokens
