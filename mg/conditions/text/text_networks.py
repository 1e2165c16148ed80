"""mindone's networks of text encoders: built from a config, filled strictly, run on CPU too."""

from collections.abc import Mapping
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from mindspore.nn.utils import no_init_parameters

from mg.conditions.text.extra import needs_text_extra
from mg.cpu_stand_ins import install_stand_ins
from mg.quiet_imports import quiet_imports
from mg.vaes.mindone_networks import pynative_mode
from mg.weights.tensor_check import check_tensors

__all__ = ["build_text_network", "load_text_network", "run_text_network"]

# Kind -> mindone's class, transformers' class of its config, what the names of its tensors start
# with; other tensors of a checkpoint belong to a decoder or an image encoder.
NETWORKS = {
    "t5": ("T5EncoderModel", "T5Config", ("shared.", "encoder.")),
    "byt5": ("T5EncoderModel", "T5Config", ("shared.", "encoder.")),
    "clip": ("CLIPTextModel", "CLIPTextConfig", ("text_model.",)),
}
# How MindSpore's own layers call what torch calls weight and bias.
TORCH_NAMES = {"gamma": "weight", "beta": "bias", "embedding_table": "weight"}
# A second name of T5's embedding, and a constant of CLIP's.
TIED_NAME, OWN_NAME = "encoder.embed_tokens.weight", "shared.weight"
POSITION_IDS = "text_model.embeddings.position_ids"
# The type of the checkpoint, which is run in float32; what belongs to classifiers.
IDLE_FIELDS = ("dtype", "torch_dtype", "num_labels", "id2label", "label2id")
# Fields of the configs, T5's and CLIP's, by what bounds them.
WIDTHS = ("d_model", "hidden_size")
LAYERS = ("num_layers", "num_hidden_layers")
ROWS = ("vocab_size", "d_ff", "intermediate_size", "max_position_embeddings")
HEADS = ("num_heads", "num_attention_heads", "d_kv", "relative_attention_num_buckets")


def build_text_network(kind: str, config: Mapping[str, Any], *, stand_ins: bool = True) -> nn.Cell:
    """Return the network of a text encoder, in evaluation mode, without values.

    Args:
        kind: "t5", "byt5" or "clip".
        config: the fields of config.json; of CLIP those of the text part alone.
        stand_ins: on CPU, replace the operators that CPUs lack, for the whole process; False for a
            network that is looked at and not run.

    Raises:
        ValueError: no such network can be made of this config, or mindone is not installed.
    """
    class_name, config_name, _ = NETWORKS[kind]
    with needs_text_extra(), quiet_imports():
        import mindone.transformers
        import transformers
    if stand_ins:
        install_stand_ins()
    fields = {key: value for key, value in config.items() if key not in IDLE_FIELDS}
    try:
        with no_init_parameters():
            settings = getattr(transformers, config_name)(**fields)
            network = getattr(mindone.transformers, class_name)(settings)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"no {class_name} can be built from this config: {error}") from error
    return network.set_train(False)


def load_text_network(network: nn.Cell, kind: str, tensors: Mapping[str, np.ndarray]) -> None:
    """Give a network the weights of a checkpoint, of which it may be a part.

    Args:
        network: from `build_text_network`.
        kind: as there.
        tensors: arrays under the names of transformers, floating-point of any precision.

    Raises:
        ValueError: tensors of the text encoder are missing, left over, or of another shape.
    """
    prefixes = NETWORKS[kind][2]
    own = {name: array for name, array in tensors.items() if name.startswith(prefixes)}
    tied = own.pop(TIED_NAME, None)
    if tied is not None:
        own.setdefault(OWN_NAME, tied)
    own.pop(POSITION_IDS, None)
    parameters = {_torch_name(name): p for name, p in network.parameters_and_names()}
    check_tensors(own, {name: tuple(p.shape) for name, p in parameters.items()})
    for name, parameter in parameters.items():
        parameter.set_data(Tensor(np.array(own[name]), parameter.dtype))


def run_text_network(network: nn.Cell, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the last hidden states, float32 (B, L, D).

    Args:
        network: with weights.
        ids: int (B, L), any number where the mask is false.
        mask: bool (B, L).
    """
    with pynative_mode():
        outputs = network(Tensor(ids, ms.int32), attention_mask=Tensor(mask, ms.int32))
        return outputs[0].asnumpy().astype(np.float32)


def _torch_name(name: str) -> str:
    stem, _, last = name.rpartition(".")
    return f"{stem}.{TORCH_NAMES.get(last, last)}"
