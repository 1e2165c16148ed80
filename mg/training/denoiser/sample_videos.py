"""Videos of some prompts, generated while the network trains: what it has learned, to look at."""

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mg.conditions.text.encoder import TextEmbedding, TextEncoder
from mg.conditions.text.sources import TextSource
from mg.data.image_writer import write_png
from mg.data.video_writer import write_video
from mg.models.denoiser import Denoiser
from mg.pipelines.generator_parts import GeneratorParts
from mg.pipelines.sampling_checks import check_request
from mg.pipelines.sampling_settings import SamplingSettings
from mg.pipelines.text_to_video import TextToVideo, seeds_of
from mg.training.denoiser.denoiser_config import SampleVideoSettings

__all__ = ["EncoderOfSource", "SampleVideos", "check_samples", "grid"]

logger = logging.getLogger("mg")

MAX_IN_ROW = 4  # videos side by side; more become a square


class EncoderOfSource:
    """What a generator needs of a text encoder, from where training has its embeddings.

    So that with cached embeddings no large text encoder is loaded for the samples.

    Args:
        encoder: of the text.
        source: of its embeddings.
    """

    def __init__(self, encoder: TextEncoder, source: TextSource) -> None:
        self.name, self.max_tokens, self.room = encoder.name, encoder.max_tokens, encoder.room
        self.is_too_long = encoder.is_too_long
        self.check_lengths = source.check
        self._source = source

    def encode(self, texts: Sequence[str], *, truncate: bool = False) -> TextEmbedding:
        """Return the embeddings of texts; the source decides what is truncated."""
        return TextEmbedding(*self._source.embed(texts))


def check_samples(
    parts: GeneratorParts, samples: SampleVideoSettings, *, truncate: bool
) -> SamplingSettings:
    """Return how the videos are sampled if the generator can make them.

    Args:
        parts: of the generator; its tensors are not looked at.
        samples: the prompts and what is set for them.
        truncate: only warn of prompts that are too long.

    Raises:
        FileNotFoundError: a prompt has no embedding in the cache.
        ValueError: a prompt is too long, or a setting does not fit.
    """
    try:
        settings = SamplingSettings.of(
            parts.defaults, steps=samples.steps, guidance=samples.guidance
        )
        check_request(parts, samples.prompts, settings, truncate=truncate)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"samples: {error}") from error
    return settings


class SampleVideos:
    """Generates the same prompts from the same seeds again and again, as mg generate does.

    The networks are there once: each graph is compiled at the first call and used again.

    Args:
        transformer: the network that trains.
        parts: of the generator that it is a part of; the transformer's tensors are not needed.
        samples: the prompts and their seed.
        settings: from `check_samples`.
    """

    def __init__(
        self,
        transformer: Denoiser,
        parts: GeneratorParts,
        samples: SampleVideoSettings,
        settings: SamplingSettings,
    ) -> None:
        self.generator = TextToVideo(parts, transformer=transformer)
        self.prompts = samples.prompts
        self.seeds = seeds_of(samples.seed, len(samples.prompts))
        self.settings = settings

    def frames(self, *, should_stop: Callable[[], bool] = lambda: False) -> np.ndarray | None:
        """Return the videos as one, side by side, uint8 (T, rows H, columns W, 3).

        None if `should_stop` became true or the weights gave what is not a number: a run does
        not end for its samples.

        Args:
            should_stop: asked before each video.
        """
        clips = []
        latents = self.generator.latents(self.prompts, self.seeds, settings=self.settings)
        try:
            for _ in self.prompts:
                if should_stop():
                    return None
                clips.append(self.generator.decode(next(latents), self.settings.num_frames))
        except ValueError as error:
            logger.warning("No sample: %s", error)
            return None
        return grid(clips)

    def write(self, path: Path, frames: np.ndarray) -> Path:
        """Write what `frames` returned; return the file's path.

        Args:
            path: without suffix; it gets .mp4, or .png for a single frame.
            frames: uint8 (T, H, W, 3).
        """
        if len(frames) == 1:
            path = path.with_suffix(".png")
            write_png(path, frames[0], overwrite=True)
        else:
            path = path.with_suffix(".mp4")
            write_video(path, frames, fps=self.settings.fps, overwrite=True)
        return path


def grid(clips: Sequence[np.ndarray]) -> np.ndarray:
    """Return clips of one size as one, uint8 (T, rows H, columns W, 3), row by row.

    Up to four stand side by side; what is left free in the last row is black.

    Args:
        clips: uint8 (T, H, W, 3) each.
    """
    num_columns = len(clips) if len(clips) <= MAX_IN_ROW else math.ceil(math.sqrt(len(clips)))
    num_rows = math.ceil(len(clips) / num_columns)
    num_free = num_rows * num_columns - len(clips)
    cells = np.stack([*clips, *[np.zeros_like(clips[0])] * num_free])  # (N, T, H, W, 3)
    num_frames, height, width = cells.shape[1:4]
    cells = cells.reshape(num_rows, num_columns, num_frames, height, width, 3)
    rows = cells.transpose(2, 0, 3, 1, 4, 5)  # (T, rows, H, columns, W, 3)
    return rows.reshape(num_frames, num_rows * height, num_columns * width, 3)
