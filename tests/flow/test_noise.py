"""Noise: the same for the same key, unrelated for others."""

import numpy as np
import pytest

from mg.flow.noise import initial_noise, keyed_noise

SHAPE = (4, 3, 16, 16)


def test_a_seed_gives_its_video_the_same_noise_in_every_batch():
    together = initial_noise(SHAPE, [7, 8, 2**64 - 1])
    assert together.dtype == np.float32 and together.shape == (3, *SHAPE)
    for place, seed in enumerate([7, 8, 2**64 - 1]):
        assert np.array_equal(initial_noise(SHAPE, [seed])[0], together[place])


def test_initial_noise_stays_what_it_was():
    # A seed that users wrote down must give the same video with every release.
    values = initial_noise((4,), [0, 1])
    expected = [
        [-1.431463, 1.670717, -0.402724, -1.295642],
        [0.186612, -0.055415, -0.373756, -1.431011],
    ]
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-6)


def test_noise_is_standard_normal_and_neighbours_are_unrelated():
    noise = initial_noise(SHAPE, [0, 1]).reshape(2, -1)
    tolerance = 4 / np.sqrt(noise.shape[1])  # four standard errors
    assert np.all(np.abs(noise.mean(axis=1)) < tolerance)
    assert np.all(np.abs(noise.std(axis=1) - 1) < tolerance)
    assert abs(np.mean(noise[0] * noise[1])) < tolerance


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, True, "1"])
def test_a_seed_that_cannot_be_is_refused(seed):
    with pytest.raises(ValueError, match="expected a whole number from 0 to 2\\^64 - 1"):
        initial_noise((2,), [seed])


def test_no_seeds_are_refused():
    with pytest.raises(ValueError, match="no seeds"):
        initial_noise((2,), [])


def test_ranks_draw_the_parts_of_what_one_rank_draws():
    together = keyed_noise(SHAPE, 4, kind="path", seed=1, step=5)
    parts = [keyed_noise(SHAPE, 2, kind="path", seed=1, step=5, first_place=i) for i in (0, 2)]
    assert together.dtype == np.float32
    assert np.array_equal(together, np.concatenate(parts))


def test_kinds_seeds_and_steps_are_unrelated():
    keys = [("path", 1, 5), ("posterior", 1, 5), ("validation", 1, 5), ("path", 2, 5)]
    keys.append(("path", 1, 6))
    noise = np.stack([keyed_noise(SHAPE, 1, kind=k, seed=s, step=n).ravel() for k, s, n in keys])
    correlation = np.corrcoef(noise) - np.eye(len(keys))
    assert np.abs(correlation).max() < 4.5 / np.sqrt(noise.shape[1])


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="noise for 'time'; expected one of path, posterior"):
        keyed_noise(SHAPE, 1, kind="time", seed=0, step=0)
