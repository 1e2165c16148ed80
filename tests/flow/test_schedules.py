"""Schedules: the properties that make them what they are called."""

import numpy as np
import pytest

from mg.flow.schedules import linear_quadratic_schedule, linear_schedule, remaining_schedule

NUMBERS = [(1, 250), (2, 250), (3, 250), (4, 5), (49, 250), (50, 250), (50, 1000), (250, 251)]


def test_linear_times_are_equally_spaced():
    times = linear_schedule(50)
    assert len(times) == 51
    assert times[0] == 0 and times[-1] == 1
    np.testing.assert_allclose(np.diff(times), 0.02, atol=1e-15)


@pytest.mark.parametrize(("num_steps", "num_reference_steps"), NUMBERS)
def test_linear_quadratic_times_rise_from_exactly_0_to_exactly_1(num_steps, num_reference_steps):
    times = linear_quadratic_schedule(num_steps, num_reference_steps=num_reference_steps)
    assert len(times) == num_steps + 1
    assert times[0] == 0 and times[-1] == 1
    assert np.all(np.diff(times) > 0)
    assert np.all(np.diff(times.astype(np.float32)) > 0)  # what the network is given


@pytest.mark.parametrize(("num_steps", "num_reference_steps"), NUMBERS)
def test_first_half_is_the_start_of_the_reference_and_the_rest_a_parabola(
    num_steps, num_reference_steps
):
    times = linear_quadratic_schedule(num_steps, num_reference_steps=num_reference_steps)
    half = num_steps // 2
    reference = linear_schedule(num_reference_steps)
    np.testing.assert_allclose(times[: half + 1], reference[: half + 1], atol=1e-15)
    rest = np.diff(times[half:])
    np.testing.assert_allclose(np.diff(rest, 2), 0, atol=1e-13)  # third differences vanish
    assert np.all(np.diff(rest) > 0)  # each step is longer than the one before
    assert rest[0] > 1 / num_reference_steps or num_steps == 1


@pytest.mark.parametrize("num_steps", [1, 2, 7, 50, 251])
def test_as_many_steps_as_the_reference_are_linear(num_steps):
    times = linear_quadratic_schedule(num_steps, num_reference_steps=num_steps)
    np.testing.assert_allclose(times, linear_schedule(num_steps), rtol=0, atol=1e-14)


def test_the_papers_50_steps_of_250_by_hand():
    times = linear_quadratic_schedule(50)
    assert times[25] == pytest.approx(0.1, abs=1e-15)
    assert times[26] == pytest.approx(0.1 + 0.004 + 0.8 / 625, abs=1e-15)
    assert times[49] == pytest.approx(0.1 + 0.004 * 24 + 0.8 * 576 / 625, abs=1e-15)


@pytest.mark.parametrize("number", [0, -5, 2.0, True])
def test_a_number_of_steps_that_cannot_be_is_refused(number):
    with pytest.raises(ValueError, match=f"num_steps={number}; expected a whole number of 1"):
        linear_schedule(number)
    with pytest.raises(ValueError, match=f"num_steps={number}; expected a whole number of 1"):
        linear_quadratic_schedule(number)
    with pytest.raises(ValueError, match=f"num_reference_steps={number}; expected a whole"):
        linear_quadratic_schedule(1, num_reference_steps=number)


def test_more_steps_than_the_reference_are_refused():
    with pytest.raises(ValueError, match="num_steps=300 is more than num_reference_steps=250"):
        linear_quadratic_schedule(300)


@pytest.mark.parametrize("strength", [0.05, 0.6, 0.9, 1.0])
def test_the_remaining_schedule_begins_where_the_source_is_noised_to(strength):
    whole = linear_schedule(10)
    times = remaining_schedule(whole, strength)
    assert times[0] == pytest.approx(1 - strength) and times[-1] == 1
    assert len(times) == 1 + np.ceil(10 * strength)  # no step of rounding's size
    np.testing.assert_array_equal(times[1:], whole[-len(times) + 1 :])


@pytest.mark.parametrize("strength", [0, -0.1, 1.1, float("nan")])
def test_a_strength_out_of_range_is_refused(strength):
    with pytest.raises(ValueError, match="expected more than 0 and at most 1"):
        remaining_schedule(linear_schedule(10), strength)
