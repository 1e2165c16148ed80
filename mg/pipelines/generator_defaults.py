"""What a generator does where a call leaves it open."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["DROPPABLE", "SCHEDULES", "GeneratorDefaults", "dropped_conditions"]

SCHEDULES = ("linear_quadratic", "linear", "published")
DROPPABLE = ("text", "source", "frames")


def dropped_conditions(guidance_drops: str) -> tuple[str, ...]:
    """Return the names in `guidance_drops`, which have commas between them.

    Raises:
        ValueError: none, or one that is not in `DROPPABLE`.
    """
    names = tuple(name.strip() for name in guidance_drops.split(",") if name.strip())
    if not names or set(names) - set(DROPPABLE):
        raise ValueError(
            f"guidance_drops={guidance_drops!r}; expected some of {', '.join(DROPPABLE)}, with "
            "commas between them"
        )
    return names


@dataclasses.dataclass(frozen=True)
class GeneratorDefaults:
    """What a generator does where a request does not say otherwise: best what it was trained on.

    Attributes:
        num_frames: of a video.
        size: (height, width) in pixels.
        fps: frames per second of the videos that it was trained on.
        guidance: weight of the text; 1 turns classifier-free guidance off.
        steps: steps of the sampler.
        fps_prefix: whether its captions had the frame rate in front
            (`mg.conditions.text.prompts.with_fps`).
        schedule: of the steps, one of `SCHEDULES`.
        embedded_guidance: whether the weight of guidance is an input of the network, which then
            runs once per step, without a second branch (HunyuanVideo).
        guidance_drops: what the second branch of guidance is without: some of `DROPPABLE`, with
            commas.
    """

    num_frames: int
    size: tuple[int, int]
    fps: float
    guidance: float = 7.5
    steps: int = 50
    fps_prefix: bool = False
    schedule: str = "linear_quadratic"
    embedded_guidance: bool = False
    guidance_drops: str = "text"

    def __post_init__(self) -> None:
        size = self.size
        if isinstance(size, str) or not isinstance(size, Sequence) or len(size) != 2:
            raise ValueError(f"size={size!r}; expected (height, width) in pixels")
        object.__setattr__(self, "size", tuple(size))
        whole = {"num_frames": self.num_frames, "steps": self.steps}
        whole |= {"height": self.size[0], "width": self.size[1]}
        for name, value in whole.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}={value!r}; expected a whole number of 1 or more")
        for name, least in (("fps", 0.5), ("guidance", 0)):
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value) or value < least:
                raise ValueError(f"{name}={value!r}; expected a number of {least} or more")
        for name in ("fps_prefix", "embedded_guidance"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r}; expected true or false")
        if not isinstance(self.guidance_drops, str):
            raise ValueError(f"guidance_drops={self.guidance_drops!r}; expected names with commas")
        dropped_conditions(self.guidance_drops)
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule={self.schedule!r}; expected one of {', '.join(SCHEDULES)}")

    @classmethod
    def from_mapping(cls, mapping: "Mapping[str, Any] | GeneratorDefaults") -> "GeneratorDefaults":
        """Return the defaults that a mapping with the fields' names states.

        Raises:
            ValueError: an unknown key, a missing one, or a wrong value.
        """
        if isinstance(mapping, cls):
            return mapping
        fields = dataclasses.fields(cls)
        unknown = sorted(set(mapping) - {field.name for field in fields})
        required = {field.name for field in fields if field.default is dataclasses.MISSING}
        missing = sorted(required - set(mapping))
        if unknown or missing:
            raise ValueError(
                f"defaults of a generator: unknown keys {unknown}, missing keys {missing}; known "
                f"are {', '.join(field.name for field in fields)}"
            )
        return cls(**mapping)
