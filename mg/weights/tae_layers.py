"""The layers of the TAE, with their tensors' names and shapes, here and in an image VAE.

One table per config says everything: which tensors a TAE of that config has (the published names,
without the dead time-embedding projections), and which tensor of the image VAE (diffusers' naming
of today; Stable Diffusion's, SDXL's, SD3.5's) each spatial weight comes from.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Layer",
    "block_volume",
    "image_vae_shapes",
    "patch_volume",
    "tae_layers",
    "tae_shapes",
]

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Layer:
    """One layer: its name in the TAE and, where it has one, in the image VAE.

    `kind` is one of
        conv2.5d       spatial convolution, then a temporal one with as many channels
        conv2d         spatial convolution
        temporal_down, temporal_up   temporal convolution of a resampler
        norm           GroupNorm
        attn_conv      1x1 convolution of the spatial attention (a Linear in the image VAE)
        dense          Linear of the temporal attention
    """

    kind: str
    name: str
    source: str | None
    in_channels: int
    out_channels: int
    kernel: int = 1

    def tae_shapes(self) -> Shapes:
        """Return {suffix: shape} of the layer's tensors in the TAE, each begun with a dot."""
        c_in, c_out, k = self.in_channels, self.out_channels, self.kernel
        if self.kind == "norm":
            return {".gamma": (c_out,), ".beta": (c_out,)}
        if self.kind == "dense":
            return {".weight": (c_out, c_in), ".bias": (c_out,)}
        if self.kind in ("temporal_down", "temporal_up"):
            return {".weight": (c_out, c_in, 1, k), ".bias": (c_out,)}
        if self.kind == "conv2.5d":
            return {
                ".conv_spat.weight": (c_out, c_in, k, k),
                ".conv_spat.bias": (c_out,),
                ".conv_temp.weight": (c_out, c_out, 1, k),
                ".conv_temp.bias": (c_out,),
            }
        return {".weight": (c_out, c_in, k, k), ".bias": (c_out,)}  # conv2d, attn_conv

    def source_shapes(self) -> Shapes:
        """Return {suffix: shape} of the layer's tensors in the image VAE ({} if it has none)."""
        if self.source is None:
            return {}
        c_in, c_out, k = self.in_channels, self.out_channels, self.kernel
        if self.kind == "norm":
            return {".weight": (c_out,), ".bias": (c_out,)}
        if self.kind == "attn_conv":
            return {".weight": (c_out, c_in), ".bias": (c_out,)}
        return {".weight": (c_out, c_in, k, k), ".bias": (c_out,)}  # conv2d, conv2.5d

    def target_suffix(self, source_suffix: str) -> str:
        """Return which suffix in the TAE the image VAE's tensor goes to."""
        if self.kind == "norm":
            return {".weight": ".gamma", ".bias": ".beta"}[source_suffix]
        return ".conv_spat" + source_suffix if self.kind == "conv2.5d" else source_suffix


def patch_volume(config: Mapping[str, Any]) -> int:
    """Return how many channels at the network's ends one channel of the video becomes."""
    return config.get("patch_size_t", 1) * config.get("patch_size", 1) ** 2


def block_volume(config: Mapping[str, Any]) -> int:
    """Return how many pixels of a video, of one channel, there are per pixel of latent."""
    levels = len(config["temporal_downsample_level"]), len(config["ch_mult"]) - 1
    return patch_volume(config) * 2 ** levels[0] * 4 ** levels[1]


def tae_layers(config: Mapping[str, Any]) -> list[Layer]:
    """Return the layers of a TAE in the order of the published checkpoint.

    Args:
        config: a mapping with the keys of `TAE_CONFIG`.
    """
    layers = [*_encoder(config), *_decoder(config)]
    z = config["z_channels"]
    moments = 2 * z if config["double_z"] else z
    if config["use_quant_conv"]:
        layers.append(Layer("conv2d", "quant_conv", "quant_conv", moments, moments))
    if config["use_post_quant_conv"]:
        layers.append(Layer("conv2d", "post_quant_conv", "post_quant_conv", z, z))
    return layers


def tae_shapes(config: Mapping[str, Any]) -> Shapes:
    """Return {name: shape} of every tensor of a TAE with this config (see `tae_layers`)."""
    return {
        layer.name + suffix: shape
        for layer in tae_layers(config)
        for suffix, shape in layer.tae_shapes().items()
    }


def image_vae_shapes(config: Mapping[str, Any]) -> Shapes:
    """Return {name: shape} of the image VAE that a TAE of this config is made from."""
    return {
        f"{layer.source}{suffix}": shape
        for layer in tae_layers(config)
        for suffix, shape in layer.source_shapes().items()
    }


def _encoder(config: Mapping[str, Any]) -> Iterator[Layer]:
    widths = [config["ch"] * mult for mult in config["ch_mult"]]
    z, last = config["z_channels"], len(widths) - 1
    channels = config["in_channels"] * patch_volume(config)
    yield _conv("encoder.conv_in", "encoder.conv_in", channels, config["ch"])
    channels = config["ch"]
    for level, width in enumerate(widths):
        down, source = f"encoder.down.{level}", f"encoder.down_blocks.{level}"
        num_blocks = config["num_res_blocks"]
        yield from _level(
            down, source, (channels, width), level=level, num_blocks=num_blocks, config=config
        )
        channels = width
        if level != last:
            name = f"{source}.downsamplers.0.conv"
            yield Layer("conv2d", f"{down}.downsample_spat.conv", name, width, width, 3)
        if level in config["temporal_downsample_level"]:
            yield Layer("temporal_down", f"{down}.downsample_temp.conv", None, width, width, 3)
    yield from _middle("encoder", channels, config)
    yield _norm("encoder.norm_out", "encoder.conv_norm_out", channels)
    moments = 2 * z if config["double_z"] else z
    yield _conv("encoder.conv_out", "encoder.conv_out", channels, moments)
    if config.get("linear_path", False):
        values = config["in_channels"] * block_volume(config)
        yield Layer("conv2d", "encoder.linear", None, values, moments)


def _decoder(config: Mapping[str, Any]) -> Iterator[Layer]:
    ch = config.get("decoder_ch") or config["ch"]
    widths = [ch * mult for mult in config["ch_mult"]]
    last = len(widths) - 1
    yield _conv("decoder.conv_in", "decoder.conv_in", config["z_channels"], widths[-1])
    yield from _middle("decoder", widths[-1], config)
    for level, width in enumerate(widths):
        # Levels count from the output side here, from the latent side in the image VAE.
        up, source = f"decoder.up.{level}", f"decoder.up_blocks.{last - level}"
        channels = widths[min(level + 1, last)]
        num_blocks = config["num_res_blocks"] + 1
        yield from _level(
            up, source, (channels, width), level=level, num_blocks=num_blocks, config=config
        )
        if level != 0:
            name = f"{source}.upsamplers.0.conv"
            yield Layer("conv2d", f"{up}.upsample_spat.conv", name, width, width, 3)
        if level in config["temporal_upsample_level"]:
            yield Layer("temporal_up", f"{up}.upsample_temp.conv", None, width, width, 3)
    yield _norm("decoder.norm_out", "decoder.conv_norm_out", widths[0])
    channels = config["out_ch"] * patch_volume(config)
    yield _conv("decoder.conv_out", "decoder.conv_out", widths[0], channels)
    if config.get("linear_path", False):
        values = config["out_ch"] * block_volume(config)
        yield Layer("conv2d", "decoder.linear", None, config["z_channels"], values)


def _level(
    name: str,
    source: str,
    widths: tuple[int, int],
    *,
    level: int,
    num_blocks: int,
    config: Mapping[str, Any],
) -> Iterator[Layer]:
    """Yield the residual blocks of a level, from widths[0] to widths[1] channels, and attention."""
    channels, width = widths
    for block in range(num_blocks):
        yield from _res_block(f"{name}.block.{block}", f"{source}.resnets.{block}", channels, width)
        channels = width
    attends = config.get("attn_resolutions", ())
    if attends and config.get("resolution", 256) // 2**level in attends:
        for block in range(num_blocks):  # the image VAE attends in its middle only
            yield from _attention(f"{name}.attn.{block}", None, width, config)


def _middle(half: str, channels: int, config: Mapping[str, Any]) -> Iterator[Layer]:
    mid, source = f"{half}.mid", f"{half}.mid_block"
    yield from _res_block(f"{mid}.block_1", f"{source}.resnets.0", channels, channels)
    yield from _attention(f"{mid}.attn_1", f"{source}.attentions.0", channels, config)
    yield from _res_block(f"{mid}.block_2", f"{source}.resnets.1", channels, channels)


def _attention(
    name: str, source: str | None, channels: int, config: Mapping[str, Any]
) -> Iterator[Layer]:
    """Yield spatial attention (1x1 convolutions), then, if there is one, temporal (Dense)."""
    yield _norm(f"{name}.0.norm", source and f"{source}.group_norm", channels)
    for part, other in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")):
        origin = source and f"{source}.{other}"
        yield Layer("attn_conv", f"{name}.0.{part}", origin, channels, channels)
    if config["attn_type"] == "spat_only":
        return
    yield _norm(f"{name}.1.norm", None, channels)
    for part in ("to_q", "to_k", "to_v", "proj_out"):
        yield Layer("dense", f"{name}.1.{part}", None, channels, channels)


def _res_block(name: str, source: str, c_in: int, c_out: int) -> Iterator[Layer]:
    yield _norm(f"{name}.norm1", f"{source}.norm1", c_in)
    yield _conv(f"{name}.conv1", f"{source}.conv1", c_in, c_out)
    yield _norm(f"{name}.norm2", f"{source}.norm2", c_out)
    yield _conv(f"{name}.conv2", f"{source}.conv2", c_out, c_out)
    if c_in != c_out:
        shortcut = f"{source}.conv_shortcut"
        yield Layer("conv2.5d", f"{name}.nin_shortcut", shortcut, c_in, c_out, 1)


def _conv(name: str, source: str, c_in: int, c_out: int) -> Layer:
    return Layer("conv2.5d", name, source, c_in, c_out, 3)


def _norm(name: str, source: str | None, channels: int) -> Layer:
    return Layer("norm", name, source, channels, channels)
