"""The latents of one call of a generator, batch by batch: conditions, guidance, steps."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from mindspore import Tensor

from mg.conditions.text.condition import TextCondition
from mg.device import compiles_graphs
from mg.flow.guidance import guided_velocity
from mg.flow.path import noisy_latent
from mg.flow.sampler import sample, sample_with_scheduler
from mg.flow.scheduler_config import build_scheduler
from mg.flow.schedulers import dynamic_guidance
from mg.pipelines.prompt_embeds import PromptEmbeds
from mg.pipelines.sampling_checks import encoders_of, texts_of
from mg.pipelines.sampling_noise import SamplingNoise
from mg.pipelines.sampling_settings import SamplingSettings
from mg.pipelines.streaming import check_finite
from mg.pipelines.visual_inputs import VisualInputs, encode_clip, encode_known_frames
from mg.progress import ProgressBar

if TYPE_CHECKING:
    from mg.pipelines.text_to_video import TextToVideo

__all__ = ["LatentSampler", "OnStepEnd"]

# (steps done, the network's time, latents (B, C, T', H', W')) -> latents in their place, or None
OnStepEnd = Callable[[int, float, np.ndarray], np.ndarray | None]

EMBEDDED_GUIDANCE_UNIT = 1000.0  # networks take the weight of guidance times this


class LatentSampler:
    """Samples what one call asks for; all of it has been checked before.

    Args:
        generator: whose networks run.
        prompts: of the videos.
        settings: of all of them.
        inputs: videos and images that each is made from, as arrays of the videos' size.
        noise: of each video.
        embeds: in place of the prompts, where they were embedded elsewhere.
        shape: (C, T', H', W') of a latent.
        truncate: cut prompts that are too long.
    """

    def __init__(
        self,
        generator: "TextToVideo",
        prompts: Sequence[str],
        settings: SamplingSettings,
        *,
        inputs: Sequence[VisualInputs],
        noise: SamplingNoise,
        embeds: PromptEmbeds | None,
        shape: tuple[int, ...],
        truncate: bool,
    ) -> None:
        self.generator, self.prompts, self.settings = generator, prompts, settings
        self.inputs, self.noise, self.embeds = inputs, noise, embeds
        self.shape, self.truncate = shape, truncate

    def batches(
        self,
        batch_size: int,
        *,
        on_step: Callable[[int], None] | None = None,
        on_step_end: OnStepEnd | None = None,
    ) -> Iterator[np.ndarray]:
        """Yield the latent of each video, float32 (C, T', H', W'), not scaled.

        Args:
            batch_size: videos sampled together.
            on_step: called after each step with how many are done of this batch.
            on_step_end: called after each step with the latents; may replace them.
        """
        for start in range(0, len(self.prompts), batch_size):
            # The last batch is filled up with its last video, which is thrown away.
            chosen = [min(start + i, len(self.prompts) - 1) for i in range(batch_size)]
            visual = [self._encoded(self.inputs[i]) for i in chosen]
            first = self._first(chosen, visual)

            def after_step(num_done: int, t: float, latent: Tensor) -> Tensor | None:
                bar.update()
                if on_step is not None:
                    on_step(num_done)
                if on_step_end is None:
                    return None
                changed = on_step_end(num_done, t, latent.asnumpy())
                return None if changed is None else Tensor(changed.astype(np.float32))

            with self._bar(f"video {start + 1}", batch_size) as bar:
                latents = self._integrated(chosen, visual, Tensor(first), after_step).asnumpy()
            check_finite(latents, "transformer")
            spec = self.generator.autoencoder.spec
            num_in_front = self.shape[1] - spec.latent_frames(self.settings.num_frames)
            for latent in latents[: len(set(chosen)), :, num_in_front:]:
                yield spec.unscale(latent)

    def _bar(self, desc: str, batch_size: int) -> ProgressBar:
        """Return the bar of a batch's steps, which says whether the first one compiles."""
        key = (self.shape, batch_size)
        is_new, compiles = key not in self.generator.compiled, None
        self.generator.compiled.add(key)
        if is_new and compiles_graphs():
            compiles = "the networks"
        num_steps = len(self.settings.times()) - 1
        return ProgressBar(num_steps, desc, unit="step", leave=False, compiles=compiles)

    def _first(self, chosen: list[int], visual: list[dict[str, Any]]) -> np.ndarray:
        """Return the latents (B, C, T', H', W') that sampling begins with."""
        first = self.noise.first(self.shape, chosen)
        if self.settings.strength < 1:
            sources = np.stack([given["source"] for given in visual])
            if self.settings.schedule == "published":
                scheduler = build_scheduler(self.generator.scheduler, self.settings.steps)
                return scheduler.mixture(self.settings.first_step).of(sources, first)
            begin = np.full(len(chosen), self.settings.times()[0], np.float32)
            first = noisy_latent(sources, first, begin)
        return first

    def _integrated(self, chosen, visual, first, after_step) -> Tensor:
        """Return the latents (B, C, T', H', W') that the first ones are carried to."""
        settings = self.settings
        if settings.schedule == "published":
            scheduler = build_scheduler(self.generator.scheduler, settings.steps)
            scale_at = None
            if settings.dynamic_guidance:
                scale_at = functools.partial(
                    dynamic_guidance, settings.guidance, num_steps=settings.steps
                )
            draw, first_step = self.noise.further(self.shape, chosen), settings.first_step
            times = scheduler.timesteps[first_step:]
            network = self.generator.published_network()
            return sample_with_scheduler(
                self._guided(network, chosen, visual, scale_at=scale_at),
                first,
                scheduler,
                draw_noise=lambda: Tensor(draw()),
                first_step=first_step,
                on_step=lambda n, x: after_step(n, float(times[n - 1]), x),
            )
        times = settings.times()
        return sample(
            self._guided(self.generator.velocity_network(), chosen, visual),
            first,
            times,
            solver=settings.solver,
            on_step=lambda n, x: after_step(n, float(times[n - 1]), x),
        )

    def _guided(self, network, chosen, visual, *, scale_at=None):
        """Return the network under its conditions, with guidance: (latent, t) -> prediction.

        Args:
            network: (latent, t, *conditions) -> prediction.
            chosen, visual: as of `_conditions`.
            scale_at: from a time to the weight of the text there; None keeps that of the settings.
        """
        settings = self.settings
        others, scale = None, settings.branch_scale(self.generator.defaults)
        if scale != 1:
            others = self._conditions(chosen, visual, is_other=True)
        conditions, one_batch = self._conditions(chosen, visual), not settings.two_passes

        def of_scale(scale):
            return guided_velocity(network, conditions, others, scale=scale, one_batch=one_batch)

        if scale_at is None:
            return of_scale(scale)
        return lambda latent, t: of_scale(scale_at(timestep=float(t.asnumpy()[0])))(latent, t)

    def _encoded(self, inputs: VisualInputs) -> dict[str, Any]:
        """Return the latents of what a video is made from: its source, its known frames."""
        autoencoder = self.generator.autoencoder
        encoded = {}
        if inputs.source is not None:
            encoded["source"] = encode_clip(autoencoder, inputs.source)
        known = encode_known_frames(autoencoder, inputs, self.settings.num_frames)
        return encoded if known is None else {**encoded, "frames": known}

    def _conditions(self, chosen, visual, *, is_other: bool = False) -> list[Tensor]:
        """Return the tensors that the transformer takes besides latent and time.

        Args:
            chosen: numbers of the videos.
            visual: what there is of each besides text.
            is_other: of the second branch of guidance, without what is dropped there.
        """
        generator, dropped = self.generator, self.settings.dropped if is_other else ()
        visual = [{k: v for k, v in given.items() if k not in dropped} for given in visual]
        arrays = self._text(chosen, is_dropped="text" in dropped)
        if generator.defaults.embedded_guidance:
            weight = EMBEDDED_GUIDANCE_UNIT * self.settings.guidance
            arrays.append(np.full(len(chosen), weight, np.float32))
        return [Tensor(a) for a in (*arrays, *generator.conditions.batch(visual, self.shape))]

    def _text(self, chosen: list[int], *, is_dropped: bool) -> list[np.ndarray]:
        """Return embedding and mask of each text encoder."""
        if self.embeds is not None:
            embedded = self.embeds.negative if is_dropped else self.embeds.tensors
            if embedded is not None:
                return [array[chosen] for array in embedded]
        prompts = [self.prompts[i] for i in chosen]
        if is_dropped:
            prompts = [self.settings.negative_prompt] * len(chosen)
        has_prefix = self.generator.defaults.fps_prefix
        texts = texts_of(prompts, self.settings, fps_prefix=has_prefix)
        arrays = []
        for encoder in encoders_of(self.generator, self.settings):
            arrays += TextCondition(encoder, truncate=self.truncate).batch(texts, self.shape)
        return arrays
