"""The config of Open-Sora-Plan's `CausalVAEModel`, v1.0 to v1.2, under its own field names.

A config.json names the module at each place of the network. Names are looked up in the tables
below; nothing is imported by them.
"""

import dataclasses
import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mg.known_names import check_known
from mg.latent_spec import LatentSpec
from mg.models.diffusers_config import known_fields
from mg.type_checks import check_types

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["DOWNSAMPLERS", "UPSAMPLERS", "CausalVAEConfig"]

logger = logging.getLogger("mg")

CONVOLUTIONS = ("CausalConv3d", "Conv2d")
RESNET_BLOCKS = ("ResnetBlock3D", "ResnetBlock2D")
ATTENTIONS = ("AttnBlock3D", "AttnBlock3DFix", "AttnBlock", "TemporalAttnBlock")
# Module -> factors in time and in space; "" stands for none.
DOWNSAMPLERS = {
    "": (1, 1),
    "Downsample": (1, 2),
    "SpatialDownsample2x": (1, 2),
    "Spatial2x3DDownsample": (1, 2),
    "Spatial2xTime2x3DDownsample": (2, 2),
    "TimeDownsample2x": (2, 1),
    "TimeDownsampleRes2x": (2, 1),
    "TimeDownsampleResAdv2x": (2, 1),
}
UPSAMPLERS = {
    "": (1, 1),
    "Upsample": (1, 2),
    "SpatialUpsample2x": (1, 2),
    "Spatial2x3DUpsample": (1, 2),
    "Spatial2xTime2x3DUpsample": (2, 2),
    "TimeUpsample2x": (2, 1),
    "TimeUpsampleRes2x": (2, 1),
    "TimeUpsampleResAdv2x": (2, 1),
}
# Field -> the names that it may have.
MODULES = {
    "q_conv": CONVOLUTIONS,
    "encoder_conv_in": CONVOLUTIONS,
    "encoder_conv_out": CONVOLUTIONS,
    "encoder_attention": ATTENTIONS,
    "encoder_resnet_blocks": RESNET_BLOCKS,
    "encoder_spatial_downsample": tuple(DOWNSAMPLERS),
    "encoder_temporal_downsample": tuple(DOWNSAMPLERS),
    "encoder_mid_resnet": RESNET_BLOCKS,
    "decoder_conv_in": CONVOLUTIONS,
    "decoder_conv_out": CONVOLUTIONS,
    "decoder_attention": ATTENTIONS,
    "decoder_resnet_blocks": RESNET_BLOCKS,
    "decoder_spatial_upsample": tuple(UPSAMPLERS),
    "decoder_temporal_upsample": tuple(UPSAMPLERS),
    "decoder_mid_resnet": RESNET_BLOCKS,
}
# Losses that a config may name by their last part; what stands before it is a package.
LOSSES = ("LPIPSWithDiscriminator", "LPIPSWithDiscriminator3D", "SimpleLPIPS")
# Modules with this suffix are the same ones, computed again in the backward pass.
RECOMPUTED = "_GC"
# Fields with one right value here.
FIXED = {"double_z": (True,), "dropout": (0.0,), "in_channels": (3,), "out_channels": (3,)}

Factors = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class CausalVAEConfig:
    """The structure of a CausalVideoVAE; the defaults are those of `CausalVAEModel`.

    Three fields are of training: `loss_type`, `loss_params`, `lr`. Two are ours:
    `norm_num_groups`, which is 32 there, and `scaling_factor`, which there stands in the
    generator's code.

    Attributes:
        hidden_size: channels of the first level.
        z_channels: channels that come out of the encoder for the mean alone.
        hidden_size_mult: channels of each level, as a multiple of `hidden_size`.
        attn_resolutions: resolutions whose levels attend, counted from `resolution`.
        resolution: nominal size of a video, with which `attn_resolutions` are compared.
        embed_dim: channels of the latent.
        num_res_blocks: residual blocks of each level of the encoder; the decoder has one more.
        q_conv: module of the 1x1 convolutions around the latent.
        encoder_conv_in, decoder_conv_in: module of the first convolution.
        encoder_conv_out, decoder_conv_out: module of the last convolution.
        encoder_attention, decoder_attention: module of the attention.
        encoder_resnet_blocks, decoder_resnet_blocks: module of the residual blocks of each level.
        encoder_mid_resnet, decoder_mid_resnet: module of the residual blocks of the middle.
        encoder_spatial_downsample, encoder_temporal_downsample: module behind each level of the
            encoder that halves space or time; empty for none.
        decoder_spatial_upsample, decoder_temporal_upsample: module behind each level of the
            decoder that doubles space or time; empty for none.
        use_quant_layer: whether there are 1x1 convolutions around the latent.
        loss_type, loss_params: the loss of the training that the config is from.
        lr: the learning rate of the training that the config is from.
        norm_num_groups: groups of every GroupNorm.
        scaling_factor: what a latent is multiplied by for a generator.
        double_z: whether the encoder gives mean and logvar; fixed.
        dropout: dropout rate; fixed.
        in_channels, out_channels: channels of the video; fixed.

    Raises:
        ValueError: a value that no network can be built from, with what was expected.
    """

    hidden_size: int = 128
    z_channels: int = 4
    hidden_size_mult: tuple[int, ...] = (1, 2, 4, 4)
    attn_resolutions: tuple[int, ...] = ()
    resolution: int = 256
    embed_dim: int = 4
    num_res_blocks: int = 2
    q_conv: str = "CausalConv3d"
    encoder_conv_in: str = "CausalConv3d"
    encoder_conv_out: str = "CausalConv3d"
    encoder_attention: str = "AttnBlock3D"
    encoder_resnet_blocks: tuple[str, ...] = ("ResnetBlock3D",) * 4
    encoder_spatial_downsample: tuple[str, ...] = (*("SpatialDownsample2x",) * 3, "")
    encoder_temporal_downsample: tuple[str, ...] = ("", *("TimeDownsample2x",) * 2, "")
    encoder_mid_resnet: str = "ResnetBlock3D"
    decoder_conv_in: str = "CausalConv3d"
    decoder_conv_out: str = "CausalConv3d"
    decoder_attention: str = "AttnBlock3D"
    decoder_resnet_blocks: tuple[str, ...] = ("ResnetBlock3D",) * 4
    decoder_spatial_upsample: tuple[str, ...] = ("", *("SpatialUpsample2x",) * 3)
    decoder_temporal_upsample: tuple[str, ...] = ("", "", *("TimeUpsample2x",) * 2)
    decoder_mid_resnet: str = "ResnetBlock3D"
    use_quant_layer: bool = True
    loss_type: str = ""
    loss_params: dict[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    lr: float = 1e-5
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215

    def __post_init__(self) -> None:
        check_types(self)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
            sizes = value if isinstance(value, list | tuple) else (value,)
            if any(type(size) is int and size < 1 for size in sizes):
                raise ValueError(f"{field.name}={value}; expected whole numbers of 1 or more")
        self._check_modules()
        self._check_widths()
        down, up = _product(*self.downsampling), _product(*self.upsampling)
        if down != up:
            raise ValueError(
                f"the encoder shrinks time and space by {down}, the decoder grows them by {up}; "
                "expected the same (samplers of the encoder's last level are not used)"
            )

    def _check_modules(self) -> None:
        for name, known in MODULES.items():
            value = getattr(self, name)
            if isinstance(value, str):
                value = value.removesuffix(RECOMPUTED)
                check_known([value], known, kind="module", place=f"in {name}")
            else:
                value = tuple(item.removesuffix(RECOMPUTED) for item in value)
                check_known(value, known, kind="module", place=f"in {name}")
                if len(value) != self.num_levels:
                    raise ValueError(
                        f"{name} has {len(value)} entries; expected {self.num_levels}, one for "
                        "each level of hidden_size_mult"
                    )
            object.__setattr__(self, name, value)

    def _check_widths(self) -> None:
        wrong = [width for width in self.widths if width % self.norm_num_groups]
        if wrong or not self.widths:
            raise ValueError(
                f"hidden_size={self.hidden_size} with hidden_size_mult="
                f"{list(self.hidden_size_mult)} gives levels of {self.widths} channels; expected "
                f"one or more, multiples of norm_num_groups={self.norm_num_groups}"
            )

    @property
    def num_levels(self) -> int:
        return len(self.hidden_size_mult)

    @property
    def widths(self) -> list[int]:
        """Channels of each level."""
        return [self.hidden_size * multiple for multiple in self.hidden_size_mult]

    @property
    def downsampling(self) -> tuple[Factors, ...]:
        """Factors in time and in space of each level of the encoder; the last one does nothing."""
        pairs = zip(self.encoder_spatial_downsample, self.encoder_temporal_downsample, strict=True)
        factors = [_product(DOWNSAMPLERS[a], DOWNSAMPLERS[b]) for a, b in pairs]
        return (*factors[:-1], (1, 1))

    @property
    def upsampling(self) -> tuple[Factors, ...]:
        """The same of the decoder."""
        pairs = zip(self.decoder_spatial_upsample, self.decoder_temporal_upsample, strict=True)
        return tuple(_product(UPSAMPLERS[a], UPSAMPLERS[b]) for a, b in pairs)

    @property
    def attends(self) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
        """Whether each level of the encoder and of the decoder attends after its blocks."""
        side, encoder = self.resolution, []
        for sampler in self.encoder_spatial_downsample:
            encoder.append(side in self.attn_resolutions)
            side = side // 2 if sampler else side
        side, decoder = self.resolution // 2 ** (self.num_levels - 1), []
        for sampler in self.decoder_spatial_upsample[::-1]:
            decoder.append(side in self.attn_resolutions)
            side = side * 2 if sampler else side
        return tuple(encoder), tuple(decoder[::-1])

    @property
    def latent_channels(self) -> int:
        return self.embed_dim if self.use_quant_layer else self.z_channels

    @property
    def spec(self) -> LatentSpec:
        """The size of the latents and the scale that a generator sees them at."""
        time, side = _product(*self.downsampling)
        return LatentSpec(
            self.latent_channels,
            t=time,
            h=side,
            w=side,
            head=1,
            step=time,
            factor=self.scaling_factor,
        )

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "Self":
        """Return the config that the fields of a config.json describe.

        Fields that it lacks have their defaults. Unknown ones are warned about and ignored, as the
        original class does; so is a loss without a counterpart here, which only training needs.

        Args:
            mapping: the fields.

        Raises:
            ValueError: a wrong value, or one for which there is no network here.
        """
        if isinstance(mapping, cls):
            return mapping
        fields = known_fields(mapping, cls, fixed=FIXED)
        loss = fields.get("loss_type", "")
        if isinstance(loss, str) and loss and loss.rpartition(".")[2] not in LOSSES:
            logger.warning("loss_type=%s is not known here, but %s are", loss, ", ".join(LOSSES))
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values (lists for tuples) that JSON can hold."""
        fields = {"double_z": True, "dropout": 0.0, **dataclasses.asdict(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}


def _product(*factors: Factors) -> Factors:
    return math.prod(time for time, _ in factors), math.prod(space for _, space in factors)
