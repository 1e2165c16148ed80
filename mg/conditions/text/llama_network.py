"""Llama as a text encoder: the hidden states behind some of its layers.

    x_0 = E[ids]
    y   = x + W_o attention(W_q n, W_k n, W_v n),    n = norm(x)
    x'  = y + W_down (silu(W_gate m) W_up m),        m = norm(y)

with norm(x) = w x / sqrt(mean(x^2) + eps) (arXiv 1910.07467), SwiGLU (arXiv 2002.05202), rotary
positions on queries and keys (arXiv 2104.09864, number i of a head turned with number i + d/2),
keys and values that groups of heads share (arXiv 2305.13245), and no token that sees a later one.
Source: arXiv 2302.13971. Names of parameters are those of transformers.

Layouts
    tokens   (B, L, D)
    heads    (B, L, H, d)
"""

from collections.abc import Iterable, Mapping

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import initializer
from mindspore.nn.utils import no_init_parameters

from mg.conditions.text.llama_config import LlamaConfig
from mg.dtypes import refuse_bfloat16_on_cpu
from mg.models.layers.tokens import MASKED_LOGIT, Linear, RMSNorm, attend
from mg.vaes.mindone_networks import pynative_mode

__all__ = [
    "Llama",
    "build_llama",
    "causal_logits",
    "load_llama",
    "rotary_tables",
    "run_llama",
    "set_precision",
]


class Llama(nn.Cell):
    """The hidden states of a Llama behind its first layers; without its last norm.

    Args:
        config: of the whole network.
        num_layers: how many of its layers run, from the first on.
    """

    def __init__(self, config: LlamaConfig, num_layers: int) -> None:
        super().__init__()
        self.embed_tokens = _Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.CellList([_Layer(config) for _ in range(num_layers)])
        self.num_layers, self.heads = num_layers, config.num_attention_heads

    def construct(self, ids: Tensor, logits: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return hidden states (B, L, D).

        Args:
            ids: int32 (B, L).
            logits: float32 (B, L, L), added to those of attention, see `causal_logits`.
            cos, sin: float32 (L, d), see `rotary_tables`.
        """
        batch, length = ids.shape
        shape = (batch, self.heads, length, length)
        logits = ops.broadcast_to(logits.reshape(batch, 1, length, length), shape)
        cos, sin = (table.reshape(1, length, 1, -1) for table in (cos, sin))
        x = self.embed_tokens(ids)
        for i in range(self.num_layers):
            x = self.layers[i](x, logits, cos, sin)
        return x


class _Embedding(nn.Cell):
    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.weight = Parameter(initializer("zeros", (rows, width)), name="weight")

    def construct(self, ids: Tensor) -> Tensor:
        return ops.gather(self.weight, ids, 0)


class _Layer(nn.Cell):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        self.input_layernorm = RMSNorm(width, eps)
        self.self_attn = _Attention(config)
        self.post_attention_layernorm = RMSNorm(width, eps)
        self.mlp = _FeedForward(width, config.intermediate_size)

    def construct(self, x: Tensor, logits: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), logits, cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class _Attention(nn.Cell):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        width, size = config.hidden_size, config.head_dim
        self.heads, self.shared, self.size = (
            config.num_attention_heads,
            config.num_key_value_heads,
            size,
        )
        self.q_proj = Linear(width, self.heads * size, has_bias=False)
        self.k_proj = Linear(width, self.shared * size, has_bias=False)
        self.v_proj = Linear(width, self.shared * size, has_bias=False)
        self.o_proj = Linear(self.heads * size, width, has_bias=False)

    def construct(self, x: Tensor, logits: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        query = self.q_proj(x).reshape(batch, length, self.heads, self.size)
        key = self.k_proj(x).reshape(batch, length, self.shared, self.size)
        value = self.v_proj(x).reshape(batch, length, self.shared, self.size)
        query, key = _rotate_halves(query, cos, sin), _rotate_halves(key, cos, sin)
        return self.o_proj(attend(query, self._for_all(key), self._for_all(value), logits))

    def _for_all(self, x: Tensor) -> Tensor:
        """Return (B, L, H, d) of shared heads (B, L, G, d), each for H / G heads in a row."""
        batch, length, shared, size = x.shape
        each = self.heads // shared
        x = ops.broadcast_to(
            x.reshape(batch, length, shared, 1, size), (batch, length, shared, each, size)
        )
        return x.reshape(batch, length, self.heads, size)


class _FeedForward(nn.Cell):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = Linear(width, inner, has_bias=False)
        self.up_proj = Linear(width, inner, has_bias=False)
        self.down_proj = Linear(inner, width, has_bias=False)

    def construct(self, x: Tensor) -> Tensor:
        gate = self.gate_proj(x)
        return self.down_proj(gate * ops.sigmoid(gate) * self.up_proj(x))


def _rotate_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return heads (B, L, H, d) with the numbers i and i + d/2 turned as a pair."""
    half = x.shape[-1] // 2
    turned = ops.concat([-x[..., half:], x[..., :half]], -1)
    return x * cos.astype(x.dtype) + turned * sin.astype(x.dtype)


def rotary_tables(length: int, size: int, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines and sines of the angles p theta^(-2i/d), float32 (L, d), both halves alike.

    Args:
        length: L, positions p from 0.
        size: d, numbers in a head.
        theta: `rope_theta`.
    """
    frequencies = theta ** (-np.arange(0, size, 2) / size)  # (d/2,)
    angles = np.tile(np.arange(length)[:, np.newaxis] * frequencies, 2)  # (L, d)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def causal_logits(mask: np.ndarray) -> np.ndarray:
    """Return what is added to the logits of attention, float32 (B, L, L): 0 where a token sees one.

    Args:
        mask: bool (B, L), false for padding, which nothing sees.
    """
    length = mask.shape[1]
    seen = np.tri(length, dtype=bool) & mask[:, np.newaxis]  # (B, Lq, Lk)
    return np.where(seen, 0.0, MASKED_LOGIT).astype(np.float32)


def build_llama(config: LlamaConfig, *, num_layers: int, dtype: str = "float32") -> Llama:
    """Return the network in evaluation mode, without values.

    Args:
        config: of the whole network.
        num_layers: how many of its layers run.
        dtype: precision of weights and computation, float32, float16 or bfloat16; norms and
            softmax are computed in float32.

    Raises:
        ValueError: a precision that this device lacks.
    """
    what = "the text encoder in bfloat16"
    refuse_bfloat16_on_cpu(dtype, what, operation="matrix product")
    with no_init_parameters():
        network = Llama(config, num_layers)
    set_precision(network, dtype)
    return network.set_train(False)


def set_precision(network: Llama, dtype: str) -> None:
    """Compute in a precision: matrices get it; the weights of norms, vectors, stay float32."""
    for parameter in network.get_parameters():
        if len(parameter.shape) == 2:
            parameter.set_dtype(getattr(ms, dtype))


def load_llama(
    network: Llama, parts: Iterable[Mapping[str, np.ndarray]], names: Mapping[str, str]
) -> None:
    """Give a network its weights, part by part: memory holds one of them besides.

    Args:
        network: from `build_llama`.
        parts: the weights as arrays by name, in one or several mappings.
        names: {name in the files: name in the network}; what the network does not run is left out.
    """
    parameters = dict(network.parameters_and_names())
    for part in parts:
        for name, array in part.items():
            parameter = parameters.get(names.get(name))
            if parameter is not None:
                values = np.array(array, np.float32 if array.dtype == np.float64 else None)
                parameter.set_data(Tensor(values).astype(parameter.dtype))


def run_llama(network: Llama, config: LlamaConfig, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return hidden states, float32 (B, L, D).

    Args:
        network: with weights.
        config: of the network.
        ids: int (B, L), any number where the mask is false.
        mask: bool (B, L).
    """
    cos, sin = rotary_tables(ids.shape[1], config.head_dim, config.rope_theta)
    inputs = (ids.astype(np.int32), causal_logits(mask), cos, sin)
    with pynative_mode():
        return network(*map(Tensor, inputs)).asnumpy().astype(np.float32)
