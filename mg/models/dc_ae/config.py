"""The config of Open-Sora 2.0's Video DC-AE.

Source: github.com/hpcaitech/Open-Sora, release v2.0, after DC-AE (arXiv 2410.10733). The fields
have the names of its code; checkpoints come without a config. The defaults are those of the
published weights.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mg.known_names import check_known
from mg.latent_spec import LatentSpec
from mg.type_checks import check_types

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["PUBLISHED", "VideoDCAEConfig", "fields_of_shapes"]

PUBLISHED = "dc-ae-f32t4c128"  # the one `model_name` that stands for a structure
HEAD_WIDTH = 32  # of the linear attention: channels of a head
BLOCKS = ("ResBlock", "EViTS5_GLU")
# Fields that have one right value here.
FIXED = {"norm": "rms3d", "act": "silu", "downsample": "Conv", "upsample": "InterpolateConv"}


@dataclasses.dataclass(frozen=True)
class VideoDCAEConfig:
    """The structure of a Video DC-AE. Levels are numbered from the video's side.

    Attributes:
        in_channels: channels of the video.
        latent_channels: channels of the latent.
        width_list: channels of each level.
        encoder_depth_list, decoder_depth_list: blocks of each level.
        block_type: kind of the blocks of each level, "ResBlock" or "EViTS5_GLU" (linear
            attention).
        temporal_downsample: whether time is halved behind each level; space always is. The last
            level has nothing behind it, and false.
        scaling_factor: what a latent is divided by for a generator; None is 1.
        norm, act: normalisation and activation; fixed.
        downsample, upsample: how levels are halved and doubled; fixed.
        time_compression_ratio, spatial_compression_ratio: frames of video per frame of the latent,
            and pixels per latent pixel; both follow from the other fields.

    Raises:
        ValueError: a value that no network can be built from, with what was expected.
    """

    in_channels: int = 3
    latent_channels: int = 128
    width_list: tuple[int, ...] = (128, 256, 512, 512, 1024, 1024)
    encoder_depth_list: tuple[int, ...] = (2, 2, 2, 3, 3, 3)
    decoder_depth_list: tuple[int, ...] = (3, 3, 3, 3, 3, 3)
    block_type: tuple[str, ...] = ("ResBlock",) * 3 + ("EViTS5_GLU",) * 3
    temporal_downsample: tuple[bool, ...] = (False, False, False, True, True, False)
    scaling_factor: float | None = None

    def __post_init__(self) -> None:
        for name in _LISTS:
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        check_types(self)
        for name in ("in_channels", "latent_channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; expected 1 or more")
        if self.scaling_factor == 0:
            raise ValueError("scaling_factor=0; expected what latents are divided by, or null")
        self._check_levels()
        self._check_shortcuts()

    def _check_levels(self) -> None:
        if not self.width_list:
            raise ValueError("width_list is empty: a network needs at least one level")
        for name in _LISTS:
            values = getattr(self, name)
            if len(values) != self.num_levels:
                raise ValueError(
                    f"{name}={list(values)} has {len(values)} values; expected one for each of the "
                    f"{self.num_levels} levels of width_list"
                )
            if name in _COUNTS and min(values) < 1:
                raise ValueError(f"{name}={list(values)}; expected 1 or more at each level")
        for width, block in zip(self.width_list, self.block_type, strict=True):
            check_known([block], BLOCKS, kind="block", place="in block_type")
            if block == "EViTS5_GLU" and width % HEAD_WIDTH:
                raise ValueError(
                    f"a level of {width} channels with EViTS5_GLU; attention needs multiples of "
                    f"{HEAD_WIDTH}"
                )
        if self.temporal_downsample[-1]:
            raise ValueError(
                f"temporal_downsample={list(self.temporal_downsample)}; nothing comes behind the "
                "last level, which has false"
            )

    def _check_shortcuts(self) -> None:
        """Check that channels can be averaged and repeated in whole groups, of one frame too."""
        for level in range(self.num_levels - 1):
            above, below = self.width_list[level : level + 2]
            for volume in (4, 8) if self.temporal_downsample[level] else (4,):
                if above * volume % below:
                    raise ValueError(
                        f"width_list={list(self.width_list)}: {below} channels behind {above}; "
                        f"expected a divisor of {volume * above}"
                    )
        if self.width_list[-1] % self.latent_channels:
            raise ValueError(
                f"latent_channels={self.latent_channels}; expected a divisor of the last level's "
                f"{self.width_list[-1]} channels"
            )

    @property
    def num_levels(self) -> int:
        return len(self.width_list)

    @property
    def spec(self) -> LatentSpec:
        """The size of the latents and the scale that a generator sees them at."""
        side = 2 ** (self.num_levels - 1)
        return LatentSpec(
            self.latent_channels,
            t=2 ** sum(self.temporal_downsample),
            h=side,
            w=side,
            factor=1.0 if self.scaling_factor is None else 1.0 / self.scaling_factor,
            video_channels=self.in_channels,
        )

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "Self":
        """Return the config that a mapping describes; fields that it lacks have their defaults.

        Args:
            mapping: the fields. `model_name` alone names the published structure; compressions are
                compared with those that follow from the other fields.

        Raises:
            ValueError: an unknown field (the nearest right one is named) or a wrong value.
        """
        if isinstance(mapping, cls):
            return mapping
        stated = {key: value for key, value in mapping.items() if not key.startswith("_")}
        fields = [field.name for field in dataclasses.fields(cls)]
        derived = ("time_compression_ratio", "spatial_compression_ratio")
        known = [*fields, *FIXED, *derived, "model_name"]
        check_known(stated, known, kind="field", place="of a Video DC-AE")
        for name, right in FIXED.items():
            if stated.get(name, right) != right:
                raise ValueError(f"{name}={stated[name]!r}; supported is {right!r} alone")
        if "width_list" not in stated and stated.get("model_name", PUBLISHED) != PUBLISHED:
            raise ValueError(
                f"model_name={stated['model_name']!r} without width_list; the structure that has a "
                f"name is {PUBLISHED!r}"
            )
        config = cls(**{name: value for name, value in stated.items() if name in fields})
        for name, right in zip(derived, (config.spec.t, config.spec.h), strict=True):
            if stated.get(name, right) != right:
                raise ValueError(
                    f"{name}={stated[name]!r}, but the levels of the other fields give {right}"
                )
        return config

    def to_dict(self) -> dict[str, Any]:
        """Return plain values (lists for tuples) that JSON can hold."""
        fields = {
            **dataclasses.asdict(self),
            **FIXED,
            "time_compression_ratio": self.spec.t,
            "spatial_compression_ratio": self.spec.h,
        }
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}


def fields_of_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the fields of the config that tensors tell: all but temporal_downsample and scaling.

    Args:
        shapes: of the tensors, by name.

    Raises:
        ValueError: they are not those of a whole network.
    """
    places = {"encoder": {}, "decoder": {}}  # half -> level -> numbers in its op_list
    for name in shapes:
        match = re.match(r"(encoder|decoder)\.stages\.(\d+)\.op_list\.(\d+)\.", name)
        if match:
            places[match[1]].setdefault(int(match[2]), set()).add(int(match[3]))
    levels = sorted(places["decoder"])
    resampled = [level != levels[-1] for level in levels]  # by one more operation of the level
    try:
        blocks = [_block(shapes, level, max(places["decoder"][level])) for level in levels]
        return {
            "in_channels": shapes["encoder.project_in.conv.weight"][1],
            "latent_channels": shapes["decoder.project_in.main.conv.weight"][1],
            "width_list": [width for _, width in blocks],
            **{
                f"{half}_depth_list": [
                    len(places[half][level]) - more
                    for level, more in zip(levels, resampled, strict=True)
                ]
                for half in places
            },
            "block_type": [block for block, _ in blocks],
        }
    except (KeyError, IndexError) as error:
        raise ValueError(f"the tensors are not a whole Video DC-AE: {error} is missing") from error


def _block(shapes: Mapping[str, tuple[int, ...]], level: int, index: int) -> tuple[str, int]:
    """Return the kind and the channels of a block of the decoder."""
    block = f"decoder.stages.{level}.op_list.{index}"
    attention = f"{block}.context_module.main.qkv.conv.weight"
    if attention in shapes:
        return "EViTS5_GLU", shapes[attention][1]
    return "ResBlock", shapes[f"{block}.main.conv1.conv.weight"][1]


_LISTS = (
    "width_list",
    "encoder_depth_list",
    "decoder_depth_list",
    "block_type",
    "temporal_downsample",
)
_COUNTS = ("width_list", "encoder_depth_list", "decoder_depth_list")
