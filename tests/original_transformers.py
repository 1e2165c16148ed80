"""Transformers under the names of their first publication, made from diffusers'.

Written from the published networks, not from `mg.weights.transformer_names`.
"""

import pickle
import zipfile

import numpy as np

from mg.weights.torch_zip_writer import write_torch_zip


def join_shapes(shapes):
    """Return the shape of arrays of these shapes behind one another."""
    return sum(shape[0] for shape in shapes), *shapes[0][1:]


def halves(array, number):
    """Return parts of equal size along the rows."""
    return np.split(array, number)


def original_cogvideox(tensors, join=np.concatenate, cut=halves):
    """Return {name as SAT has it: array} of a CogVideoX transformer under diffusers' names."""
    left = dict(tensors)
    found = {}

    def move(new, old):
        for kind in ("weight", "bias"):
            if f"{old}.{kind}" in left:
                found[f"{new}.{kind}"] = left.pop(f"{old}.{kind}")

    for old, new in (("time_embedding", "time_embed"), ("ofs_embedding", "ofs_embed")):
        move(f"{new}.0", f"{old}.linear_1")
        move(f"{new}.2", f"{old}.linear_2")
    for name in ("proj", "text_proj"):
        move(f"mixins.patch_embed.{name}", f"patch_embed.{name}")
    move("transformer.final_layernorm", "norm_final")
    move("mixins.final_layer.norm_final", "norm_out.norm")
    move("mixins.final_layer.adaLN_modulation.1", "norm_out.linear")
    move("mixins.final_layer.linear", "proj_out")
    num_blocks = len({name.split(".")[1] for name in left})
    for i in range(num_blocks):
        block, layer = f"transformer_blocks.{i}", f"transformer.layers.{i}"
        for kind in ("weight", "bias"):
            qkv = [left.pop(f"{block}.attn1.to_{letter}.{kind}") for letter in "qkv"]
            found[f"{layer}.attention.query_key_value.{kind}"] = join(qkv)
            first = cut(left.pop(f"{block}.norm1.linear.{kind}"), 6)
            second = cut(left.pop(f"{block}.norm2.linear.{kind}"), 6)
            # Attention then feed-forward of the video, then both of the text.
            chunks = [*first[:3], *second[:3], *first[3:], *second[3:]]
            found[f"mixins.adaln_layer.adaLN_modulations.{i}.1.{kind}"] = join(chunks)
        for letter, name in (("q", "query"), ("k", "key")):
            move(f"mixins.adaln_layer.{name}_layernorm_list.{i}", f"{block}.attn1.norm_{letter}")
        move(f"{layer}.attention.dense", f"{block}.attn1.to_out.0")
        move(f"{layer}.input_layernorm", f"{block}.norm1.norm")
        move(f"{layer}.post_attention_layernorm", f"{block}.norm2.norm")
        move(f"{layer}.mlp.dense_h_to_4h", f"{block}.ff.net.0.proj")
        move(f"{layer}.mlp.dense_4h_to_h", f"{block}.ff.net.2")
    assert not left
    return found


def original_hunyuan(tensors, join=np.concatenate, cut=halves):
    """Return {name as Tencent has it: array} of a HunyuanVideo transformer of diffusers' names."""
    left = dict(tensors)
    found = {}

    def move(new, *old):
        for kind in ("weight", "bias"):
            arrays = [left.pop(f"{name}.{kind}") for name in old if f"{name}.{kind}" in left]
            if arrays:
                found[f"{new}.{kind}"] = join(arrays) if len(arrays) > 1 else arrays[0]

    move("img_in.proj", "x_embedder.proj")
    move("txt_in.input_embedder", "context_embedder.proj_in")
    for i in (1, 2):
        time, layer = f"timestep_embedder.linear_{i}", f"mlp.{2 * i - 2}"
        move(f"time_in.{layer}", f"time_text_embed.{time}")
        move(f"guidance_in.{layer}", f"time_text_embed.guidance_embedder.linear_{i}")
        move(f"txt_in.t_embedder.{layer}", f"context_embedder.time_text_embed.{time}")
        text = f"text_embedder.linear_{i}"
        move(f"txt_in.c_embedder.linear_{i}", f"context_embedder.time_text_embed.{text}")
        move(f"vector_in.{('in_layer', 'out_layer')[i - 1]}", f"time_text_embed.{text}")
    for kind in ("weight", "bias"):
        scale, shift = cut(left.pop(f"norm_out.linear.{kind}"), 2)
        found[f"final_layer.adaLN_modulation.1.{kind}"] = join([shift, scale])
    move("final_layer.linear", "proj_out")
    for i in range(_blocks(left, "context_embedder.token_refiner.refiner_blocks.")):
        new = f"txt_in.individual_token_refiner.blocks.{i}"
        old = f"context_embedder.token_refiner.refiner_blocks.{i}"
        move(f"{new}.norm1", f"{old}.norm1")
        move(f"{new}.norm2", f"{old}.norm2")
        move(f"{new}.self_attn_qkv", *(f"{old}.attn.to_{letter}" for letter in "qkv"))
        move(f"{new}.self_attn_proj", f"{old}.attn.to_out.0")
        move(f"{new}.mlp.fc1", f"{old}.ff.net.0.proj")
        move(f"{new}.mlp.fc2", f"{old}.ff.net.2")
        move(f"{new}.adaLN_modulation.1", f"{old}.norm_out.linear")
    for i in range(_blocks(left, "transformer_blocks.")):
        new, old = f"double_blocks.{i}", f"transformer_blocks.{i}"
        for kind, norm, ff, maps, norms, out in (
            ("img", "norm1", "ff", "to_{}", "norm_{}", "to_out.0"),
            ("txt", "norm1_context", "ff_context", "add_{}_proj", "norm_added_{}", "to_add_out"),
        ):
            move(f"{new}.{kind}_mod.linear", f"{old}.{norm}.linear")
            move(f"{new}.{kind}_attn_qkv", *(f"{old}.attn.{maps.format(x)}" for x in "qkv"))
            for letter in "qk":
                move(f"{new}.{kind}_attn_{letter}_norm", f"{old}.attn.{norms.format(letter)}")
            move(f"{new}.{kind}_attn_proj", f"{old}.attn.{out}")
            move(f"{new}.{kind}_mlp.fc1", f"{old}.{ff}.net.0.proj")
            move(f"{new}.{kind}_mlp.fc2", f"{old}.{ff}.net.2")
    for i in range(_blocks(left, "single_transformer_blocks.")):
        new, old = f"single_blocks.{i}", f"single_transformer_blocks.{i}"
        maps = (*(f"attn.to_{letter}" for letter in "qkv"), "proj_mlp")
        move(f"{new}.linear1", *(f"{old}.{name}" for name in maps))
        move(f"{new}.linear2", f"{old}.proj_out")
        move(f"{new}.q_norm", f"{old}.attn.norm_q")
        move(f"{new}.k_norm", f"{old}.attn.norm_k")
        move(f"{new}.modulation.linear", f"{old}.norm.linear")
    assert not left
    return found


def _blocks(names, start):
    numbers = [name.removeprefix(start).split(".")[0] for name in names if name.startswith(start)]
    return len(set(numbers))


def write_under_module(path, tensors):
    """Write {"module": tensors} as PyTorch does; the file may be replaced."""
    write_torch_zip(path, tensors, overwrite=True)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            if name.endswith("data.pkl"):
                key = pickle.dumps("module", protocol=2)[2:-1]
                content = b"\x80\x02}" + key + content[2:-1] + b"s."
            archive.writestr(name, content)
