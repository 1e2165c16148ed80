"""The times, or steps, that a training batch is noised to, and the fixed ones of a validation."""

from statistics import NormalDist

import numpy as np

__all__ = ["draw_steps", "draw_times", "step_grid", "time_grid"]

# Keep these random numbers apart from all others of the same seed (`NOISE_KINDS` has 11 to 13).
TIMES_STREAM, STEPS_STREAM = 10, 14


def draw_times(
    num_times: int,
    *,
    seed: int,
    step: int,
    first_place: int = 0,
    mean: float = 0.0,
    std: float = 1.0,
) -> np.ndarray:
    """Return t of each clip of a batch, float32 (num_times,) in (0, 1), logit-normal.

    t = sigmoid(mean + std n) with n standard normal is continuous, as in the paper. It is keyed by
    (seed, step, place of the clip among those of all ranks), so that it does not depend on how
    many ranks share the batch, and a resumed run needs no stored state.
    Source: Movie Gen 3.1.2; "Scaling Rectified Flow Transformers" (arXiv 2403.03206), 3.1.

    Args:
        num_times: clips in the batch.
        seed: of the run.
        step: number of the batch in the run.
        first_place: place of the first clip of this rank.
        mean, std: of logit(t); the paper has 0 and 1.

    Raises:
        ValueError: `std` is not above 0.
    """
    if not std > 0:
        raise ValueError(f"std={std} of the logit-normal times; expected more than 0")
    normal = [
        np.random.default_rng((TIMES_STREAM, seed, step, place)).standard_normal()
        for place in range(first_place, first_place + num_times)
    ]
    return _sigmoid(mean + std * np.asarray(normal)).astype(np.float32)


def time_grid(num_times: int, *, mean: float = 0.0, std: float = 1.0) -> np.ndarray:
    """Return fixed times of a validation, float32 (num_times,), rising in (0, 1).

    They are the medians of `num_times` parts of equal probability of the distribution that
    training draws from, so the plain mean over them estimates the training loss itself.

    Raises:
        ValueError: `num_times` is below 1, or `std` is not above 0.
    """
    if num_times < 1:
        raise ValueError(f"num_times={num_times}; expected 1 or more")
    if not std > 0:
        raise ValueError(f"std={std} of the logit-normal times; expected more than 0")
    quantiles = [NormalDist().inv_cdf((i + 0.5) / num_times) for i in range(num_times)]
    return _sigmoid(mean + std * np.asarray(quantiles)).astype(np.float32)


def draw_steps(
    num_times: int, num_steps: int, *, seed: int, step: int, first_place: int = 0
) -> np.ndarray:
    """Return the step of a diffusion of each clip of a batch, float32 (num_times,), whole.

    All steps from 0 to num_steps - 1 are equally likely; keyed as `draw_times`.

    Args:
        num_times: clips in the batch.
        num_steps: of the diffusion.
        seed, step, first_place: as of `draw_times`.
    """
    places = range(first_place, first_place + num_times)
    generators = [np.random.default_rng((STEPS_STREAM, seed, step, place)) for place in places]
    return np.asarray([rng.integers(num_steps) for rng in generators], np.float32)


def step_grid(num_times: int, num_steps: int) -> np.ndarray:
    """Return fixed steps of a validation, float32 (num_times,): the middles of as many equal parts.

    Raises:
        ValueError: `num_times` is below 1, or there are not as many steps.
    """
    if not 1 <= num_times <= num_steps:
        raise ValueError(f"num_times={num_times}; expected 1 to {num_steps}, one step each")
    return np.floor((np.arange(num_times) + 0.5) * num_steps / num_times).astype(np.float32)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))
