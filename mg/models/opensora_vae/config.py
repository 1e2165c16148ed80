"""What Open-Sora's temporal VAE is made of: its config.

Source: github.com/hpcaitech/Open-Sora, release v1.2; the field names are the ones that its
checkpoints' config.json uses. The defaults are those of the published weights.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from mg.known_names import check_known

__all__ = ["TemporalVAEConfig"]


@dataclasses.dataclass(frozen=True)
class TemporalVAEConfig:
    """The structure of a temporal VAE.

    Raises:
        ValueError: a value that no network can be built from, with what to change.
    """

    in_out_channels: int = 4  # channels of the spatial VAE's latent, which go in and come out
    latent_embed_dim: int = 4  # channels that the decoder takes; the encoder gives twice as many
    embed_dim: int = 4  # channels of the latent
    filters: int = 128  # channels of the first level
    num_res_blocks: int = 4  # residual blocks of each level, and of the middle
    channel_multipliers: tuple[int, ...] = (1, 2, 2, 4)  # channels of each level / filters
    temporal_downsample: tuple[bool, ...] = (False, True, True)  # halve T after each level but last
    num_groups: int = 32  # of every GroupNorm
    activation_fn: str = "swish"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            self._check_type(field.name, field.default)
        if not self.channel_multipliers:
            raise ValueError("channel_multipliers is empty: a network needs at least one level")
        if len(self.temporal_downsample) != self.num_levels - 1:
            raise ValueError(
                f"temporal_downsample={self.temporal_downsample} has "
                f"{len(self.temporal_downsample)} values; between the {self.num_levels} levels of "
                f"channel_multipliers there are {self.num_levels - 1} places"
            )
        wrong = [width for width in self.widths if width < 1 or width % self.num_groups]
        if wrong:
            raise ValueError(
                f"filters={self.filters} with channel_multipliers={self.channel_multipliers} gives "
                f"levels of {wrong} channels; GroupNorm needs multiples of "
                f"num_groups={self.num_groups}"
            )
        if self.filters % self.num_groups:
            raise ValueError(f"filters={self.filters} is no multiple of num_groups")
        if self.activation_fn != "swish":
            raise ValueError(
                f"activation_fn={self.activation_fn!r}; the published weights use 'swish', and "
                "no other is supported"
            )

    def _check_type(self, name: str, default: Any) -> None:
        value = getattr(self, name)
        if isinstance(default, tuple):
            kind = type(default[0])
            if isinstance(value, str) or not isinstance(value, Iterable):
                raise ValueError(f"{name}={value!r}; expected a list like {list(default)}")
            object.__setattr__(self, name, tuple(value))
            right = all(type(item) is kind for item in value)
        elif isinstance(default, int):
            right = type(value) is int and value >= 1
        else:
            right = isinstance(value, type(default))
        if not right:
            example = list(default) if isinstance(default, tuple) else default
            raise ValueError(f"{name}={value!r}; expected a value like {example!r}")

    @property
    def num_levels(self) -> int:
        return len(self.channel_multipliers)

    @property
    def widths(self) -> list[int]:
        """Channels of each level."""
        return [self.filters * multiple for multiple in self.channel_multipliers]

    @property
    def temporal_compression(self) -> int:
        """Frames in per frame of latent."""
        return 2 ** sum(self.temporal_downsample)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "TemporalVAEConfig":
        """Return the config that a mapping describes; fields that it lacks have their defaults.

        Raises:
            ValueError: an unknown field (the nearest right one is named) or a wrong value.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        check_known(mapping, known, kind="field", place="of the temporal VAE")
        return cls(**mapping)
