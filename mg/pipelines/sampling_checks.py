"""What can be wrong with a request for videos, found before any network runs."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mg.conditions.text.encoder import TextEncoder
from mg.conditions.text.prompts import with_fps
from mg.conditions.visual import ChannelConditions
from mg.console import one_line
from mg.flow.scheduler_config import build_scheduler
from mg.flow.schedulers import FlowEuler
from mg.pipelines.generator_parts import GeneratorParts
from mg.pipelines.prompt_embeds import PromptEmbeds
from mg.pipelines.sampling_settings import SamplingSettings
from mg.pipelines.visual_inputs import NO_INPUTS, VisualInputs

if TYPE_CHECKING:
    from mg.pipelines.text_to_video import TextToVideo

__all__ = ["check_request", "departures_of", "encoders_of", "texts_of"]

logger = logging.getLogger("mg")


def texts_of(prompts: Sequence[str], settings: SamplingSettings, *, fps_prefix: bool) -> list[str]:
    """Return what the text encoders see of prompts.

    Args:
        prompts: without a frame rate.
        settings: whose frame rate it is.
        fps_prefix: whether the captions of training had it in front.
    """
    return [with_fps(prompt, settings.fps) for prompt in prompts] if fps_prefix else list(prompts)


def encoders_of(
    generator: "GeneratorParts | TextToVideo", settings: SamplingSettings
) -> list[TextEncoder]:
    """Return a generator's text encoders, with the prompt template of the settings, if any.

    Raises:
        ValueError: the template does not belong to an encoder's tokenizer.
    """
    template, encoders = settings.prompt_template, list(generator.text_encoders)
    return encoders if template is None else [e.with_template(template) for e in encoders]


def check_request(
    generator: "GeneratorParts | TextToVideo",
    prompts: Sequence[str],
    settings: SamplingSettings,
    *,
    inputs: Sequence[VisualInputs] | None = None,
    embeds: PromptEmbeds | None = None,
    truncate: bool = False,
) -> tuple[int, ...]:
    """Return (C, T', H', W') of a latent if a generator can make these videos.

    Args:
        generator: built or not.
        prompts: of the videos.
        settings: of all of them.
        inputs: videos and images that each is made from, if any; files are not opened.
        embeds: in place of the prompts, where they were embedded elsewhere.
        truncate: only warn of prompts that are too long.

    Raises:
        ValueError: there is no prompt, one is too long, there is no text encoder for them, the
            solver is unknown, the size or the steps do not fit the networks, or videos, images or
            settings are given that the generator has no use for, or lack.
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
    _check_schedule(generator, settings)
    _check_guidance(generator, settings, embeds)
    shape = settings.latent_shape(generator.transformer_config, generator.autoencoder.spec)
    _check_patches(generator, settings, inputs, shape)
    texts = [] if embeds is not None else list(prompts)
    has_negative = embeds is not None and embeds.negative is not None
    drops_text = settings.branch_scale(generator.defaults) != 1 and "text" in settings.dropped
    if drops_text and not has_negative:
        texts.append(settings.negative_prompt)
    _check_encoders(generator, texts, embeds, drops_text=drops_text)
    _check_template(generator, settings, texts)
    texts = texts_of(texts, settings, fps_prefix=generator.defaults.fps_prefix)
    for encoder in encoders_of(generator, settings) if texts else []:
        if not truncate:
            encoder.check_lengths(texts)
            continue
        for text in filter(encoder.is_too_long, texts):
            logger.warning(
                "the encoder %r sees only the first %d tokens of %r",
                encoder.name,
                encoder.room,
                text,
            )
    return shape


def _check_schedule(generator: "GeneratorParts | TextToVideo", settings: SamplingSettings) -> None:
    if settings.schedule != "published":
        return
    if generator.scheduler is None:
        raise ValueError(
            "schedule=published: this generator was published with no scheduler; take "
            "linear_quadratic or linear"
        )
    scheduler = build_scheduler(generator.scheduler, settings.steps)
    if settings.dynamic_guidance and isinstance(scheduler, FlowEuler):
        raise ValueError("dynamic_guidance belongs to CogVideoX's schedulers; leave it out")


def _check_guidance(
    generator: "GeneratorParts | TextToVideo",
    settings: SamplingSettings,
    embeds: PromptEmbeds | None,
) -> None:
    """Raise ValueError for settings of the second branch of guidance, if there is none."""
    has_negative = embeds is not None and embeds.negative is not None
    if settings.negative_prompt and has_negative:
        raise ValueError("negative_prompt and negative_prompt_embeds are the same; give one")
    if has_negative and "text" not in settings.dropped:
        raise ValueError(
            f"negative_prompt_embeds has no effect with guidance_drops={settings.guidance_drops!r},"
            " which keeps the text in both branches; add text to it"
        )
    is_embedded = generator.defaults.embedded_guidance
    if settings.true_cfg_scale != 1 and not is_embedded:
        raise ValueError(
            f"true_cfg_scale={settings.true_cfg_scale} has no effect: this network takes no weight "
            "of guidance as an input, and guidance is that scale here; leave it out"
        )
    if settings.branch_scale(generator.defaults) != 1:
        return
    reason = "guidance=1 turns guidance off"
    if is_embedded:
        reason = (
            "this network takes the weight of guidance as an input and runs once per step, unless "
            "true_cfg_scale is above 1"
        )
    idle = {
        "negative_prompt": settings.negative_prompt,
        "negative_prompt_embeds": has_negative,
        "two_passes": settings.two_passes,
        "dynamic_guidance": settings.dynamic_guidance,
    }
    for name, value in idle.items():
        if value:
            raise ValueError(f"{name} has no effect: {reason}; leave it out")


def _check_patches(
    generator: "GeneratorParts | TextToVideo",
    settings: SamplingSettings,
    inputs: Sequence[VisualInputs],
    shape: tuple[int, ...],
) -> None:
    """Raise ValueError for a source or known frames of a length that leaves a patch unfilled."""
    frames = generator.autoencoder.spec.latent_frames(settings.num_frames)
    if frames != shape[1] and any(given.given() for given in inputs):
        side = generator.transformer_config.patch[0]
        raise ValueError(
            f"num_frames={settings.num_frames} are {frames} frames of the latent, and the network "
            f"takes {side} together; with a source or known frames take a length of whole patches"
        )


def _check_encoders(
    generator: "GeneratorParts | TextToVideo",
    texts: Sequence[str],
    embeds: PromptEmbeds | None,
    *,
    drops_text: bool,
) -> None:
    """Raise ValueError for texts to embed where the generator has no text encoder.

    Args:
        generator: of the videos.
        texts: to embed.
        embeds: of the prompts, if they were embedded elsewhere; then Python asks, no command.
        drops_text: whether a second branch runs without the text.
    """
    inputs = generator.transformer_config.text_encoders
    if not texts or not inputs or generator.text_encoders:
        return
    off = "true_cfg_scale=1" if generator.defaults.embedded_guidance else "guidance=1"
    negative = f"negative_prompt_embeds, or {off}"
    if embeds is not None:
        advice = f"give {negative}"
    else:
        advice = (
            "add it to the generator's folder (text_encoder and tokenizer, named in "
            "model_index.json; in folders written here `encoders` in conditions/config.json), or "
            f"in Python give prompt_embeds{f' (and {negative})' if drops_text else ''}"
        )
    names = " and ".join(encoder.name for encoder in inputs)
    raise ValueError(
        f"this generator has no text encoder ({names}) for {one_line(repr(texts[0]))}: {advice}"
    )


def _check_template(
    generator: "GeneratorParts | TextToVideo", settings: SamplingSettings, texts: Sequence[str]
) -> None:
    """Raise ValueError for a prompt template that nothing reads; warn of one that crops prompts."""
    if settings.prompt_template is None:
        return
    if not texts:
        raise ValueError("prompt_template has no effect with prompt_embeds; leave it out")
    if not any(encoder.takes_template for encoder in generator.text_encoders):
        names = ", ".join(encoder.name for encoder in generator.text_encoders)
        raise ValueError(
            f"prompt_template has no effect: the text encoders of this generator ({names}) read "
            "prompts as they are; leave it out"
        )
    if any(encoder.crops_prompts() for encoder in encoders_of(generator, settings)):
        logger.warning(
            "prompt_template: crop_start=%d leaves out the beginning of prompts too, by this "
            "tokenizer",
            settings.prompt_template.crop_start,
        )


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
        known = " and ".join(name for name in inputs.given() if name not in ("source", "mask"))
        modes = ", ".join(conditions.frame_modes) or "none"
        raise ValueError(
            f"{known}: this generator was not trained with that (it takes {takes}; known frames: "
            f"{modes})"
        )
    idle = [name for name in settings.dropped if name not in ("text", *conditions.names)]
    if idle:
        raise ValueError(
            f"guidance_drops: {idle[0]} is not a condition of this generator; it takes {takes}"
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
