"""What a Llama text model is made of: the fields of its config.json that decide its numbers."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mg.console import one_line

__all__ = ["LlamaConfig", "own_llama_names"]

MAX_SIZE = 1 << 24
# Fields with one value that is implemented here, which is transformers' default.
FIXED = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "rope_scaling": None}
EMBEDDING = "embed_tokens.weight"
# What a language model has besides: its last map, and tables that older versions stored.
BESIDE = ("lm_head.weight",)
STORED_TABLE = "rotary_emb.inv_freq"


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """The structure of a Llama; the fields are those of its config.json.

    Raises:
        ValueError: a value that no network can be built from.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kinds = int if field.default is dataclasses.MISSING else int | float
            right = isinstance(value, kinds) and not isinstance(value, bool)
            if not right or not 0 < value <= MAX_SIZE:
                kind = "a whole number" if kinds is int else "a number"
                raise ValueError(f"{field.name} is {one_line(repr(value))}; expected {kind}")
        heads, shared = self.num_attention_heads, self.num_key_value_heads
        if heads % shared:
            raise ValueError(
                f"num_attention_heads={heads} is not a multiple of num_key_value_heads={shared}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim}; rotary positions need an even number")

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> "LlamaConfig":
        """Return the structure that config.json states.

        Raises:
            ValueError: a field that is missing or not implemented.
        """
        if fields.get("model_type", "llama") != "llama":
            raise ValueError(f"model_type is {one_line(repr(fields['model_type']))}, not 'llama'")
        stated = dict(fields)
        rope = stated.pop("rope_parameters", None)  # where later versions of transformers put it
        if isinstance(rope, Mapping):
            if rope.get("rope_type", "default") != "default":
                stated["rope_scaling"] = dict(rope)
            stated.setdefault("rope_theta", rope.get("rope_theta"))
        for name, value in FIXED.items():
            if stated.get(name, value) != value:
                raise ValueError(
                    f"{name}={one_line(repr(stated[name]))} is not implemented; expected {value!r}"
                )
        if stated.get("num_key_value_heads") is None:
            stated["num_key_value_heads"] = stated.get("num_attention_heads")
        if stated.get("head_dim") is None:
            stated["head_dim"] = _head_dim(stated)
        known = {field.name for field in dataclasses.fields(cls)}
        required = {f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING}
        missing = sorted(name for name in required if stated.get(name) is None)
        if missing:
            raise ValueError(f"{', '.join(missing)} missing; expected the config of a Llama")
        return cls(**{name: value for name, value in stated.items() if name in known})

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all tensors by name, as a checkpoint has them."""
        width, inner = self.hidden_size, self.intermediate_size
        of_queries = self.num_attention_heads * self.head_dim
        of_keys = self.num_key_value_heads * self.head_dim
        layer = {
            "input_layernorm.weight": (width,),
            "self_attn.q_proj.weight": (of_queries, width),
            "self_attn.k_proj.weight": (of_keys, width),
            "self_attn.v_proj.weight": (of_keys, width),
            "self_attn.o_proj.weight": (width, of_queries),
            "post_attention_layernorm.weight": (width,),
            "mlp.gate_proj.weight": (inner, width),
            "mlp.up_proj.weight": (inner, width),
            "mlp.down_proj.weight": (width, inner),
        }
        shapes = {EMBEDDING: (self.vocab_size, width), "norm.weight": (width,)}
        for number in range(self.num_hidden_layers):
            shapes |= {f"layers.{number}.{name}": shape for name, shape in layer.items()}
        return shapes


def own_llama_names(names: Mapping[str, Any]) -> dict[str, str]:
    """Return {name in the file: name in the network} of the text model in a checkpoint.

    It may be the model of a whole language model (`model.`) or of one that sees pictures
    (`language_model.model.`).

    Args:
        names: of all tensors of the checkpoint.

    Raises:
        ValueError: it has no such model, or several.
    """
    prefixes = [name.removesuffix(EMBEDDING) for name in names if name.endswith(EMBEDDING)]
    if len(prefixes) != 1:
        raise ValueError(f"it has {len(prefixes)} tensors {EMBEDDING}; expected the one of a Llama")
    own = {name: name.removeprefix(prefixes[0]) for name in names if name.startswith(prefixes[0])}
    return {
        name: inner
        for name, inner in own.items()
        if inner not in BESIDE and not inner.endswith(STORED_TABLE)
    }


def _head_dim(fields: Mapping[str, Any]) -> int | None:
    width, heads = fields.get("hidden_size"), fields.get("num_attention_heads")
    if not all(isinstance(n, int) and n > 0 for n in (width, heads)) or width % heads:
        return None
    return width // heads
