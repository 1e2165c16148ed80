"""Times of training and validation."""

import numpy as np
import pytest

from mg.flow.times import draw_times, time_grid


def logit(t):
    t = t.astype(np.float64)
    return np.log(t / (1 - t))


def test_logits_of_the_times_are_standard_normal():
    normal = logit(draw_times(4000, seed=0, step=0))
    assert abs(normal.mean()) < 4 / np.sqrt(4000)  # four standard errors
    assert abs(normal.std() - 1) < 4 / np.sqrt(2 * 4000)
    assert abs(np.mean(normal < 1) - 0.8413) < 4 * np.sqrt(0.8413 * 0.1587 / 4000)


def test_times_are_float32_and_not_rounded_to_a_thousand_levels():
    times = draw_times(200, seed=0, step=0)
    assert times.dtype == np.float32 and times.shape == (200,)
    assert times.min() > 0 and times.max() < 1
    assert np.mean(np.abs(times * 1000 - np.round(times * 1000)) > 0.01) > 0.9


def test_mean_and_standard_deviation_are_those_of_the_logit():
    plain, moved = (
        draw_times(50, seed=1, step=2, **more) for more in ({}, {"mean": 0.5, "std": 2})
    )
    np.testing.assert_allclose(logit(moved), 0.5 + 2 * logit(plain), atol=1e-4)


def test_ranks_draw_the_parts_of_what_one_rank_draws():
    together = draw_times(6, seed=3, step=7)
    parts = [draw_times(3, seed=3, step=7, first_place=first) for first in (0, 3)]
    assert np.array_equal(together, np.concatenate(parts))


@pytest.mark.parametrize("other", [{"seed": 4, "step": 7}, {"seed": 3, "step": 8}])
def test_another_seed_or_step_draws_other_times(other):
    assert not np.intersect1d(draw_times(20, seed=3, step=7), draw_times(20, **other)).size


@pytest.fixture(scope="module")
def many():
    return np.sort(draw_times(20000, seed=0, step=0))


@pytest.mark.parametrize("num_times", [1, 2, 8, 9])
def test_the_grid_is_the_medians_of_equally_probable_parts(many, num_times):
    grid = time_grid(num_times)
    assert grid.dtype == np.float32 and grid.shape == (num_times,)
    positions = np.searchsorted(many, grid) / len(many)
    np.testing.assert_allclose(positions, (np.arange(num_times) + 0.5) / num_times, atol=0.015)
    np.testing.assert_allclose(grid, 1 - grid[::-1], atol=1e-7)  # symmetric about 1/2


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match=r"std=0 .* expected more than 0"):
        draw_times(1, seed=0, step=0, std=0)
    with pytest.raises(ValueError, match=r"std=nan .* expected more than 0"):
        time_grid(4, std=float("nan"))
    with pytest.raises(ValueError, match="num_times=0; expected 1 or more"):
        time_grid(0)
