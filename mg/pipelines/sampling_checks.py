"""What can be wrong with a request for videos, found before any network runs."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mg.conditions.text.prompts import with_fps
from mg.conditions.visual import ChannelConditions
from mg.pipelines.generator_folder import GeneratorParts
from mg.pipelines.sampling_settings import SamplingSettings
from mg.pipelines.visual_inputs import NO_INPUTS, VisualInputs

if TYPE_CHECKING:
    from mg.pipelines.text_to_video import TextToVideo

__all__ = ["check_request", "departures_of", "texts_of"]

logger = logging.getLogger("mg")


def texts_of(prompts: Sequence[str], settings: SamplingSettings, *, fps_prefix: bool) -> list[str]:
    """Return what the text encoders see of prompts.

    Args:
        prompts: without a frame rate.
        settings: whose frame rate it is.
        fps_prefix: whether the captions of training had it in front.
    """
    return [with_fps(prompt, settings.fps) for prompt in prompts] if fps_prefix else list(prompts)


def check_request(
    generator: "GeneratorParts | TextToVideo",
    prompts: Sequence[str],
    settings: SamplingSettings,
    *,
    inputs: Sequence[VisualInputs] | None = None,
    truncate: bool = False,
) -> tuple[int, ...]:
    """Return (C, T', H', W') of a latent if a generator can make these videos.

    Args:
        generator: built or not.
        prompts: of the videos.
        settings: of all of them.
        inputs: videos and images that each is made from, if any; files are not opened.
        truncate: only warn of prompts that are too long.

    Raises:
        ValueError: there is no prompt, one is too long, the solver is unknown, the size does
            not fit the networks, or videos or images are given that the generator has no use for,
            or lack.
    """
    from mg.flow.solvers import SOLVERS  # imports MindSpore

    if not prompts:
        raise ValueError("no prompts; give at least one (it may be empty)")
    if settings.solver not in SOLVERS:
        raise ValueError(f"solver={settings.solver!r}; expected one of {', '.join(SOLVERS)}")
    inputs = [NO_INPUTS] * len(prompts) if inputs is None else inputs
    if len(inputs) != len(prompts):
        raise ValueError(f"inputs of {len(inputs)} videos for {len(prompts)} prompts")
    for given in inputs:
        _check_inputs(given, settings, generator.conditions)
    shape = settings.latent_shape(generator.transformer_config, generator.autoencoder.spec)
    texts = texts_of(
        [*prompts, settings.negative_prompt], settings, fps_prefix=generator.defaults.fps_prefix
    )
    for encoder in generator.text_encoders:
        if not truncate:
            encoder.check_lengths(texts)
            continue
        for text in filter(encoder.is_too_long, texts):
            logger.warning(
                "the encoder %r sees only the first %d tokens of %r",
                encoder.name,
                encoder.max_tokens,
                text,
            )
    return shape


def _check_inputs(
    inputs: VisualInputs, settings: SamplingSettings, conditions: ChannelConditions
) -> None:
    """Raise ValueError for what the generator was not trained for, or lacks."""
    takes = ", ".join(("text", *conditions.names))
    if settings.strength < 1 and inputs.source is None:
        raise ValueError(
            f"strength={settings.strength} starts from a source video, and there is none; give "
            "source, or leave strength out"
        )
    if inputs.source is not None and settings.strength == 1 and "source" not in conditions.names:
        raise ValueError(
            "source has no effect with strength=1: this generator was not trained with one (it "
            f"takes {takes}); give a strength below 1, such as 0.6, to start from the noised source"
        )
    mode = inputs.frame_mode
    if mode is not None and mode not in conditions.frame_modes:
        known = " and ".join(name for name in inputs.given() if name != "source")
        modes = ", ".join(conditions.frame_modes) or "none"
        raise ValueError(
            f"{known}: this generator was not trained with that (it takes {takes}; known frames: "
            f"{modes})"
        )
    idle = [name for name in settings.dropped if name not in ("text", *conditions.names)]
    if idle:
        raise ValueError(
            f"guidance_drops: {idle[0]} is no condition of this generator; it takes {takes}"
        )


def departures_of(
    generator: "GeneratorParts | TextToVideo", prompts: Sequence[str], settings: SamplingSettings
) -> str:
    """Return one line that names what of a request the generator was not trained on, or "".

    Arguments as of `check_request`.
    """
    if generator.scope is None:
        return ""
    return generator.scope.departures(prompts, settings, generator.autoencoder.spec)
