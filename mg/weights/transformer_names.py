"""Original names of CogVideoX's and HunyuanVideo's transformers -> diffusers'.

CogVideoX was first published for SAT (SwissArmyTransformer), in `mp_rank_00_model_states.pt` behind
the prefix `model.diffusion_model.`; HunyuanVideo in a file of the same name. Their queries, keys
and values are one linear map; CogVideoX also has the shifts, scales and gates of both norms of a
block in one, HunyuanVideo's single blocks the first map of the feed-forward layer beside queries,
keys and values.
"""

import logging
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mg.weights.families import FAMILIES, prefixes_of
from mg.weights.name_rules import Cut, Part, Rules, parts_by_rules, take_part

__all__ = ["ORIGINALS", "OriginalParts", "check_positions", "find_original", "from_original"]

logger = logging.getLogger("mg")

Shapes = Mapping[str, tuple[int, ...]]

NUM_LISTED = 8  # names in messages


class Original(NamedTuple):
    """The original names of a transformer.

    Attributes:
        family: of the network, one of `mg.models.families.DENOISERS`.
        rules: from the original modules to diffusers'.
        width: a bias that is as long as a token is wide.
        left_out: what the network computes, or does not have, but the file may.
        positions: of `left_out`, a tensor that is computed unless it was trained.
    """

    family: str
    rules: Rules
    width: str
    left_out: re.Pattern = re.compile(r"(?!)")
    positions: str | None = None


def _qkv(names: str) -> dict[str, tuple[int, ...]]:
    """Return the pieces of a map of queries, keys and values; `*` stands for q, k, v."""
    return {names.replace("*", letter): (number,) for number, letter in enumerate("qkv")}


COGVIDEOX: Rules = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "ofs_embed.0": "ofs_embedding.linear_1",
    "ofs_embed.2": "ofs_embedding.linear_2",
    "mixins.patch_embed.proj": "patch_embed.proj",
    "mixins.patch_embed.text_proj": "patch_embed.text_proj",
    "transformer.layers.{}.input_layernorm": "transformer_blocks.{}.norm1.norm",
    "transformer.layers.{}.attention.query_key_value": Cut(
        _qkv("transformer_blocks.{}.attn1.to_*"), equal=3
    ),
    "transformer.layers.{}.attention.dense": "transformer_blocks.{}.attn1.to_out.0",
    "transformer.layers.{}.post_attention_layernorm": "transformer_blocks.{}.norm2.norm",
    "transformer.layers.{}.mlp.dense_h_to_4h": "transformer_blocks.{}.ff.net.0.proj",
    "transformer.layers.{}.mlp.dense_4h_to_h": "transformer_blocks.{}.ff.net.2",
    # Shift, scale and gate: of the video before attention and before the feed-forward layer, then
    # of the text. diffusers has them by norm: those of the video, then those of the text.
    "mixins.adaln_layer.adaLN_modulations.{}.1": Cut(
        {
            "transformer_blocks.{}.norm1.linear": (0, 1, 2, 6, 7, 8),
            "transformer_blocks.{}.norm2.linear": (3, 4, 5, 9, 10, 11),
        },
        equal=12,
    ),
    "mixins.adaln_layer.query_layernorm_list.{}": "transformer_blocks.{}.attn1.norm_q",
    "mixins.adaln_layer.key_layernorm_list.{}": "transformer_blocks.{}.attn1.norm_k",
    "transformer.final_layernorm": "norm_final",
    "mixins.final_layer.norm_final": "norm_out.norm",
    "mixins.final_layer.adaLN_modulation.1": "norm_out.linear",
    "mixins.final_layer.linear": "proj_out",
}

REFINER = "context_embedder.token_refiner.refiner_blocks.{}"
HUNYUAN: Rules = {
    "img_in.proj": "x_embedder.proj",
    "time_in.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "time_in.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "guidance_in.mlp.0": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.mlp.2": "time_text_embed.guidance_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "txt_in.input_embedder": "context_embedder.proj_in",
    "txt_in.t_embedder.mlp.0": "context_embedder.time_text_embed.timestep_embedder.linear_1",
    "txt_in.t_embedder.mlp.2": "context_embedder.time_text_embed.timestep_embedder.linear_2",
    "txt_in.c_embedder.linear_1": "context_embedder.time_text_embed.text_embedder.linear_1",
    "txt_in.c_embedder.linear_2": "context_embedder.time_text_embed.text_embedder.linear_2",
    **{
        f"txt_in.individual_token_refiner.blocks.{{}}.{old}": f"{REFINER}.{new}"
        for old, new in {
            "norm1": "norm1",
            "norm2": "norm2",
            "self_attn_proj": "attn.to_out.0",
            "mlp.fc1": "ff.net.0.proj",
            "mlp.fc2": "ff.net.2",
            "adaLN_modulation.1": "norm_out.linear",
        }.items()
    },
    "txt_in.individual_token_refiner.blocks.{}.self_attn_qkv": Cut(
        _qkv(f"{REFINER}.attn.to_*"), equal=3
    ),
    **{
        f"double_blocks.{{}}.{old}": f"transformer_blocks.{{}}.{new}"
        for old, new in {
            "img_mod.linear": "norm1.linear",
            "img_attn_q_norm": "attn.norm_q",
            "img_attn_k_norm": "attn.norm_k",
            "img_attn_proj": "attn.to_out.0",
            "img_mlp.fc1": "ff.net.0.proj",
            "img_mlp.fc2": "ff.net.2",
            "txt_mod.linear": "norm1_context.linear",
            "txt_attn_q_norm": "attn.norm_added_q",
            "txt_attn_k_norm": "attn.norm_added_k",
            "txt_attn_proj": "attn.to_add_out",
            "txt_mlp.fc1": "ff_context.net.0.proj",
            "txt_mlp.fc2": "ff_context.net.2",
        }.items()
    },
    "double_blocks.{}.img_attn_qkv": Cut(_qkv("transformer_blocks.{}.attn.to_*"), equal=3),
    "double_blocks.{}.txt_attn_qkv": Cut(_qkv("transformer_blocks.{}.attn.add_*_proj"), equal=3),
    "single_blocks.{}.modulation.linear": "single_transformer_blocks.{}.norm.linear",
    "single_blocks.{}.q_norm": "single_transformer_blocks.{}.attn.norm_q",
    "single_blocks.{}.k_norm": "single_transformer_blocks.{}.attn.norm_k",
    "single_blocks.{}.linear1": Cut(
        {
            **_qkv("single_transformer_blocks.{}.attn.to_*"),
            "single_transformer_blocks.{}.proj_mlp": (3,),
        },
        of_width=3,
    ),
    "single_blocks.{}.linear2": "single_transformer_blocks.{}.proj_out",
    # Shift before scale there, scale before shift in diffusers.
    "final_layer.adaLN_modulation.1": Cut({"norm_out.linear": (1, 0)}, equal=2),
    "final_layer.linear": "proj_out",
}

# Keys of `mg.weights.families.FAMILIES`.
ORIGINALS = {
    "cogvideox-transformer-original": Original(
        "cogvideox",
        COGVIDEOX,
        "mixins.patch_embed.text_proj.bias",
        re.compile(
            r"transformer\.(word_embeddings|position_embeddings|embed_tokens)\.weight|"
            r"mixins\.pos_embed\.(pos_embedding|freqs_sin|freqs_cos)"
        ),
        "mixins.pos_embed.pos_embedding",
    ),
    "hunyuanvideo-transformer-original": Original("hunyuan", HUNYUAN, "img_in.proj.bias"),
}


class OriginalParts(NamedTuple):
    """A transformer under its original names, among the tensors of a file.

    Attributes:
        key: which one, of `ORIGINALS`.
        parts: what each tensor of the network is in the file, by diffusers' names.
        left_out: the other tensors of the file.
        positions: where the file has it, the tensor with the sums of waves of all positions.
    """

    key: str
    parts: dict[str, Part]
    left_out: list[str]
    positions: str | None

    @property
    def family(self) -> str:
        """Of the network, one of `mg.models.families.DENOISERS`."""
        return ORIGINALS[self.key].family


def find_original(shapes: Shapes) -> OriginalParts | None:
    """Return the transformer under original names that a file holds; None if there is none.

    Args:
        shapes: of all tensors of the file. A prefix before the transformer's, and tensors beside
            it, are allowed.

    Raises:
        ValueError: two of them, behind different prefixes; or tensors that cannot be cut.
    """
    for key, original in ORIGINALS.items():
        prefixes = prefixes_of(shapes, key)
        if len(prefixes) > 1:
            raise ValueError(
                f"the file holds {len(prefixes)} transformers, with the prefixes "
                f"{', '.join(map(repr, prefixes))}; say which with key={prefixes[0].rstrip('.')!r}"
            )
        if prefixes:
            return _parts_behind(prefixes[0], shapes, key, original)
    return None


def _parts_behind(prefix: str, shapes: Shapes, key: str, original: Original) -> OriginalParts:
    own = {
        name.removeprefix(prefix): shape
        for name, shape in shapes.items()
        if name.startswith(prefix) and not original.left_out.fullmatch(name.removeprefix(prefix))
    }
    width = own.get(original.width, ())
    if len(width) != 1:
        raise ValueError(
            f"{FAMILIES[key].description}: tensor {prefix + original.width!r} is missing or no "
            "vector; fetch or save the file again"
        )
    parts = parts_by_rules(own, original.rules, width[0])
    positions = None if original.positions is None else prefix + original.positions
    return OriginalParts(
        key,
        {new: part._replace(name=prefix + part.name) for new, part in parts.items()},
        [name for name in shapes if name.removeprefix(prefix) not in own],
        positions if positions in shapes else None,
    )


def from_original(
    tensors: Mapping[str, np.ndarray], found: OriginalParts | None = None
) -> dict[str, np.ndarray]:
    """Return a transformer's tensors under diffusers' names; views where they can be.

    Tensors without a transformer under original names stay as they are.

    Args:
        tensors: of the file.
        found: what `find_original` gives for them; None asks it.

    Raises:
        ValueError: as `find_original`; or positions that were trained, which is not implemented.
    """
    if found is None:
        found = find_original({name: tuple(array.shape) for name, array in tensors.items()})
    if found is None:
        return dict(tensors)
    check_positions(tensors, found)
    if found.left_out:
        more = len(found.left_out) - NUM_LISTED
        shown = ", ".join(found.left_out[:NUM_LISTED]) + (f", and {more} more" if more > 0 else "")
        logger.info("left out %d tensors beside the transformer: %s", len(found.left_out), shown)
    return {new: take_part(tensors[part.name], part) for new, part in found.parts.items()}


def check_positions(tensors: Mapping[str, np.ndarray], found: OriginalParts) -> None:
    """Raise ValueError if the file has positions that were trained, not computed.

    Computed ones begin with zeros for the text.
    """
    if found.positions is None:
        return
    array = tensors[found.positions]
    if array.size and array.reshape(-1, array.shape[-1])[0].any():
        raise ValueError(
            f"{found.positions!r} are positions that were trained, as CogVideoX-5b-I2V has them; "
            "that is not implemented"
        )
