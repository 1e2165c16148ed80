"""Random numbers of training and sampling, keyed so that no batch size or rank changes them."""

from collections.abc import Sequence

import numpy as np

__all__ = ["NOISE_KINDS", "initial_noise", "keyed_noise", "step_noise"]

# Keep random numbers of the same seed apart that are meant for different ends.
NOISE_KINDS = {"path": 11, "posterior": 12, "validation": 13}
SAMPLING_KEY, STEP_KEY = 1, 2  # second word of Philox's key


def initial_noise(shape: Sequence[int], seeds: Sequence[int]) -> np.ndarray:
    """Return x_0 that videos are sampled from, float32 (len(seeds), *shape), standard normal.

    A video's noise depends on its own seed alone, so it comes out the same in every batch.

    Args:
        shape: of one latent, (C, T, H, W).
        seeds: one per video, each from 0 to 2^64 - 1.

    Raises:
        ValueError: no seed, or one out of range.
    """
    if len(seeds) == 0:
        raise ValueError("no seeds: expected one for each video")
    for seed in seeds:
        is_whole = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
        if not is_whole or not 0 <= seed < 2**64:
            raise ValueError(f"seed {seed!r}; expected a whole number from 0 to 2^64 - 1")
    generators = [_keyed(seed, SAMPLING_KEY) for seed in seeds]
    return np.stack([rng.standard_normal(tuple(shape), np.float32) for rng in generators])


def step_noise(seed: int) -> np.random.Generator:
    """Return what draws the noise that the steps of a scheduler add to one video.

    Args:
        seed: of the video, from 0 to 2^64 - 1.
    """
    return _keyed(seed, STEP_KEY)


def _keyed(seed: int, purpose: int) -> np.random.Generator:
    # Philox is keyed, not stepped: neighbouring seeds give unrelated noise.
    return np.random.Generator(np.random.Philox(key=np.array([seed, purpose], np.uint64)))


def keyed_noise(
    shape: Sequence[int], num_clips: int, *, kind: str, seed: int, step: int, first_place: int = 0
) -> np.ndarray:
    """Return standard normal noise for a batch of training, float32 (num_clips, *shape).

    It is keyed by (kind, seed, step, place of the clip among those of all ranks).

    Args:
        shape: of one latent, (C, T, H, W).
        num_clips: clips of this rank.
        kind: what it is for: "path" (x_0), "posterior" (drawing latents), "validation".
        seed: of the run.
        step: number of the batch in the run.
        first_place: place of the first clip of this rank.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in NOISE_KINDS:
        raise ValueError(f"noise for {kind!r}; expected one of {', '.join(NOISE_KINDS)}")
    places = range(first_place, first_place + num_clips)
    generators = [np.random.default_rng((NOISE_KINDS[kind], seed, step, place)) for place in places]
    return np.stack([rng.standard_normal(tuple(shape), np.float32) for rng in generators])
