"""What can be wrong with a request for videos, found before any network runs."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mg.conditions.text.prompts import with_fps
from mg.pipelines.generator_folder import GeneratorParts
from mg.pipelines.sampling_settings import SamplingSettings

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
    truncate: bool = False,
) -> tuple[int, ...]:
    """Return (C, T', H', W') of a latent if a generator can make these videos.

    Args:
        generator: built or not.
        prompts: of the videos.
        settings: of all of them.
        truncate: only warn of prompts that are too long.

    Raises:
        ValueError: there is no prompt, one is too long, the solver is unknown, or the size does
            not fit the networks.
    """
    from mg.flow.solvers import SOLVERS  # imports MindSpore

    if not prompts:
        raise ValueError("no prompts; give at least one (it may be empty)")
    if settings.solver not in SOLVERS:
        raise ValueError(f"solver={settings.solver!r}; expected one of {', '.join(SOLVERS)}")
    shape = settings.latent_shape(generator.transformer_config, generator.tae_config.spec)
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


def departures_of(
    generator: "GeneratorParts | TextToVideo", prompts: Sequence[str], settings: SamplingSettings
) -> str:
    """Return one line that names what of a request the generator was not trained on, or "".

    Arguments as of `check_request`.
    """
    if generator.scope is None:
        return ""
    return generator.scope.departures(prompts, settings, generator.tae_config.spec)
