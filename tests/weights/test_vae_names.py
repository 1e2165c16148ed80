"""VAE tensor names of older grammars become those that diffusers writes today."""

import numpy as np
import pytest

from mg.weights.vae_names import to_diffusers_names

TODAY = (
    "encoder.conv_in.weight",
    "encoder.down_blocks.0.resnets.1.conv1.weight",
    "encoder.down_blocks.0.downsamplers.0.conv.bias",
    "encoder.down_blocks.1.resnets.0.conv_shortcut.weight",
    "encoder.mid_block.attentions.0.group_norm.weight",
    "encoder.mid_block.attentions.0.to_q.weight",
    "encoder.mid_block.attentions.0.to_k.weight",
    "encoder.mid_block.attentions.0.to_v.bias",
    "encoder.mid_block.attentions.0.to_out.0.weight",
    "encoder.mid_block.resnets.1.norm2.bias",
    "encoder.conv_norm_out.weight",
    "decoder.up_blocks.0.upsamplers.0.conv.weight",
    "decoder.up_blocks.0.resnets.2.conv2.weight",
    "decoder.up_blocks.1.resnets.0.norm1.weight",
    "quant_conv.weight",
)
LDM = (
    "encoder.conv_in.weight",
    "encoder.down.0.block.1.conv1.weight",
    "encoder.down.0.downsample.conv.bias",
    "encoder.down.1.block.0.nin_shortcut.weight",
    "encoder.mid.attn_1.norm.weight",
    "encoder.mid.attn_1.q.weight",
    "encoder.mid.attn_1.k.weight",
    "encoder.mid.attn_1.v.bias",
    "encoder.mid.attn_1.proj_out.weight",
    "encoder.mid.block_2.norm2.bias",
    "encoder.norm_out.weight",
    "decoder.up.1.upsample.conv.weight",
    "decoder.up.1.block.2.conv2.weight",
    "decoder.up.0.block.0.norm1.weight",
    "quant_conv.weight",
)
# One tensor more that tells the grammar, under its name in each of them.
FIRST_BLOCK = (
    "encoder.down_blocks.0.resnets.0.conv1.weight",
    "encoder.down.0.block.0.conv1.weight",
)


def numbered(names):
    """Return one array per name, each with its own value, of rank 4 as a convolution's."""
    return {name: np.full((1, 1, 1, 1), i, np.float32) for i, name in enumerate(names)}


def values(tensors):
    return {name: array.item() for name, array in tensors.items()}


def test_names_of_today_stay():
    tensors = numbered(TODAY)
    assert values(to_diffusers_names(tensors)) == values(tensors)


def test_former_attention_names():
    tensors = numbered(
        name.replace("to_q", "query")
        .replace("to_k", "key")
        .replace("to_v", "value")
        .replace("to_out.0", "proj_attn")
        for name in TODAY
    )
    assert values(to_diffusers_names(tensors)) == values(numbered(TODAY))


@pytest.mark.parametrize("prefix", ["", "first_stage_model.", "state_dict.first_stage_model."])
def test_ldm_names_with_any_prefix(prefix):
    ldm, today = (*LDM, FIRST_BLOCK[1]), (*TODAY, FIRST_BLOCK[0])
    renamed = to_diffusers_names(numbered(prefix + name for name in ldm))
    assert values(renamed) == values(numbered(today))
    assert renamed["encoder.mid_block.attentions.0.to_q.weight"].shape == (1, 1)
    assert renamed["quant_conv.weight"].shape == (1, 1, 1, 1)


def test_what_is_not_the_vaes_is_left_out():
    tensors = numbered(["first_stage_model." + name for name in (*LDM, FIRST_BLOCK[1])])
    beside = numbered(["model.diffusion_model.out.weight", "first_stage_model.loss.logvar"])
    assert set(to_diffusers_names({**tensors, **beside})) == {*TODAY, FIRST_BLOCK[0]}


def test_prefix_of_the_original_hunyuanvideo():
    tensors = numbered(["vae.encoder.conv_in.conv.weight", "vae.quant_conv.weight"])
    assert list(to_diffusers_names(tensors)) == ["encoder.conv_in.conv.weight", "quant_conv.weight"]


def test_original_cogvideox_names():
    renamed = to_diffusers_names(
        numbered(
            [
                "encoder.conv_in.conv.weight",
                "encoder.down.0.block.0.conv1.conv.weight",
                "encoder.down.1.block.0.nin_shortcut.weight",
                "encoder.mid.block_1.conv1.conv.weight",
                "encoder.norm_out.weight",
                "decoder.up.0.block.0.norm1.conv_y.conv.weight",
                "decoder.up.1.upsample.conv.weight",
                "decoder.norm_out.norm_layer.weight",
            ]
        )
    )
    assert list(renamed) == [
        "encoder.conv_in.conv.weight",
        "encoder.down_blocks.0.resnets.0.conv1.conv.weight",
        "encoder.down_blocks.1.resnets.0.conv_shortcut.weight",
        "encoder.mid_block.resnets.0.conv1.conv.weight",
        "encoder.norm_out.weight",
        "decoder.up_blocks.1.resnets.0.norm1.conv_y.conv.weight",
        "decoder.up_blocks.0.upsamplers.0.conv.weight",
        "decoder.norm_out.norm_layer.weight",
    ]


def test_networks_with_similar_names_stay():
    names = ["encoder.conv_in.conv_spat.weight", "encoder.down.0.block.0.conv1.conv_spat.weight"]
    assert list(to_diffusers_names(numbered(names))) == names
    names = ["encoder.conv_in.conv.weight", "encoder.down.0.block.0.conv1.conv.weight"]
    assert list(to_diffusers_names(numbered(names))) == names


def test_two_vaes_or_twice_a_name_is_refused():
    with pytest.raises(ValueError, match="2 VAEs"):
        to_diffusers_names(numbered(["vae.encoder.conv_in.weight", "encoder.conv_in.weight"]))
    twice = [f"encoder.mid_block.attentions.0.{name}.weight" for name in ("query", "to_q")]
    with pytest.raises(ValueError, match=r"to_q\.weight"):
        to_diffusers_names(numbered(twice))
