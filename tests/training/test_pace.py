"""How long a run still takes: compiling is left out, the end by the clock counts."""

import math

import pytest

from mg.training.pace import Pace, duration_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (90, "2 min"),
        (3 * 3600 + 300, "3 h 05 min"),
        (3 * 86400, "3.0 days"),
    ],
)
def test_durations_are_told_in_two_units(seconds, text):
    assert duration_text(seconds) == text


def test_the_step_that_compiles_is_left_out():
    pace = Pace()
    assert pace.compiles_next
    pace.note(187)
    assert not pace.compiles_next
    assert pace.left(100, at_most=math.inf) == "; compiling included"
    for seconds in (2, 2, 9):
        pace.note(seconds)
    assert pace.left(100, at_most=math.inf) == "; 3 min left"
    assert pace.left(100, at_most=30) == "; 30 s left"
    pace.enter_stage()
    assert pace.compiles_next and pace.left(1, at_most=1) == "; compiling included"
