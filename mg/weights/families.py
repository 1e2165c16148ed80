"""Which network a weight file belongs to, recognised by the names and shapes of its tensors."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

__all__ = ["FAMILIES", "guess_family", "prefixes_of"]

ANY = None  # a size that does not matter


class Family(NamedTuple):
    """What a family is, and the tensors that tell it: every one must be there, in this shape.

    The names may all stand behind one common prefix, such as `first_stage_model.` or `vae.`.
    """

    description: str
    marks: Mapping[str, tuple[int | None, ...]]


CONV2D = (ANY, ANY, 3, 3)
CONV3D = (ANY, ANY, 3, 3, 3)

# From the most particular to the most general: the first that fits is the answer.
FAMILIES: dict[str, Family] = {
    "tae": Family(
        "Movie Gen's Temporal Autoencoder, ours or the public MindSpore checkpoint",
        {"encoder.conv_in.conv_spat.weight": CONV2D, "decoder.conv_in.conv_spat.weight": CONV2D},
    ),
    "opensora-v1.2": Family(
        "Open-Sora v1.2's VAE: a 2-D VAE (4 channels) and a temporal VAE behind it",
        {
            "spatial_vae.module.encoder.conv_in.weight": CONV2D,
            "temporal_vae.encoder.conv_in.conv.weight": CONV3D,
        },
    ),
    "cogvideox": Family(
        "CogVideoX's VAE (16 channels), diffusers names",
        {
            "encoder.down_blocks.0.resnets.0.conv1.conv.weight": CONV3D,
            "decoder.norm_out.conv_y.conv.weight": (ANY, 16, 1, 1, 1),
        },
    ),
    "cogvideox-ldm": Family(
        "CogVideoX's VAE (16 channels), names of its first publication (SAT)",
        {
            "encoder.down.0.block.0.conv1.conv.weight": CONV3D,
            "decoder.norm_out.conv_y.conv.weight": (ANY, 16, 1, 1, 1),
        },
    ),
    "hunyuanvideo": Family(
        "HunyuanVideo's VAE (16 channels); Open-Sora 2.0 uses the same network",
        {
            "encoder.down_blocks.0.downsamplers.0.conv.conv.weight": CONV3D,
            "decoder.conv_in.conv.weight": (ANY, 16, 3, 3, 3),
        },
    ),
    "causalvae": Family(
        "Open-Sora-Plan's CausalVideoVAE (4 channels)",
        {
            "encoder.mid.block_1.norm1.weight": (ANY,),
            "decoder.conv_in.conv.weight": (ANY, 4, 3, 3, 3),
        },
    ),
    "wan": Family(
        "Wan 2.1's or 2.2's VAE, diffusers names",
        {
            "decoder.mid_block.resnets.0.norm1.gamma": (ANY, 1, 1, 1),
            "quant_conv.weight": (ANY, ANY, 1, 1, 1),
        },
    ),
    "wan-original": Family(
        "Wan 2.1's or 2.2's VAE, names of its first publication",
        {
            "decoder.middle.0.residual.0.gamma": (ANY, 1, 1, 1),
            "conv1.weight": (ANY, ANY, 1, 1, 1),
        },
    ),
    "dc-ae": Family(
        "Open-Sora 2.0's Video DC-AE (deep compression, 128 channels)",
        {
            "encoder.project_in.conv.weight": CONV3D,
            "decoder.stages.0.op_list.0.main.conv.conv.weight": CONV3D,
        },
    ),
    "sd": Family(
        "2-D VAE of Stable Diffusion's type with 4 channels (SD, SDXL), diffusers names",
        {
            "encoder.down_blocks.0.resnets.0.conv1.weight": CONV2D,
            "decoder.conv_in.weight": (ANY, 4, 3, 3),
        },
    ),
    "sd3": Family(
        "2-D VAE of Stable Diffusion 3.5's type with 16 channels, diffusers names",
        {
            "encoder.down_blocks.0.resnets.0.conv1.weight": CONV2D,
            "decoder.conv_in.weight": (ANY, 16, 3, 3),
        },
    ),
    "sd-ldm": Family(
        "2-D VAE of Stable Diffusion's type with 4 channels (SD, SDXL), LDM names",
        {
            "encoder.down.0.block.0.conv1.weight": CONV2D,
            "decoder.conv_in.weight": (ANY, 4, 3, 3),
        },
    ),
    "sd3-ldm": Family(
        "2-D VAE of Stable Diffusion 3.5's type with 16 channels, LDM names",
        {
            "encoder.down.0.block.0.conv1.weight": CONV2D,
            "decoder.conv_in.weight": (ANY, 16, 3, 3),
        },
    ),
    "cogvideox-transformer": Family(
        "CogVideoX's transformer, diffusers names",
        {
            "patch_embed.text_proj.weight": (ANY, ANY),
            "transformer_blocks.0.norm1.linear.weight": (ANY, ANY),
        },
    ),
    "cogvideox-transformer-original": Family(
        "CogVideoX's transformer, names of its first publication (SAT)",
        {
            "transformer.layers.0.attention.query_key_value.weight": (ANY, ANY),
            "mixins.final_layer.adaLN_modulation.1.weight": (ANY, ANY),
        },
    ),
    "hunyuanvideo-transformer": Family(
        "HunyuanVideo's transformer, diffusers names",
        {
            "x_embedder.proj.weight": (ANY, ANY, ANY, ANY, ANY),
            "context_embedder.proj_in.weight": (ANY, ANY),
        },
    ),
    "hunyuanvideo-transformer-original": Family(
        "HunyuanVideo's transformer, names of its first publication",
        {
            "double_blocks.0.img_attn_qkv.weight": (ANY, ANY),
            "single_blocks.0.linear1.weight": (ANY, ANY),
            "txt_in.individual_token_refiner.blocks.0.self_attn_qkv.weight": (ANY, ANY),
        },
    ),
    "t5": Family(
        "T5 text encoder",
        {"encoder.block.0.layer.0.SelfAttention.q.weight": (ANY, ANY)},
    ),
    "clip-text": Family(
        "CLIP text encoder",
        {"text_model.embeddings.token_embedding.weight": (ANY, ANY)},
    ),
}


def guess_family(shapes: Mapping[str, Sequence[int]]) -> str | None:
    """Return the key of `FAMILIES` that tensors of these names and shapes belong to, or None.

    Sizes do not matter beyond the number of latent channels, so that small networks of a family
    are recognised too. A common prefix before all names is allowed.

    Args:
        shapes: the shape of each tensor by its name.
    """
    return next((key for key in FAMILIES if prefixes_of(shapes, key)), None)


def prefixes_of(shapes: Mapping[str, Sequence[int]], key: str) -> list[str]:
    """Return what stands before the tensors of each network of a family in a file.

    Args:
        shapes: the shape of each tensor by its name.
        key: of the family, one of `FAMILIES`.
    """
    marks = FAMILIES[key].marks
    first = next(iter(marks))
    prefixes = [
        name.removesuffix(first) for name in shapes if name == first or name.endswith("." + first)
    ]
    return [
        prefix
        for prefix in prefixes
        if all(_matches(shapes.get(prefix + mark), wanted) for mark, wanted in marks.items())
    ]


def _matches(shape: Sequence[int] | None, wanted: tuple[int | None, ...]) -> bool:
    return (
        shape is not None
        and len(shape) == len(wanted)
        and all(want in (ANY, size) for size, want in zip(shape, wanted, strict=True))
    )
