"""Random numbers of one call of a generator: what videos begin with, and what steps add."""

from collections.abc import Callable, Sequence

import numpy as np

from mg.flow.noise import initial_noise, step_noise

__all__ = ["SamplingNoise"]


class SamplingNoise:
    """The noise of each video.

    Args:
        seeds: one per video, each from 0 to 2^64 - 1.
        generators: draw in place of the seeds, one per video, or one for all, in their order.
        first: what the videos begin with, float32 (N, C, T', H', W'); None draws it.

    Raises:
        ValueError: a seed out of range, or a number of generators that fits no videos.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        *,
        generators: np.random.Generator | Sequence[np.random.Generator] | None = None,
        first: np.ndarray | None = None,
    ) -> None:
        if seeds:
            initial_noise((1,), seeds)  # refuses a seed out of range
        self._seeds, self._first = list(seeds), first
        self._generators = None
        if generators is not None:
            is_one = isinstance(generators, np.random.Generator)
            drawing = [generators] * len(seeds) if is_one else generators
            _check_generators(drawing, len(seeds))
            self._generators = list(drawing)

    def check(self, shape: Sequence[int]) -> None:
        """Raise ValueError unless what the videos begin with, if given, has latents' shape."""
        expected = (len(self._seeds), *shape)
        if self._first is not None and self._first.shape != expected:
            raise ValueError(
                f"latents have the shape {self._first.shape} as (videos, channels, frames, height, "
                f"width); expected {expected}"
            )

    def first(self, shape: Sequence[int], chosen: Sequence[int]) -> np.ndarray:
        """Return what some videos begin with, float32 (len(chosen), C, T', H', W').

        Args:
            shape: of one latent, (C, T', H', W').
            chosen: numbers of the videos.
        """
        if self._first is None and self._generators is not None:
            self._first = np.stack([_drawn(g, shape) for g in self._generators])
        if self._first is not None:
            return self._first[list(chosen)].astype(np.float32, copy=False)
        return initial_noise(shape, [self._seeds[i] for i in chosen])

    def further(self, shape: Sequence[int], chosen: Sequence[int]) -> Callable[[], np.ndarray]:
        """Return a function that draws more noise for some videos at each call.

        Arguments as of `first`. With seeds a video's noise depends on its own seed alone.
        """
        if self._generators is None:
            streams = [step_noise(self._seeds[i]) for i in chosen]
        else:
            streams = [self._generators[i] for i in chosen]
        return lambda: np.stack([_drawn(stream, shape) for stream in streams])


def _drawn(generator: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    return generator.standard_normal(tuple(shape), np.float32)


def _check_generators(generators: Sequence[np.random.Generator], num_videos: int) -> None:
    is_list = isinstance(generators, list | tuple)
    if not is_list or not all(isinstance(g, np.random.Generator) for g in generators):
        raise ValueError("generator: expected numpy.random.default_rng(...), one or one per video")
    if len(generators) != num_videos:
        raise ValueError(f"{len(generators)} generators for {num_videos} videos; expected one each")
