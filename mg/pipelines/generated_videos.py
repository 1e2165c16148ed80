"""What a generator's call gives back."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mg.pipelines.sampling_settings import SamplingSettings

__all__ = ["GeneratedVideos", "seeds_of"]


@dataclasses.dataclass(frozen=True)
class GeneratedVideos:
    """What prompts became.

    Attributes:
        frames: uint8 RGB (N, T, H, W, 3); the same as float32 in [0, 1] with output_type="np";
            with "latent" nothing is decoded and these are the latents, scaled, in the axes that
            the argument `latents` has.
        latents: float32 (N, C, T', H', W'), as the TAE decodes them (not scaled).
        seeds: of each video; none where a `generator` drew the noise.
        settings: that all of them were sampled with.
    """

    frames: np.ndarray
    latents: np.ndarray
    seeds: tuple[int, ...]
    settings: SamplingSettings


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
