"""From a prompt to a video: text -> transformer and sampler -> latent -> TAE -> frames.

Source: Movie Gen (arXiv 2410.13720) sections 3.1.2, 3.4.2.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from mindspore import nn

from mg.conditions.text.encoder import TextEncoder
from mg.device import compiles_graphs
from mg.flow.velocity_network import published_network, velocity_network
from mg.models.denoiser import Denoiser
from mg.pipelines.diffusers_call import (
    check_output_type,
    finished_frames,
    own_names,
    step_callback,
    with_published_layout,
)
from mg.pipelines.generated_videos import GeneratedVideos, seeds_of
from mg.pipelines.generator_defaults import GeneratorDefaults
from mg.pipelines.generator_folder import open_generator
from mg.pipelines.generator_lora import with_lora_record
from mg.pipelines.generator_parts import GeneratorParts
from mg.pipelines.generator_writer import save_generator
from mg.pipelines.latent_sampler import LatentSampler, OnStepEnd
from mg.pipelines.prompt_embeds import PromptEmbeds, texts_of_call
from mg.pipelines.sampling_checks import check_request, departures_of
from mg.pipelines.sampling_noise import SamplingNoise
from mg.pipelines.sampling_settings import SamplingSettings
from mg.pipelines.streaming import decode_latents
from mg.pipelines.visual_inputs import NO_INPUTS, VisualInputs, check_known_frames, encode_clip
from mg.progress import ProgressBar
from mg.tiling.sizes import Tiling
from mg.weights.lora_file import merge_lora, read_lora
from mg.weights.publishing import Publishable

__all__ = ["GeneratedVideos", "TextToVideo", "seeds_of"]

logger = logging.getLogger("mg")


class TextToVideo(Publishable):
    """A video generator: call it with prompts.

    A video depends on the weights, its prompt, its seed and the settings. It does not depend on
    the other videos of its batch, but for the rounding of float32 that another batch size brings:
    latents then differ by about 1e-5.

    Attributes:
        transformer, autoencoder, text_encoders: its parts.
        transformer_config: of the transformer.
        defaults: for what a call leaves open.
        dtype, decode_dtype: precision of the transformer and of the decoder.
        sha256: of the weight files.
        scope: what the generator was trained on; None where that is not known.
        conditions: what it is conditioned on besides text.
        family: of the transformer.
        scheduler: fields of the scheduler_config.json that it was published with, or None.
    """

    def __init__(
        self,
        parts: GeneratorParts,
        *,
        transformer: Denoiser | None = None,
        dtype: str = "float32",
        decode_dtype: str = "float32",
        tiling: Tiling | None = None,
    ) -> None:
        """Build the networks.

        Args:
            parts: from `load_generator`.
            transformer: a network that is there already, to be used as it is, with the weights
                that it has at each call; None builds one from the parts.
            dtype: precision of the transformer, float32, float16 or bfloat16.
            decode_dtype: of the autoencoder's decoder.
            tiling: of the decoder; None takes tiles of about 32 frames of 256x256 pixels.

        Raises:
            ValueError: a precision that the device lacks, tiles that do not fit the latents.
        """
        spec = parts.autoencoder.spec
        tiling = Tiling.default(spec) if tiling in (None, Tiling()) else tiling
        tiling.check(spec)
        if transformer is None:
            transformer = parts.family.build(parts.transformer_config, dtype=dtype)
            transformer.load_tensors(parts.transformer_tensors)
            transformer.set_train(False)
        self.transformer = transformer
        self.autoencoder = parts.autoencoder.build(
            use_tile=True, tiling=tiling, decode_dtype=decode_dtype
        )
        self.text_encoders: list[TextEncoder] = parts.text_encoders
        self.defaults: GeneratorDefaults = parts.defaults
        self.sha256 = dict(parts.sha256)
        self.scope = parts.scope
        self.conditions = parts.conditions
        self.family = parts.family
        self.scheduler = parts.scheduler
        self._converted: dict[str, tuple[nn.Cell, nn.Cell]] = {}
        self.compiled: set[tuple] = set()  # sizes of latents and batches that have been sampled
        self.transformer_config = parts.transformer_config
        self.dtype, self.decode_dtype = dtype, decode_dtype

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike, *, text_dtype: str = "float32", **options: Any
    ) -> "TextToVideo":
        """Return the generator of a folder that training or `save_pretrained` wrote.

        Args:
            folder: with model_index.json; one of diffusers' CogVideoX or HunyuanVideo will do.
            text_dtype: precision of a Llama among the text encoders, float32, float16 or bfloat16.
            options: dtype, decode_dtype and tiling, as in the constructor.

        Raises:
            FileNotFoundError, ValueError: as `load_generator`.
        """
        parts = open_generator(folder).with_text_dtype(text_dtype)
        return cls(parts.with_weights(), **options)

    def save_pretrained(self, folder: str | os.PathLike, overwrite: bool = False) -> None:
        """Write the generator's folder, LoRAs merged; `from_pretrained` reads it back.

        A README.md that is there stays; else one is written, a model card. Pretrained text
        encoders stay where they are, and the folder has their paths.

        Args:
            folder: to write, all of it or nothing.
            overwrite: whether a generator that is there may be replaced.

        Raises:
            FileExistsError: the folder exists and `overwrite` is false, or it holds something else.
        """
        save_generator(
            folder,
            transformer_tensors=self.transformer.tensors(),
            transformer_config=self.transformer_config,
            autoencoder=self.autoencoder,
            text_encoders=self.text_encoders,
            defaults=self.defaults,
            scope=self.scope,
            conditions=self.conditions,
            family=self.family,
            scheduler=self.scheduler,
            overwrite=overwrite,
        )

    def load_lora(self, path: str | os.PathLike, *, weight: float = 1.0) -> None:
        """Merge a LoRA into the transformer; a second one is added to the first.

        Args:
            path: a .safetensors file under diffusers' names (`mg.weights.lora_file`), or a folder
                that holds one.
            weight: how much of it; 1 is what was trained, and -1 takes it away again.

        Raises:
            FileNotFoundError, ValueError: no such file, or one of another network.
        """
        merged = merge_lora(self.transformer.tensors(), read_lora(path), weight=weight)
        self.transformer.load_tensors(merged)
        self.sha256 = with_lora_record(self.sha256, path, weight)

    def __call__(
        self,
        prompts: str | Sequence[str] | None = None,
        *,
        source: np.ndarray | str | os.PathLike | None = None,
        first_frame: np.ndarray | str | os.PathLike | None = None,
        prefix: np.ndarray | str | os.PathLike | None = None,
        suffix: np.ndarray | str | os.PathLike | None = None,
        known_frames: np.ndarray | str | os.PathLike | None = None,
        mask: str | Sequence[bool] | np.ndarray | None = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        fps: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int | Sequence[int] | None = None,
        negative_prompt: str | None = None,
        schedule: str | None = None,
        num_reference_steps: int = 250,
        solver: str = "euler",
        two_passes: bool = False,
        guidance_drops: str | None = None,
        strength: float = 1.0,
        dynamic_guidance: bool | None = None,
        true_cfg_scale: float = 1.0,
        prompt_template: Mapping[str, Any] | str | os.PathLike | None = None,
        batch_size: int = 1,
        truncate: bool = False,
        generator: np.random.Generator | Sequence[np.random.Generator] | None = None,
        latents: np.ndarray | None = None,
        prompt_embeds: np.ndarray | None = None,
        prompt_attention_mask: np.ndarray | None = None,
        pooled_prompt_embeds: np.ndarray | None = None,
        negative_prompt_embeds: np.ndarray | None = None,
        negative_prompt_attention_mask: np.ndarray | None = None,
        negative_pooled_prompt_embeds: np.ndarray | None = None,
        output_type: str = "uint8",
        callback_on_step_end: Callable[..., Mapping[str, Any] | None] | None = None,
        **names_of_diffusers: Any,
    ) -> GeneratedVideos:
        """Return a video of each prompt; the first axis is there for a single prompt too.

        What is None is the generator's default; the other settings are those of
        `SamplingSettings`. diffusers' `prompt`, `num_inference_steps`, `guidance_scale` and
        `use_dynamic_cfg` are other names of `prompts`, `steps`, `guidance`, `dynamic_guidance`.

        Args:
            prompts: one or several; the empty prompt gives a video of anything.
            source: the video to be edited, uint8 (T, H, W, 3) or a path: for a generator that was
                trained with one, or with a `strength` below 1 for any.
            first_frame, prefix, suffix: what the video begins or ends with, as `VisualInputs`, for
                a generator that was trained so.
            known_frames, mask: a video of which some frames are kept, and which, such as
                "0-7,24-31", for a generator that was trained with masks.
            seed: a seed for each video; or the seed of the first video, which rises by one with
                each further video. None is 0.
            batch_size: videos sampled together. They are decoded one by one.
            truncate: cut prompts that are too long for a text encoder, instead of refusing them.
            generator: draws the noise in place of seeds, one for all videos or one for each.
            latents: the noise to begin with, float32 (N, C, T', H', W'), of CogVideoX
                (N, T', C, H', W').
            prompt_embeds: in place of prompts, (N, L, D); of networks of two text encoders with
                `pooled_prompt_embeds` (N, D). All tokens count but for those that
                `prompt_attention_mask` (N, L) masks. The negative ones take the place of the
                `negative_prompt`.
            output_type: of the result's `frames`: uint8, np or latent.
            callback_on_step_end: called after each step, see `mg.pipelines.diffusers_call`.

        Raises:
            ValueError: a setting or prompt that does not fit, before anything is computed; a
                result that is not a number.
        """
        check_output_type(output_type)
        named = {"prompts": prompts, "steps": steps, "guidance": guidance}
        named = own_names(named | {"dynamic_guidance": dynamic_guidance}, names_of_diffusers)
        embeds = PromptEmbeds.of(
            self.transformer_config,
            {
                "prompt_embeds": prompt_embeds,
                "prompt_attention_mask": prompt_attention_mask,
                "pooled_prompt_embeds": pooled_prompt_embeds,
                "negative_prompt_embeds": negative_prompt_embeds,
                "negative_prompt_attention_mask": negative_prompt_attention_mask,
                "negative_pooled_prompt_embeds": negative_pooled_prompt_embeds,
            },
        )
        texts = texts_of_call(named.pop("prompts"), embeds)
        settings = SamplingSettings.of(
            self.defaults,
            num_frames=num_frames,
            height=height,
            width=width,
            fps=fps,
            **named,
            negative_prompt=negative_prompt,
            schedule=schedule,
            num_reference_steps=num_reference_steps,
            solver=solver,
            two_passes=two_passes,
            guidance_drops=guidance_drops,
            strength=strength,
            true_cfg_scale=true_cfg_scale,
            prompt_template=prompt_template,
        )
        if generator is not None and seed is not None:
            raise ValueError("seed and generator both draw the noise; give one of them")
        if latents is not None:
            latents = with_published_layout(np.asarray(latents), self.family)
        seeds = seeds_of(0 if seed is None else seed, len(texts))
        given = VisualInputs(source, first_frame, prefix, suffix, known_frames, mask)
        sampled = self.latents(
            texts,
            seeds,
            settings=settings,
            inputs=[given] * len(texts),
            embeds=embeds,
            noise=SamplingNoise(seeds, generators=generator, first=latents),
            batch_size=batch_size,
            truncate=truncate,
            on_step_end=step_callback(self, self.family, callback_on_step_end),
        )
        results = np.stack(list(sampled))
        if output_type == "latent":
            frames = with_published_layout(self.autoencoder.spec.scale(results), self.family)
        else:
            num_frames = settings.num_frames
            frames = np.stack([self.decode(z, num_frames, output_type) for z in results])
        return GeneratedVideos(frames, results, () if generator is not None else seeds, settings)

    def latents(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        settings: SamplingSettings,
        inputs: Sequence[VisualInputs] | None = None,
        embeds: PromptEmbeds | None = None,
        noise: SamplingNoise | None = None,
        batch_size: int = 1,
        truncate: bool = False,
        on_step: Callable[[int], None] | None = None,
        on_step_end: OnStepEnd | None = None,
    ) -> Iterator[np.ndarray]:
        """Return an iterator over the latent of each prompt, float32 (C, T', H', W'), not scaled.

        Checks are made at once, batches are computed when the first latent of each is asked for.
        What is new to the generator (words, sizes, lengths) gets a warning.

        Args:
            prompts: one per video.
            seeds: one per video, each from 0 to 2^64 - 1.
            settings: of all of them.
            inputs: videos and images that each is made from, if any.
            embeds: in place of the prompts, where they were embedded elsewhere.
            noise: of each video; None draws it with the seeds.
            batch_size: videos sampled together.
            truncate: cut prompts that are too long, instead of refusing them.
            on_step: called after each step of the sampler with how many are done of this batch.
            on_step_end: called after each step with the latents too; may replace them.

        Raises:
            ValueError: as `check_request`; or the transformer gave what is not a number.
        """
        inputs = [NO_INPUTS] * len(prompts) if inputs is None else list(inputs)
        shape = check_request(
            self, prompts, settings, inputs=inputs, embeds=embeds, truncate=truncate
        )
        inputs = [given.fitted(settings) for given in inputs]
        for given in inputs:
            check_known_frames(given, self.autoencoder.spec, settings.num_frames)
        if departures := departures_of(self, prompts, settings):
            logger.warning("%s", departures)
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}; expected 1 or more")
        if len(seeds) != len(prompts):
            raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts; expected one each")
        noise = SamplingNoise(seeds) if noise is None else noise
        noise.check(shape)
        sampler = LatentSampler(
            self,
            prompts,
            settings,
            inputs=inputs,
            noise=noise,
            embeds=embeds,
            shape=shape,
            truncate=truncate,
        )
        # Batches of one size, as even as can be: the network is compiled for each size.
        num_batches = -(-len(prompts) // batch_size)
        batch_size = -(-len(prompts) // num_batches)
        return sampler.batches(batch_size, on_step=on_step, on_step_end=on_step_end)

    def velocity_network(self) -> nn.Cell:
        """Return the transformer as one that gives the velocity, built once."""
        return self._as("velocity", velocity_network)

    def published_network(self) -> nn.Cell:
        """Return the transformer as its scheduler calls it, built once."""
        return self._as("published", published_network)

    def _as(self, kind: str, convert: Callable[..., nn.Cell]) -> nn.Cell:
        network, converted = self._converted.get(kind, (None, None))
        if network is not self.transformer:
            # The scheduler says what was trained: a family's networks may predict other things.
            converted = convert(self.transformer, self.family.prediction, self.scheduler)
            self._converted[kind] = self.transformer, converted
        return converted

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """Return the latent of frames as `decode` takes it, float32 (C, T', H', W'), not scaled.

        Args:
            frames: uint8 RGB (T, H, W, 3).
        """
        return self.autoencoder.spec.unscale(encode_clip(self.autoencoder, frames))

    def decode(self, latent: np.ndarray, num_frames: int, output_type: str = "uint8") -> np.ndarray:
        """Return the frames of a latent, uint8 RGB (T, H, W, 3), decoded tile by tile.

        Args:
            latent: float32 (C, T', H', W'), not scaled.
            num_frames: T.
            output_type: "uint8", or "np" for float32 in [0, 1].

        Raises:
            ValueError: the decoder gave what is not a number.
        """
        pieces = decode_latents(self.autoencoder, [latent], num_frames, num_latents=latent.shape[1])
        compiles = None
        if latent.shape not in self.compiled and compiles_graphs():
            compiles = "the decoder"
        self.compiled.add(latent.shape)
        finished = []
        bar = ProgressBar(num_frames, "decoding", unit="frame", leave=False, compiles=compiles)
        with bar:
            for piece in pieces:
                finished.append(finished_frames(piece, output_type))
                bar.update(len(finished[-1]))
        return np.concatenate(finished)
