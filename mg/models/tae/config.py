"""What a Temporal Autoencoder is made of: its config, checked on creation.

Source of the defaults: Movie Gen (arXiv 2410.13720) section 3.1.1 on the layout of the SD3.5
image VAE.
"""

import dataclasses
from collections.abc import Mapping

from mg.known_names import check_known
from mg.latent_spec import LatentSpec
from mg.size_limits import (
    MAX_LAYERS,
    MAX_WIDTH,
    check_num_parameters,
    check_sizes,
)
from mg.type_checks import check_structure

__all__ = ["TAE_CONFIG", "TEMPORAL_LAYERS", "TAEConfig"]

MAX_FACTOR = 1e9  # of scaling_factor and shift_factor; infinity and NaN are beyond it too
MAX_LEVELS = 16  # each halves height and width
TEMPORAL_LEVELS = ("temporal_downsample_level", "temporal_upsample_level")
CHANNEL_FIELDS = ("z_channels", "in_channels", "out_ch", "ch", "ch_mult")

# Patterns of the names of the parameters that work along time; an image VAE has none of them.
TEMPORAL_LAYERS = (
    "*.conv_temp.*",
    "*.downsample_temp.*",
    "*.upsample_temp.*",
    "*.attn_1.1.*",
    "*.attn.*.1.*",
)


@dataclasses.dataclass(frozen=True)
class TAEConfig:
    """The structure of a TAE; all fields are honoured by the network.

    Raises:
        ValueError: a value that no network can be built from, with what to change.
    """

    double_z: bool = True  # the encoder gives mean and logvar, not the mean alone
    z_channels: int = 16  # channels of the latent
    resolution: int = 256  # nominal size; with attn_resolutions it says which levels attend
    in_channels: int = 3  # channels of the video going in
    out_ch: int = 3  # channels of the video coming out
    ch: int = 128  # channels of the first level
    ch_mult: tuple[int, ...] = (1, 2, 4, 4)  # channels of each level, as a multiple of `ch`
    num_res_blocks: int = 2  # residual blocks of an encoder level (a decoder level has one more)
    attn_resolutions: tuple[int, ...] = ()  # nominal resolutions whose blocks attend
    dropout: float = 0.0  # dropout rate inside the residual blocks, while training
    # A generator sees scaling_factor * z + shift_factor, whatever weights the TAE started from.
    scaling_factor: float = 1.5305
    shift_factor: float = 0.0609  # what is added to a scaled latent, see scaling_factor
    use_post_quant_conv: bool = False  # 1x1 convolution before the decoder
    use_quant_conv: bool = False  # 1x1 convolution after the encoder
    attn_type: str = "vanilla"  # "vanilla": spatial, then temporal attention; "spat_only"
    temporal_downsample_level: tuple[int, ...] = (0, 1, 2)  # encoder levels that halve T
    temporal_upsample_level: tuple[int, ...] = (3, 2, 1)  # decoder levels that double T
    # What the decoder's layers that double T see past the ends of a clip. "published": zeros, as
    # the public MindSpore weights were trained. "replicate": the first and the last frame again, as
    # in the paper. All other temporal layers repeat the end frames either way.
    temporal_padding: str = "published"
    # Groups of every GroupNorm. With as many groups as channels it would normalise each channel
    # by itself and erase a clip's mean colour; narrow networks need fewer groups.
    norm_groups: int = 32
    # Whether each frame is normalised by its own statistics, instead of a clip by those of all its
    # frames. So an image VAE's weights act on every frame of a moving clip as they do on an image.
    norm_per_frame: bool = False
    # Ours, 1 in the paper: blocks of so many pixels a side, and of so many frames, are moved into
    # the channels before the first convolution and back after the last. It trades resolution for
    # channels where compute is scarce; T is completed to whole blocks by repeating the last frame.
    patch_size: int = 1
    patch_size_t: int = 1  # frames of such a block, see patch_size
    # Ours: what the layers give is added to a linear map of each block of pixels and frames that
    # becomes one pixel of latent, and of each pixel of latent back to its block. A run begins
    # with the best such maps, the principal components of its clips; the layers then learn what
    # these leave over.
    linear_path: bool = False
    # Ours: what the decoder has in place of `ch`, where it is smaller than the encoder.
    decoder_ch: int | None = None

    def __post_init__(self) -> None:
        self._check_factors()
        check_structure(self, any_whole=("ch_mult", "attn_resolutions", *TEMPORAL_LEVELS))
        if not self.ch_mult:
            raise ValueError("ch_mult is empty: a network needs at least one level")
        self._check_sizes()
        if self.decoder_ch == self.ch:
            object.__setattr__(self, "decoder_ch", None)
        for name in ("ch",) if self.decoder_ch is None else ("ch", "decoder_ch"):
            self._check_widths(name)
        if self.attn_type not in ("vanilla", "spat_only"):
            raise ValueError(f"attn_type={self.attn_type!r}; expected 'vanilla' or 'spat_only'")
        if self.temporal_padding not in ("published", "replicate"):
            raise ValueError(
                f"temporal_padding={self.temporal_padding!r}; expected 'published' or 'replicate'"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout={self.dropout}; expected 0 <= dropout < 1")
        unused = [r for r in self.attn_resolutions if r not in self._level_resolutions()]
        if unused:
            raise ValueError(
                f"attn_resolutions={self.attn_resolutions}: no level has the resolution {unused}; "
                f"with resolution={self.resolution} they have {self._level_resolutions()}"
            )
        if self.scaling_factor == 0:
            raise ValueError("scaling_factor=0 would erase the latent; SD3.5 uses 1.5305")
        self._check_temporal_levels()

    def _check_widths(self, name: str) -> None:
        ch = getattr(self, name)
        widths = [multiple * ch for multiple in (1, *self.ch_mult)]
        wrong = [width for width in widths if width < 1 or width % self.norm_groups]
        if wrong:
            raise ValueError(
                f"{name}={ch} with ch_mult={self.ch_mult} gives levels of {wrong} channels; "
                f"GroupNorm needs multiples of norm_groups={self.norm_groups}"
            )

    def _check_factors(self) -> None:
        for name in ("scaling_factor", "shift_factor"):
            value = getattr(self, name)
            if isinstance(value, int | float) and not abs(value) < MAX_FACTOR:
                raise ValueError(f"{name}={value!r}; expected a number within {MAX_FACTOR:g}")

    def _check_sizes(self) -> None:
        if self.num_levels > MAX_LEVELS:
            raise ValueError(
                f"ch_mult has {self.num_levels} levels; at most {MAX_LEVELS} are taken"
            )
        check_sizes(self, dict.fromkeys((*CHANNEL_FIELDS, "decoder_width"), MAX_WIDTH))
        check_sizes(self, {"num_res_blocks": MAX_LAYERS})
        # Two convolutions per block, of 3x3 and 3 weights, in encoder and decoder.
        squares = sum((m * max(self.ch, self.decoder_width)) ** 2 for m in self.ch_mult)
        check_num_parameters(2 * 2 * (9 + 3) * self.num_res_blocks * squares)

    def _check_temporal_levels(self) -> None:
        levels = range(self.num_levels)
        for field in TEMPORAL_LEVELS:
            value = getattr(self, field)
            if len(set(value)) != len(value) or any(level not in levels for level in value):
                raise ValueError(
                    f"{field}={value}: expected different levels of 0..{self.num_levels - 1}"
                )
        if len(self.temporal_downsample_level) != len(self.temporal_upsample_level):
            raise ValueError(
                f"temporal_downsample_level={self.temporal_downsample_level} and "
                f"temporal_upsample_level={self.temporal_upsample_level} differ in length: the "
                "decoder would not give back as many frames as the encoder took"
            )

    def _level_resolutions(self) -> list[int]:
        return [self.resolution // 2**level for level in range(self.num_levels)]

    @property
    def num_levels(self) -> int:
        return len(self.ch_mult)

    @property
    def decoder_width(self) -> int:
        """Channels of the decoder's last level."""
        return self.ch if self.decoder_ch is None else self.decoder_ch

    @property
    def temporal_compression(self) -> int:
        """Frames of video per frame of latent."""
        return self.patch_size_t * 2 ** len(self.temporal_downsample_level)

    @property
    def spatial_compression(self) -> int:
        """Pixels per latent pixel, along height and along width."""
        return self.patch_size * 2 ** (self.num_levels - 1)

    @property
    def patch_volume(self) -> int:
        """Pixels that each channel of the video becomes as many channels of."""
        return self.patch_size_t * self.patch_size**2

    @property
    def block_volume(self) -> int:
        """Pixels of a video, of one channel, per pixel of latent."""
        return self.temporal_compression * self.spatial_compression**2

    @property
    def spec(self) -> LatentSpec:
        """The size of the latents and the scale that a generator sees them at."""
        side = self.spatial_compression
        return LatentSpec(
            channels=self.z_channels,
            t=self.temporal_compression,
            h=side,
            w=side,
            factor=self.scaling_factor,
            offset=self.shift_factor,
            video_channels=self.in_channels,
        )

    @classmethod
    def from_mapping(cls, mapping: "Mapping | TAEConfig") -> "TAEConfig":
        """Return the config that a mapping with the keys of `TAE_CONFIG` describes.

        Raises:
            ValueError: an unknown key (the nearest right one is named) or a wrong value.
        """
        if isinstance(mapping, cls):
            return mapping
        known = [field.name for field in dataclasses.fields(cls)]
        check_known(mapping, known, kind="key", place="in the TAE config")
        return cls(**mapping)

    def to_dict(self) -> dict:
        """Return plain values (lists for tuples) that YAML and JSON can hold."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
        }


# The full-size network as a plain mapping, with the keys that users know.
TAE_CONFIG = TAEConfig().to_dict()
