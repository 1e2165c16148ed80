"""The exercise's config."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mg.latent_spec import LatentSpec


@dataclasses.dataclass(frozen=True)
class ExerciseConfig:
    """How many channels the latent has."""

    channels: int = 6

    @property
    def spec(self) -> LatentSpec:
        return LatentSpec(self.channels, t=1, h=2, w=2, factor=0.5)

    @classmethod
    def from_mapping(cls, mapping: "Mapping[str, Any] | ExerciseConfig") -> "ExerciseConfig":
        if isinstance(mapping, cls):
            return mapping
        return cls(**{key: value for key, value in mapping.items() if not key.startswith("_")})

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
