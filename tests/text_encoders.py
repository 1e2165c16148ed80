"""Tiny text encoders that tests write: a Llama of random numbers, tokenizers that know words."""

import json
import math

import numpy as np

from mg.conditions.text.llama_config import LlamaConfig
from mg.weights.safetensors_file import read_safetensors, write_safetensors

LLAMA = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500.0,
    "torch_dtype": "float16",
}


def write_tokenizer(path, template, marks):
    """Write a tokenizer.json that knows the words w3, w4, ... by their numbers."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing

    words = {f"w{i}": i for i in range(64) if i not in marks.values()}
    tokenizer = Tokenizer(WordLevel({**words, **marks}, unk_token="w3"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(
        single=template, special_tokens=list(marks.items())
    )
    # Settings that a file may bring along, and that must have no effect.
    tokenizer.enable_padding(length=9)
    tokenizer.enable_truncation(4)
    tokenizer.save(str(path))


def write_llama(folder, **fields):
    """Write a Llama as transformers saves one; return its folder.

    Args:
        folder: to make; "<s>" (0) stands in front of each text, nothing behind.
        fields: of its config, in place of those of `LLAMA`.
    """
    folder.mkdir(parents=True)
    stated = {**LLAMA, **fields}
    (folder / "config.json").write_text(json.dumps(stated))
    rng = np.random.default_rng(0)
    tensors = {}
    for name, shape in LlamaConfig.read(stated).shapes().items():
        values = rng.standard_normal(shape) / (math.sqrt(shape[-1]) if len(shape) == 2 else 4)
        tensors[name] = (values + (len(shape) == 1)).astype(np.float32)
    write_safetensors(folder / "model.safetensors", tensors)
    write_tokenizer(folder / "tokenizer.json", "<s> $A", {"<s>": 0})
    return folder


def write_shards(folder):
    """Split a folder's weights into two files with an index, as large models are published."""
    tensors = {name: np.array(array) for name, array in read_safetensors(folder).items()}
    (folder / "model.safetensors").unlink()
    names, weight_map = sorted(tensors), {}
    for i, part in enumerate((names[:9], names[9:])):
        file = f"model-0000{i + 1}-of-00002.safetensors"
        write_safetensors(folder / file, {name: tensors[name] for name in part})
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def by_the_equations(w, ids, num_layers, config=LLAMA):
    """Return the hidden states (L, D) of one text, float64, one token and one head at a time."""
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    size = config["hidden_size"] // heads

    def norm(x, weight):
        return weight * x / np.sqrt(np.mean(x**2) + config["rms_norm_eps"])

    def turned(head, position):
        """Rotate the plane of numbers i and i + d/2 by position theta^(-2i/d)."""
        out = np.empty_like(head)
        for i in range(size // 2):
            angle = position * config["rope_theta"] ** (-2 * i / size)
            a, b = head[i], head[i + size // 2]
            out[i] = a * math.cos(angle) - b * math.sin(angle)
            out[i + size // 2] = b * math.cos(angle) + a * math.sin(angle)
        return out

    w = {name: array.astype(np.float64) for name, array in w.items()}
    xs = [w["embed_tokens.weight"][i] for i in ids]
    for layer in range(num_layers):

        def of(name, layer=layer):
            return w[f"layers.{layer}.{name}.weight"]

        normed = [norm(x, of("input_layernorm")) for x in xs]
        q, k, v = (
            [(of(f"self_attn.{name}_proj") @ n).reshape(-1, size) for n in normed] for name in "qkv"
        )
        behind = []
        for p, x in enumerate(xs):
            mixed = []
            for head in range(heads):
                group = head // (heads // groups)
                query = turned(q[p][head], p)
                scores = [query @ turned(k[j][group], j) / math.sqrt(size) for j in range(p + 1)]
                shares = np.exp(scores - np.max(scores))
                shares /= shares.sum()
                mixed.append(sum(share * v[j][group] for j, share in enumerate(shares)))
            y = x + of("self_attn.o_proj") @ np.concatenate(mixed)
            m = norm(y, of("post_attention_layernorm"))
            gate = of("mlp.gate_proj") @ m
            inner = gate / (1 + np.exp(-gate)) * (of("mlp.up_proj") @ m)
            behind.append(y + of("mlp.down_proj") @ inner)
        xs = behind
    return np.stack(xs)


def write_clip(folder, width):
    """Write a CLIP text model of random numbers, with 16 positions; return its folder.

    Args:
        folder: to make; "<s>" (0) stands in front of each text and "</s>" (63) behind.
        width: of the tokens.
    """
    folder.mkdir(parents=True)
    config = {
        "model_type": "clip_text_model",
        "vocab_size": 64,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
        "eos_token_id": 63,
    }
    (folder / "config.json").write_text(json.dumps(config))
    maps = {f"self_attn.{name}_proj": (width, width) for name in ("q", "k", "v", "out")}
    maps |= {"mlp.fc1": (2 * width, width), "mlp.fc2": (width, 2 * width)}
    shapes = {
        "embeddings.token_embedding.weight": (64, width),
        "embeddings.position_embedding.weight": (16, width),
    }
    for name, shape in maps.items():
        shapes[f"encoder.layers.0.{name}.weight"] = shape
        shapes[f"encoder.layers.0.{name}.bias"] = shape[:1]
    for name in ("encoder.layers.0.layer_norm1", "encoder.layers.0.layer_norm2"):
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    shapes |= {"final_layer_norm.weight": (width,), "final_layer_norm.bias": (width,)}
    rng = np.random.default_rng(1)
    tensors = {
        f"text_model.{name}": (rng.standard_normal(shape) / 2).astype(np.float32)
        for name, shape in shapes.items()
    }
    write_safetensors(folder / "model.safetensors", tensors)
    write_tokenizer(folder / "tokenizer.json", "<s> $A </s>", {"<s>": 0, "</s>": 63})
    return folder
