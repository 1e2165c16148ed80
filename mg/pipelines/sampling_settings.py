"""How videos are sampled: sizes, steps, guidance; checked before any network is built."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mg.conditions.text.prompt_template import PromptTemplate
from mg.flow.schedules import (
    check_strength,
    linear_quadratic_schedule,
    linear_schedule,
    remaining_schedule,
)
from mg.latent_spec import LatentSpec
from mg.models.denoiser_config import DenoiserConfig
from mg.pipelines.generator_defaults import (
    SCHEDULES,
    GeneratorDefaults,
    dropped_conditions,
)

__all__ = ["SCHEDULES", "SamplingSettings", "check_ranges"]

MAX_STEPS = 100_000


def check_ranges(values: Mapping[str, Any]) -> None:
    """Raise ValueError for a number among settings of sampling that cannot be.

    Args:
        values: by the names of `SamplingSettings`; some of them will do.
    """
    for name in ("num_frames", "height", "width", "steps"):
        value = values.get(name, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name}={value!r}; expected a whole number of 1 or more")
    for name in ("steps", "num_reference_steps"):
        if values.get(name, 1) > MAX_STEPS:
            raise ValueError(f"{name}={values[name]}; at most {MAX_STEPS} are taken")
    for name, least, expected in (
        ("guidance", 0, "0 or more (1 turns guidance off)"),
        ("fps", 0.5, "frames per second, 1 or more"),
        ("true_cfg_scale", 1, "1 (none) or more"),
    ):
        value = values.get(name, 1)
        if not (math.isfinite(value) and value >= least):
            raise ValueError(f"{name}={value}; expected {expected}")
    check_strength(values.get("strength", 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """What decides a video besides weights, prompt and seed.

    Attributes:
        num_frames: frames of the video; 1 is an image.
        height, width: in pixels.
        fps: frames per second. Written in front of the prompt if the captions of training had it
            there; in any case the speed at which a file of the video plays.
        steps: steps of the sampler.
        guidance: weight of the text, 0 or more; 1 turns classifier-free guidance off.
        negative_prompt: what the video is pushed away from; empty for no text.
        schedule: linear_quadratic (Movie Gen 3.4.2), linear, or published: the steps of the
            scheduler that the generator was published with.
        num_reference_steps: steps of the linear schedule that linear_quadratic imitates.
        solver: euler, or midpoint, which runs the network twice per step.
        two_passes: run the two branches of guidance one after the other instead of as one batch:
            half the memory.
        guidance_drops: what the second branch of guidance, the one that the video is pushed away
            from, is without: some of text, source, frames, with commas. Where text is dropped,
            `negative_prompt` takes its place.
        dynamic_guidance: change the weight of the text from step to step, as CogVideoX can
            (`mg.flow.schedulers.dynamic_guidance`); with schedule=published.
        strength: 1 begins with noise; less begins with a source video that is noised to the time
            1 - strength, and takes only the steps from there (SDEdit). With schedule=published it
            is the share of the steps that are taken, the last ones, and the source is noised as
            the first of them expects.
        true_cfg_scale: weight of classifier-free guidance, with `negative_prompt` in the second
            branch, for a network that takes a weight of guidance as an input besides
            (HunyuanVideo); 1 is none.
        prompt_template: what stands around the prompts for a text encoder that takes it
            (HunyuanVideo); a mapping or the path of a JSON file will do.
    """

    num_frames: int
    height: int
    width: int
    fps: float
    steps: int
    guidance: float
    negative_prompt: str = ""
    schedule: str = "linear_quadratic"
    num_reference_steps: int = 250
    solver: str = "euler"
    two_passes: bool = False
    guidance_drops: str = "text"
    strength: float = 1.0
    dynamic_guidance: bool = False
    true_cfg_scale: float = 1.0
    prompt_template: PromptTemplate | None = None

    def __post_init__(self) -> None:
        check_ranges(vars(self))
        if self.guidance == 1 and self.true_cfg_scale == 1:
            idle = [name for name in ("negative_prompt", "two_passes") if getattr(self, name)]
            if idle:
                raise ValueError(
                    f"{idle[0]} has no effect with guidance=1, which turns guidance off; leave it "
                    "out, or raise guidance"
                )
        dropped = self.dropped  # read in any case: it refuses names that are none
        if self.negative_prompt and "text" not in dropped:
            raise ValueError(
                f"negative_prompt has no effect with guidance_drops={self.guidance_drops!r}, which "
                "keeps the text in both branches; add text to it"
            )
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule={self.schedule!r}; expected one of {', '.join(SCHEDULES)}")
        if self.schedule == "published" and self.solver != "euler":
            raise ValueError(
                f"solver={self.solver} has no effect with schedule=published, the generator's own "
                "scheduler; take schedule=linear"
            )
        if self.dynamic_guidance and self.schedule != "published":
            raise ValueError(
                f"dynamic_guidance has no effect with schedule={self.schedule}; it belongs to "
                "schedule=published of CogVideoX"
            )
        if len(self.times()) == 1:
            raise ValueError(
                f"strength={self.strength} leaves none of the {self.steps} steps of "
                f"schedule=published; take {1 / self.steps:.2g} or more, or more steps"
            )
        if self.prompt_template is not None:
            object.__setattr__(self, "prompt_template", PromptTemplate.of(self.prompt_template))

    @classmethod
    def of(cls, defaults: GeneratorDefaults, **given) -> "SamplingSettings":
        """Return the settings given; those that are None or left out are a generator's defaults.

        Raises:
            ValueError: a value that cannot be.
        """
        height, width = defaults.size
        stated = {
            "num_frames": defaults.num_frames,
            "height": height,
            "width": width,
            "fps": defaults.fps,
            "steps": defaults.steps,
            "guidance": defaults.guidance,
            "schedule": defaults.schedule,
            "guidance_drops": defaults.guidance_drops,
        }
        return cls(**stated | {name: value for name, value in given.items() if value is not None})

    @property
    def dropped(self) -> tuple[str, ...]:
        """What `guidance_drops` names."""
        return dropped_conditions(self.guidance_drops)

    def times(self) -> np.ndarray:
        """Return the times of the steps, one more than steps are taken.

        With schedule=published the scheduler has times of its own, as many.
        """
        if self.schedule == "published":
            return linear_schedule(self.steps)[self.first_step :]
        if self.schedule != "linear_quadratic":
            times = linear_schedule(self.steps)
        else:
            times = linear_quadratic_schedule(
                self.steps, num_reference_steps=self.num_reference_steps
            )
        return remaining_schedule(times, self.strength)

    @property
    def first_step(self) -> int:
        """The step of the published scheduler that an edit begins with; 0 is the whole way."""
        return self.steps - min(int(self.steps * self.strength), self.steps)

    def branch_scale(self, defaults: GeneratorDefaults) -> float:
        """Return the weight of the branch with text against the one without; 1: it runs alone."""
        return self.true_cfg_scale if defaults.embedded_guidance else self.guidance

    def latent_shape(self, denoiser: DenoiserConfig, spec: LatentSpec) -> tuple[int, ...]:
        """Return (C, T', H', W') of the latent that is sampled for one video.

        Frames that do not fill the network's patches get more of them in front, as CogVideoX 1.5
        has it; they are left out of the result.

        Args:
            denoiser: config of the network that makes it.
            spec: latents of the autoencoder.

        Raises:
            ValueError: a size that the autoencoder or the patches do not divide, or that the
                network has no positions for.
        """
        sizes = (("height", self.height, spec.h), ("width", self.width, spec.w))
        for (name, size, factor), side in zip(sizes, denoiser.patch[1:], strict=True):
            step = factor * side
            if size % step:
                below = size // step * step
                legal = f"{below} or {below + step}" if below else f"{step}"
                raise ValueError(
                    f"{name}={size} is not a multiple of {step} ({factor} of the autoencoder x "
                    f"{side} of the denoiser's patch); take {legal}"
                )
        channels, frames, *size = spec.latent_shape(self.num_frames, self.height, self.width)
        shape = channels, -(-frames // denoiser.patch[0]) * denoiser.patch[0], *size
        try:
            denoiser.token_grid((1, *shape))
        except ValueError as error:
            raise ValueError(
                f"{self.num_frames} frames of {self.height}x{self.width} pixels: {error}"
            ) from error
        return shape
