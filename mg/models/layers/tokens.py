"""Layers of transformers: linear maps, norms and attention over tokens.

Layouts
    tokens   (B, L, D)      D is the width
    heads    (B, L, H, d)   D = H d
Each cell computes in the dtype of its input and casts its fp32 weights to it; normalisation and
softmax are always fp32. Parameters are named `weight` and `bias`, as checkpoints have them.
"""

import math

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Uniform, Zero, initializer
from mindspore.ops import constexpr

from mg.device import device_in_use
from mg.models.layers.devices import operations

__all__ = [
    "MASKED_LOGIT",
    "AttentionMask",
    "GeluFeedForward",
    "LayerNorm",
    "Linear",
    "PatchLinear",
    "RMSNorm",
    "attend",
    "gate_tokens",
    "has_flash_attention",
    "latent_of_patches",
    "modulate",
    "patches_of",
    "rotate_pairs",
    "time_waves",
]

LONGEST_PERIOD = 10000.0
# Far below every logit, so that exp() of it is exactly 0 in fp32.
MASKED_LOGIT = -1e9


def has_flash_attention(dtype: ms.Type) -> bool:
    """Return whether Ascend's flash attention is to be used: it takes half precision alone."""
    return device_in_use() == "Ascend" and dtype != ms.float32


class Linear(nn.Cell):
    """y = x W^T + b over the last axis.

    Args:
        in_width, out_width: numbers per token.
        has_bias: whether there is a b.
        weight_shape: in which a checkpoint stores W, such as that of a convolution whose patches
            do not overlap; None is (out_width, in_width).
        starts_at_zero: whether W does.
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        has_bias: bool = True,
        weight_shape: tuple[int, ...] | None = None,
        starts_at_zero: bool = False,
    ) -> None:
        super().__init__()
        start = Zero() if starts_at_zero else Uniform(math.sqrt(3.0 / in_width))
        shape = weight_shape or (out_width, in_width)
        self.shape = (out_width, in_width)
        self.weight = Parameter(initializer(start, shape), name="weight")
        self.bias = (
            Parameter(Tensor(np.zeros(out_width, np.float32)), name="bias") if has_bias else None
        )
        # The primitives: the gradient of `ops.matmul` copies its operands to transpose them, and
        # BiasAdd needs no workspace of the size of its result.
        self.matmul = ops.MatMul(transpose_b=True)
        self.bias_add = ops.BiasAdd()
        self.gathered_product = None  # set where ranks share the rows of the weight (mg.parallel)
        self.lora_A = None  # set, with lora_B and lora_scale, by `mg.models.lora.add_lora`

    def construct(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if self.gathered_product is None:
            y = self.matmul(rows, self.weight.reshape(self.shape).astype(x.dtype))
        else:
            y = self.gathered_product(rows, self.weight)
        if self.bias is not None:
            y = self.bias_add(y, self.bias.astype(x.dtype))
        if self.lora_A is not None:
            y = y + self.lora_scale * self.lora_B(self.lora_A(rows))
        return y.reshape((*x.shape[:-1], self.shape[0]))


class PatchLinear(Linear):
    """The linear map of a latent's patches, and of those of a condition beside the latent.

    The first columns of its weight are for the latent; the two products are added. So a condition
    whose columns are zero changes nothing, to the last bit.

    Args:
        latent_width, condition_width: numbers per token; the second may be 0.
        out_width, has_bias, weight_shape: as of `Linear`.
    """

    def __init__(
        self,
        latent_width: int,
        condition_width: int,
        out_width: int,
        *,
        has_bias: bool = True,
        weight_shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(
            latent_width + condition_width,
            out_width,
            has_bias=has_bias,
            weight_shape=weight_shape,
        )
        self.latent_width, self.condition_width = latent_width, condition_width

    def construct(self, x: Tensor, beside: Tensor | None = None) -> Tensor:
        """Return tokens (B, L, D) of patches (B, L, latent_width) and (B, L, condition_width)."""
        if self.condition_width == 0:
            return super().construct(x)
        weight = self.weight.reshape(self.shape).astype(x.dtype)
        y = self.matmul(x.reshape(-1, self.latent_width), weight[:, : self.latent_width])
        if self.bias is not None:
            y = self.bias_add(y, self.bias.astype(x.dtype))
        rows = beside.reshape(-1, self.condition_width)
        y = y + self.matmul(rows, weight[:, self.latent_width :])
        return y.reshape((*x.shape[:-1], self.shape[0]))


class LayerNorm(nn.Cell):
    """Layer normalisation over the last axis, computed in fp32.

    Args:
        width: length of that axis.
        eps: added to the variance.
        has_weights: whether it scales and shifts what it has normalised.
    """

    def __init__(self, width: int, eps: float, *, has_weights: bool = True) -> None:
        super().__init__()
        ones, zeros = (Tensor(np.full(width, value, np.float32)) for value in (1, 0))
        self.weight = Parameter(ones, name="weight") if has_weights else ones
        self.bias = Parameter(zeros, name="bias") if has_weights else zeros
        self.norm = ops.LayerNorm(begin_norm_axis=-1, begin_params_axis=-1, epsilon=eps)

    def construct(self, x: Tensor) -> Tensor:
        # As rows: on CPU over more axes it takes several times longer.
        rows = x.reshape(-1, x.shape[-1]).astype(ms.float32)
        return self.norm(rows, self.weight, self.bias)[0].reshape(x.shape).astype(x.dtype)


class RMSNorm(nn.Cell):
    """x weight / sqrt(mean(x^2) + eps) over the last axis, computed in fp32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = Parameter(Tensor(np.ones(width, np.float32)), name="weight")
        self.scale_by_rms = operations().ScaleByRMS(eps)

    def construct(self, x: Tensor) -> Tensor:
        """Return the norm of x, of any shape, with the learned weight, in the dtype of x."""
        rows = x.reshape(1, -1, x.shape[-1])
        return self.scaled(rows, self.weight.reshape(1, -1)).reshape(x.shape).astype(x.dtype)

    def scaled(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the norm of x (B, L, D) in fp32 with a weight (B, D) per clip, not its own."""
        weight = weight.reshape(x.shape[0], 1, x.shape[2])
        return self.scale_by_rms(x.astype(ms.float32), weight)


class GeluFeedForward(nn.Cell):
    """W_2 gelu(W_1 x), with gelu by its tanh formula; named `net.0.proj` and `net.2`."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.net = nn.CellList([_GeluMap(width, inner), nn.Identity(), Linear(inner, width)])

    def construct(self, x: Tensor) -> Tensor:
        return self.net[2](self.net[0](x))


class _GeluMap(nn.Cell):
    """gelu(W x + b)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = Linear(width, inner)
        self.gelu = operations().GeLU()

    def construct(self, x: Tensor) -> Tensor:
        return self.gelu(self.proj(x))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return x (1 + scale) + shift for tokens (B, L, D) and values per clip (B, D)."""
    batch, _, width = x.shape
    shape = (batch, 1, width)
    return x * (1.0 + scale).reshape(shape).astype(x.dtype) + shift.reshape(shape).astype(x.dtype)


def gate_tokens(x: Tensor, gate: Tensor) -> Tensor:
    """Return gate x for tokens (B, L, D) and values per clip (B, D)."""
    return x * gate.reshape(x.shape[0], 1, x.shape[2]).astype(x.dtype)


def patches_of(latent: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """Return a latent (B, C, T, H, W) as tokens (B, L, C pt ph pw), width fastest.

    Args:
        latent: of sizes that the patch divides.
        patch: pt, ph, pw: frames, rows and columns of the latent in one token.
    """
    batch, channels, frames, height, width = latent.shape
    pt, ph, pw = patch
    x = latent.reshape(batch, channels, frames // pt, pt, height // ph, ph, width // pw, pw)
    x = x.transpose(0, 2, 4, 6, 1, 3, 5, 7)
    return x.reshape(batch, -1, channels * pt * ph * pw)


def latent_of_patches(
    tokens: Tensor, grid: tuple[int, int, int], patch: tuple[int, int, int]
) -> Tensor:
    """Return tokens (B, L, C pt ph pw) as a latent (B, C, T, H, W); undoes `patches_of`.

    Args:
        tokens: of all patches.
        grid: how many there are along frames, height and width.
        patch: pt, ph, pw.
    """
    frames, height, width = grid
    pt, ph, pw = patch
    batch = tokens.shape[0]
    x = tokens.reshape(batch, frames, height, width, -1, pt, ph, pw)
    x = x.transpose(0, 4, 1, 5, 2, 6, 3, 7)
    return x.reshape(batch, -1, frames * pt, height * ph, width * pw)


def time_waves(t: Tensor, width: int) -> Tensor:
    """Return cosine and sine of times (B,) at width / 2 rates, (B, width) in fp32."""
    half = width // 2
    rates = LONGEST_PERIOD ** (-np.arange(half) / half)
    angles = t.astype(ms.float32).reshape(-1, 1) * Tensor(rates.reshape(1, -1).astype(np.float32))
    return ops.concat((ops.cos(angles), ops.sin(angles)), axis=1)


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return heads (B, L, H, d) with each pair of neighbouring numbers turned by an angle.

    Args:
        x: queries or keys.
        cos, sin: of the angles, (1, L, 1, d), the two numbers of a pair alike.
    """
    batch, length, heads, width = x.shape
    # (a, b) -> (-b, a), as a product: slices of pairs have a slow gradient on CPU.
    quarter_turn = _quarter_turn(width).astype(x.dtype)
    turned = ops.MatMul()(x.reshape(-1, quarter_turn.shape[0]), quarter_turn)
    turned = turned.reshape(batch, length, heads, width)
    return x * cos.astype(x.dtype) + turned * sin.astype(x.dtype)


@constexpr
def _quarter_turn(width: int) -> Tensor:
    """Return the matrix that turns rows of pairs, of as many pairs as are quickest and fit."""
    num_pairs = math.gcd(width, 16) // 2
    turn = np.kron(np.eye(num_pairs), np.array([[0, 1], [-1, 0]]))
    return Tensor(turn.astype(np.float32))


class AttentionMask(nn.Cell):
    """Which keys count, in the form that `attend` takes; to be made once for all layers."""

    def __init__(self) -> None:
        super().__init__()
        self.per_clip = operations().PerClip()

    def construct(self, valid: Tensor, num_queries: int, num_heads: int, flash: bool) -> Tensor:
        """Return the mask.

        Args:
            valid: (B, Lk) bool, which keys count; at least one of each clip must.
            num_queries: Lq.
            num_heads: H.
            flash: whether it is for flash attention.
        """
        batch, num_keys = valid.shape
        if flash:  # (B, 1, Lq, Lk), true where a key is left out
            left_out = ops.logical_not(valid).reshape(batch, 1, 1, num_keys)
            return ops.broadcast_to(left_out, (batch, 1, num_queries, num_keys))
        logits = (1.0 - valid.astype(ms.float32)) * MASKED_LOGIT
        # On CPU in full: adding with broadcasting in every layer takes three times longer there.
        rows = self.per_clip(logits, num_heads * num_queries)
        if rows.shape[1] == 1:
            return rows.reshape(batch, 1, 1, num_keys)
        return rows.reshape(batch, num_heads, num_queries, num_keys)


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *, flash: bool = False
) -> Tensor:
    """Return softmax(q k^T / sqrt(d) + mask) v, (B, Lq, D), with the softmax in fp32.

    Args:
        query: (B, Lq, H, d).
        key, value: (B, Lk, H, d).
        mask: what `AttentionMask` returns, or other logits to add, (B, H, Lq, Lk); None for all
            keys.
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
    mixed = ops.BatchMatMul()(weights.astype(value.dtype), value)  # (B, H, Lq, d)
    return mixed.transpose(0, 2, 1, 3).reshape(batch, num_queries, heads * width)
