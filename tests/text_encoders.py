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
