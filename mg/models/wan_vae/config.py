"""The config of diffusers' `AutoencoderKLWan`, under its own field names."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from mg.latent_spec import LatentSpec, diffusers_scaling
from mg.models.diffusers_config import known_fields
from mg.type_checks import check_structure
from mg.weights.wan_names import wan_config_fields

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["WAN21_STATISTICS", "WAN22_STATISTICS", "WanVAEConfig"]

# Mean and standard deviation of each channel of the published networks' latents.
WAN21_STATISTICS = {
    "latents_mean": (
        *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
        *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
    ),
    "latents_std": (
        *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
        *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.916),
    ),
}
WAN22_STATISTICS = {
    "latents_mean": (
        *(-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557),
        *(-0.1382, 0.0542, 0.2813, 0.0891, 0.157, -0.0098, 0.0375, -0.1825),
        *(-0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502),
        *(-0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.123),
        *(-0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.052, 0.3748),
        *(0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667),
    ),
    "latents_std": (
        *(0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.499, 0.4818, 0.5013),
        *(0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978),
        *(0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659),
        *(0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093),
        *(0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887),
        *(0.3971, 1.06, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744),
    ),
}


@dataclasses.dataclass(frozen=True)
class WanVAEConfig:
    """The structure of a Wan VAE; the defaults are Wan 2.1's.

    Attributes:
        base_dim: channels that `dim_mult` multiplies.
        decoder_base_dim: the same in the decoder; None takes `base_dim`.
        z_dim: channels of the latent.
        dim_mult: channels of each level of the encoder, as a multiple of `base_dim`; between
            levels height and width are halved.
        num_res_blocks: residual blocks of each level of the encoder; the decoder has one more.
        temperal_downsample: (so spelt) whether time is halved between levels, too.
        latents_mean, latents_std: mean and deviation of each channel of the latent, to scale it
            for a generator; None leaves it as it is.
        is_residual: whether levels have shortcuts without parameters, as in Wan 2.2.
        patch_size: side of the squares of pixels that are taken as channels; None takes pixels.
        in_channels, out_channels: channels of the patches, 3 * patch_size^2.
        clip_output: whether decoded frames are clipped to [-1, 1], as diffusers does; not while
            training, where clipped ones would have no gradient.
        attn_scales: resolutions whose levels attend; fixed, none.
        dropout: dropout rate; fixed.
        scale_factor_temporal, scale_factor_spatial: frames of video per frame of the latent, and
            pixels per latent pixel; both follow from the other fields.

    Raises:
        ValueError: a value that no network can be built from, with what was expected.
    """

    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {"attn_scales": ([],), "dropout": (0,)}
    # Said by the structure.
    IGNORED: ClassVar[tuple[str, ...]] = ("scale_factor_temporal", "scale_factor_spatial")

    base_dim: int = 96
    decoder_base_dim: int | None = None
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    temperal_downsample: tuple[bool, ...] = (False, True, True)
    latents_mean: tuple[float, ...] | None = WAN21_STATISTICS["latents_mean"]
    latents_std: tuple[float, ...] | None = WAN21_STATISTICS["latents_std"]
    is_residual: bool = False
    in_channels: int = 3
    out_channels: int = 3
    patch_size: int | None = None
    clip_output: bool = False

    def __post_init__(self) -> None:
        check_structure(self)
        if not self.dim_mult:
            raise ValueError("dim_mult=[]; expected one whole number for each level")
        for name in ("in_channels", "out_channels"):
            channels = 3 * self.patch**2
            # Some configs count the channels before pixels are taken together.
            if getattr(self, name) not in (3, channels):
                raise ValueError(
                    f"{name}={getattr(self, name)}; videos of 3 channels with "
                    f"patch_size={self.patch_size} have {channels}"
                )
            object.__setattr__(self, name, channels)
        if len(self.temperal_downsample) != self.num_levels - 1 or self.num_time_levels > 2:
            raise ValueError(
                f"temperal_downsample={list(self.temperal_downsample)}; expected "
                f"{self.num_levels - 1} values, one between each two levels of dim_mult, of which "
                "at most two are true"
            )
        for name in ("latents_mean", "latents_std"):
            values = getattr(self, name)
            if values is not None and len(values) != self.z_dim:
                raise ValueError(
                    f"{name} has {len(values)} values; expected one for each of the z_dim="
                    f"{self.z_dim} channels, or null for latents that are not scaled"
                )
        if self.is_residual:
            self._check_shortcuts()
        elif min(self.decoder_widths[1:-1], default=2) < 2:
            raise ValueError(
                f"decoder_base_dim={self.decoder_base_dim}, base_dim={self.base_dim}: each level "
                "halves its channels, and must have 2 or more"
            )
        _ = self.spec  # checks the statistics

    def _check_shortcuts(self) -> None:
        """Raise ValueError unless the shortcuts can average and repeat whole channels."""
        for widths, encodes in ((self.encoder_widths, True), (self.decoder_widths, False)):
            for level in range(self.num_levels - (not encodes)):
                before, behind = widths[level : level + 2]
                time, space = self.resampling(level, encodes=encodes)
                wide, narrow = (before, behind) if encodes else (behind, before)
                if wide * time * space**2 % narrow:
                    raise ValueError(
                        f"dim_mult={list(self.dim_mult)}: the shortcut from {before} to {behind} "
                        "channels cannot take whole channels together"
                    )

    @property
    def patch(self) -> int:
        """Pixels per side of a patch."""
        return self.patch_size or 1

    @property
    def num_levels(self) -> int:
        return len(self.dim_mult)

    @property
    def num_time_levels(self) -> int:
        return sum(self.temperal_downsample)

    @property
    def encoder_widths(self) -> tuple[int, ...]:
        """Channels in front of the first level, and behind each."""
        return tuple(self.base_dim * factor for factor in (1, *self.dim_mult))

    @property
    def decoder_widths(self) -> tuple[int, ...]:
        """Channels in front of the decoder's first level, and of the blocks of each."""
        base = self.decoder_base_dim or self.base_dim
        return tuple(base * factor for factor in (self.dim_mult[-1], *self.dim_mult[::-1]))

    def resampling(self, level: int, *, encodes: bool) -> tuple[int, int]:
        """Return the factors in time and in space behind a level of the encoder or the decoder."""
        if level == self.num_levels - 1:
            return 1, 1
        order = self.temperal_downsample if encodes else self.temperal_downsample[::-1]
        return 2 if order[level] else 1, 2

    @property
    def spec(self) -> LatentSpec:
        """The size of the latents and the scale that a generator sees them at."""
        time, side = 2**self.num_time_levels, 2 ** (self.num_levels - 1) * self.patch
        statistics = {"latents_mean": self.latents_mean, "latents_std": self.latents_std}
        scaling = diffusers_scaling(statistics)
        return LatentSpec(self.z_dim, t=time, h=side, w=side, head=1, step=time, **scaling)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "Self":
        """Return the config that the fields of a config.json describe.

        Fields that it lacks have their defaults; unknown ones are warned about and ignored, as in
        diffusers.

        Args:
            mapping: the fields.

        Raises:
            ValueError: a wrong value, or one for which there is no network here.
        """
        if isinstance(mapping, cls):
            return mapping
        return cls(**known_fields(mapping, cls, fixed=cls.FIXED, ignored=cls.IGNORED))

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, tuple[int, ...]]) -> "Self":
        """Return the config of weights without one; the latents' statistics are assumed.

        They are the published ones of networks with as many channels; there are none for others.

        Args:
            shapes: of all tensors, by diffusers' names.

        Raises:
            ValueError: the tensors are not those of a whole Wan VAE.
        """
        fields = wan_config_fields(shapes)
        published = {16: WAN21_STATISTICS, 48: WAN22_STATISTICS}
        unscaled = {"latents_mean": None, "latents_std": None}
        return cls(**fields, **published.get(fields["z_dim"], unscaled))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values (lists for tuples) that JSON can hold, all that diffusers writes.

        `clip_output`, which diffusers' class does not have, is there if it is true.
        """
        fields = {
            **{name: allowed[0] for name, allowed in self.FIXED.items()},
            **dataclasses.asdict(self),
            "scale_factor_temporal": self.spec.t,
            "scale_factor_spatial": self.spec.h,
        }
        if not self.clip_output:
            del fields["clip_output"]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}
