"""From a prompt to a video: text -> transformer and sampler -> latent -> TAE -> frames.

Source: Movie Gen (arXiv 2410.13720) sections 3.1.2, 3.4.2.
"""

import dataclasses
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from mindspore import Tensor
from tqdm import tqdm

from mg.conditions.text.condition import TextCondition
from mg.conditions.text.encoder import TextEncoder
from mg.data.transforms import from_model_range
from mg.flow.guidance import guided_velocity
from mg.flow.noise import initial_noise
from mg.flow.path import noisy_latent
from mg.flow.sampler import sample
from mg.flow.velocity_network import velocity_network
from mg.models.denoiser import Denoiser
from mg.pipelines.generator_folder import (
    GeneratorDefaults,
    GeneratorParts,
    load_generator,
    lora_record,
)
from mg.pipelines.sampling_checks import check_request, departures_of, texts_of
from mg.pipelines.sampling_settings import SamplingSettings
from mg.pipelines.streaming import check_finite, decode_latents
from mg.pipelines.visual_inputs import (
    NO_INPUTS,
    VisualInputs,
    check_known_frames,
    encode_clip,
    encode_known_frames,
)
from mg.tiling.sizes import Tiling
from mg.weights.lora_file import merge_lora, read_lora

__all__ = ["GeneratedVideos", "TextToVideo", "seeds_of"]

logger = logging.getLogger("mg")


@dataclasses.dataclass(frozen=True)
class GeneratedVideos:
    """What prompts became.

    Attributes:
        frames: uint8 RGB (N, T, H, W, 3).
        latents: float32 (N, C, T', H', W'), as the TAE decodes them (not scaled).
        seeds: of each video.
        settings: that all of them were sampled with.
    """

    frames: np.ndarray
    latents: np.ndarray
    seeds: tuple[int, ...]
    settings: SamplingSettings


class TextToVideo:
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
        self._velocity_of = None
        self.transformer_config = parts.transformer_config
        self.dtype, self.decode_dtype = dtype, decode_dtype

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike, **options: Any) -> "TextToVideo":
        """Return the generator of a folder that `save_generator` wrote.

        Args:
            folder: with model_index.json.
            options: dtype, decode_dtype and tiling, as in the constructor.

        Raises:
            FileNotFoundError, ValueError: as `load_generator`.
        """
        return cls(load_generator(folder), **options)

    def load_lora(self, path: str | os.PathLike, *, weight: float = 1.0) -> None:
        """Merge a LoRA into the transformer; a second one is added to the first.

        Args:
            path: a .safetensors file under diffusers' names (`mg.weights.lora_file`).
            weight: how much of it; 1 is what was trained, and -1 takes it away again.

        Raises:
            FileNotFoundError, ValueError: no such file, or one of another network.
        """
        merged = merge_lora(self.transformer.tensors(), read_lora(path), weight=weight)
        self.transformer.load_tensors(merged)
        self.sha256 |= lora_record(path, weight)

    def __call__(
        self,
        prompts: str | Sequence[str],
        *,
        source: np.ndarray | str | os.PathLike | None = None,
        first_frame: np.ndarray | str | os.PathLike | None = None,
        prefix: np.ndarray | str | os.PathLike | None = None,
        suffix: np.ndarray | str | os.PathLike | None = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        fps: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int | Sequence[int] = 0,
        negative_prompt: str = "",
        schedule: str = "linear_quadratic",
        num_reference_steps: int = 250,
        solver: str = "euler",
        two_passes: bool = False,
        guidance_drops: str = "text",
        strength: float = 1.0,
        batch_size: int = 1,
        truncate: bool = False,
    ) -> GeneratedVideos:
        """Return a video of each prompt; the first axis is there for a single prompt too.

        What is None is the generator's default; the other settings are those of
        `SamplingSettings`.

        Args:
            prompts: one or several; the empty prompt gives a video of anything.
            source: the video to be edited, uint8 (T, H, W, 3) or a path: for a generator that was
                trained with one, or with a `strength` below 1 for any.
            first_frame, prefix, suffix: what the video begins or ends with, as `VisualInputs`, for
                a generator that was trained so.
            seed: one for each video; or one number, which the first video gets, and each further
                one a number more.
            batch_size: videos sampled together. They are decoded one by one.
            truncate: cut prompts that are too long for a text encoder, instead of refusing them.

        Raises:
            ValueError: a setting or prompt that does not fit, before anything is computed; a
                result that is no number.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        settings = SamplingSettings.of(
            self.defaults,
            num_frames=num_frames,
            height=height,
            width=width,
            fps=fps,
            steps=steps,
            guidance=guidance,
            negative_prompt=negative_prompt,
            schedule=schedule,
            num_reference_steps=num_reference_steps,
            solver=solver,
            two_passes=two_passes,
            guidance_drops=guidance_drops,
            strength=strength,
        )
        given = VisualInputs(source, first_frame, prefix, suffix)
        seeds = seeds_of(seed, len(prompts))
        latents = self.latents(
            prompts,
            seeds,
            settings=settings,
            inputs=[given] * len(prompts),
            batch_size=batch_size,
            truncate=truncate,
        )
        latents = np.stack(list(latents))
        frames = np.stack([self.decode(latent, settings.num_frames) for latent in latents])
        return GeneratedVideos(frames, latents, seeds, settings)

    def latents(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        settings: SamplingSettings,
        inputs: Sequence[VisualInputs] | None = None,
        batch_size: int = 1,
        truncate: bool = False,
        on_step: Callable[[int], None] | None = None,
    ) -> Iterator[np.ndarray]:
        """Return an iterator over the latent of each prompt, float32 (C, T', H', W'), not scaled.

        Checks are made at once, batches are computed when the first latent of each is asked for.
        What is new to the generator (words, sizes, lengths) gets a warning.

        Args:
            prompts: one per video.
            seeds: one per video, each from 0 to 2^64 - 1.
            settings: of all of them.
            inputs: videos and images that each is made from, if any.
            batch_size: videos sampled together.
            truncate: cut prompts that are too long, instead of refusing them.
            on_step: called after each step of the sampler with how many are done of this batch.

        Raises:
            ValueError: as `check_request`; or the transformer gave what is no number.
        """
        inputs = [NO_INPUTS] * len(prompts) if inputs is None else list(inputs)
        shape = check_request(self, prompts, settings, inputs=inputs, truncate=truncate)
        inputs = [given.fitted(settings) for given in inputs]
        for given in inputs:
            check_known_frames(given, self.autoencoder.spec, settings.num_frames)
        if departures := departures_of(self, prompts, settings):
            logger.warning("%s", departures)
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}; expected 1 or more")
        if len(seeds) != len(prompts):
            raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts; expected one each")
        initial_noise((1,), seeds)  # refuses a seed out of range
        # Batches of one size, as even as can be: the network is compiled for each size.
        num_batches = -(-len(prompts) // batch_size)
        batch_size = -(-len(prompts) // num_batches)
        return self._sampled(prompts, seeds, settings, inputs, shape, batch_size, truncate, on_step)

    def _sampled(self, prompts, seeds, settings, inputs, shape, batch_size, truncate, on_step):
        for start in range(0, len(prompts), batch_size):
            # The last batch is filled up with its last video, which is thrown away.
            chosen = [min(start + i, len(prompts) - 1) for i in range(batch_size)]
            visual = [self._encoded(inputs[i], settings) for i in chosen]
            texts = [prompts[i] for i in chosen]
            others = None
            if settings.guidance != 1:
                negative = [settings.negative_prompt] * batch_size
                without = [_without(given, settings.dropped) for given in visual]
                text = negative if "text" in settings.dropped else texts
                others = self._conditions(text, without, settings, shape, truncate)
            velocity = guided_velocity(
                self._velocity_network(),
                self._conditions(texts, visual, settings, shape, truncate),
                others,
                scale=settings.guidance,
                one_batch=not settings.two_passes,
            )
            first = initial_noise(shape, [seeds[i] for i in chosen])
            if settings.strength < 1:
                sources = np.stack([given["source"] for given in visual])
                begin = np.full(batch_size, settings.times()[0], np.float32)
                first = noisy_latent(sources, first, begin)
            label = f"video {start + 1}"
            latents = self._integrated(velocity, first, settings, label=label, on_step=on_step)
            for latent in latents[: len(set(chosen))]:
                yield self.autoencoder.spec.unscale(latent)

    def _velocity_network(self):
        """Return the transformer as one that gives the velocity, built once."""
        if self._velocity_of is None or self._velocity_of[0] is not self.transformer:
            converted = velocity_network(self.transformer, self.family.prediction)
            self._velocity_of = self.transformer, converted
        return self._velocity_of[1]

    def _encoded(self, inputs, settings):
        """Return the latents of what a video is made from: its source, its known frames."""
        encoded = {}
        if inputs.source is not None:
            encoded["source"] = encode_clip(self.autoencoder, inputs.source)
        known = encode_known_frames(self.autoencoder, inputs, settings.num_frames)
        return encoded if known is None else {**encoded, "frames": known}

    def _integrated(self, velocity, first, settings, *, label, on_step):
        """Return the latents (B, C, T', H', W') that the first ones are carried to, with a bar."""

        def tell(num_done, _):
            bar.update()
            if on_step is not None:
                on_step(num_done)

        times = settings.times()
        num_steps = len(times) - 1
        with tqdm(total=num_steps, desc=label, unit="step", disable=None, leave=False) as bar:
            latents = sample(
                velocity,
                Tensor(first),
                times,
                solver=settings.solver,
                on_step=tell,
            ).asnumpy()
        check_finite(latents, "transformer")
        return latents

    def _conditions(self, prompts, visual, settings, shape, truncate):
        """Return the tensors that the transformer takes besides latent and time."""
        texts = texts_of(prompts, settings, fps_prefix=self.defaults.fps_prefix)
        arrays = []
        for encoder in self.text_encoders:
            arrays += TextCondition(encoder, truncate=truncate).batch(texts, shape)
        return [Tensor(array) for array in (*arrays, *self.conditions.batch(visual, shape))]

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """Return the latent of frames as `decode` takes it, float32 (C, T', H', W'), not scaled.

        Args:
            frames: uint8 RGB (T, H, W, 3).
        """
        return self.autoencoder.spec.unscale(encode_clip(self.autoencoder, frames))

    def decode(self, latent: np.ndarray, num_frames: int) -> np.ndarray:
        """Return the frames of a latent, uint8 RGB (T, H, W, 3), decoded tile by tile.

        Args:
            latent: float32 (C, T', H', W'), not scaled.
            num_frames: T.

        Raises:
            ValueError: the decoder gave what is no number.
        """
        pieces = decode_latents(self.autoencoder, [latent], num_frames, num_latents=latent.shape[1])
        return np.concatenate([from_model_range(piece) for piece in pieces])


def _without(given: dict[str, Any], dropped: Sequence[str]) -> dict[str, Any]:
    """Return what there is of the visual conditions, without those that are dropped."""
    return {name: value for name, value in given.items() if name not in dropped}


def seeds_of(seed: int | Sequence[int], num_videos: int) -> tuple[int, ...]:
    """Return one seed per video: those given, or `seed`, `seed + 1`, ...

    Raises:
        ValueError: another number of seeds than of videos.
    """
    if isinstance(seed, int | np.integer):
        return tuple(int(seed) + i for i in range(num_videos))
    if len(seed) != num_videos:
        raise ValueError(f"{len(seed)} seeds for {num_videos} videos; expected one each, or one")
    return tuple(seed)
