"""What the configs of diffusers' autoencoders have in common: fields of a config.json, checked."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from mg.latent_spec import LatentSpec, diffusers_scaling
from mg.type_checks import check_structure

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["DiffusersConfig", "known_fields"]

logger = logging.getLogger("mg")


def known_fields(
    mapping: Mapping[str, Any],
    config_class: type,
    *,
    fixed: Mapping[str, Sequence[Any]],
    ignored: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the fields of a config.json that a config has; others are warned about.

    Args:
        mapping: the fields; those that begin with an underscore only say who wrote them.
        config_class: a dataclass with the fields that count.
        fixed: others that are accepted, with the values that are implemented.
        ignored: others that say nothing about the network.

    Raises:
        ValueError: another value of a fixed field.
    """
    for name, allowed in fixed.items():
        stated = mapping.get(name, allowed[0])
        if (list(stated) if isinstance(stated, tuple) else stated) not in allowed:
            expected = " or ".join(map(repr, allowed))
            raise ValueError(f"{name}={stated!r}; supported is {expected} alone")
    known = {field.name for field in dataclasses.fields(config_class)}
    unknown = [
        name
        for name in mapping
        if name not in known and name not in (*fixed, *ignored) and not name.startswith("_")
    ]
    if unknown:
        logger.warning("fields of the config without a meaning here: %s", ", ".join(unknown))
    return {name: value for name, value in mapping.items() if name in known}


@dataclasses.dataclass(frozen=True)
class DiffusersConfig:
    """Base of the configs: fields with the names and defaults of the class in diffusers.

    Subclasses state in `FIXED` which fields have one right value here, and in `IGNORED` those that
    say nothing about the network.

    Attributes:
        in_channels: channels of the video that goes in.
        out_channels: channels of the video that comes out.
        latent_channels: channels of the latent.
        block_out_channels: channels of each level, from the video's side.
        layers_per_block: residual blocks of each level of the encoder; the decoder has one more.
        norm_num_groups: groups of every GroupNorm.
        scaling_factor: what a latent is multiplied by for a generator.

    Raises:
        ValueError: a value that no network can be built from, with what was expected.
    """

    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    IGNORED: ClassVar[tuple[str, ...]] = ()
    DOWN: ClassVar[str] = ""  # the one type of block that the encoder's levels may have
    UP: ClassVar[str] = ""  # and the decoder's

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    scaling_factor: float = 1.0

    def __post_init__(self) -> None:
        check_structure(self)
        wrong = [width for width in self.block_out_channels if width % self.norm_num_groups]
        if wrong or not self.block_out_channels:
            raise ValueError(
                f"block_out_channels={list(self.block_out_channels)}; expected multiples of "
                f"norm_num_groups={self.norm_num_groups}, one for each level"
            )

    @property
    def num_levels(self) -> int:
        return len(self.block_out_channels)

    @property
    def frame_rule(self) -> dict[str, int]:
        """The fields of a `LatentSpec` about frames; an image network codes each by itself."""
        return {"t": 1}

    @property
    def spec(self) -> LatentSpec:
        """The size of the latents and the scale that a generator sees them at."""
        side = 2 ** (self.num_levels - 1)
        return LatentSpec(
            self.latent_channels,
            h=side,
            w=side,
            video_channels=self.in_channels,
            **self.frame_rule,
            **diffusers_scaling(dataclasses.asdict(self)),
        )

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
        cls._check_blocks(mapping)
        meaningless = (*cls.IGNORED, "down_block_types", "up_block_types")
        return cls(**known_fields(mapping, cls, fixed=cls.FIXED, ignored=meaningless))

    @classmethod
    def _check_blocks(cls, mapping: Mapping[str, Any]) -> None:
        widths = mapping.get("block_out_channels", cls.block_out_channels)
        if not isinstance(widths, list | tuple):
            raise ValueError(f"block_out_channels={widths!r}; expected a list of whole numbers")
        levels = len(widths)
        for field, block in (("down_block_types", cls.DOWN), ("up_block_types", cls.UP)):
            blocks = mapping.get(field)
            if blocks is not None and list(blocks) != [block] * levels:
                raise ValueError(f"{field}={list(blocks)}; expected {levels} times {block!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values (lists for tuples) that JSON can hold."""
        fields = {
            "down_block_types": [self.DOWN] * self.num_levels,
            "up_block_types": [self.UP] * self.num_levels,
            **{name: allowed[0] for name, allowed in self.FIXED.items()},
            **dataclasses.asdict(self),
        }
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}
