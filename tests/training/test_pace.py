"""How long a run still takes: compiling is left out, the end by the clock counts."""

import math
import time
from types import SimpleNamespace

import pytest

from mg import progress
from mg.progress import counting_seconds, duration_text
from mg.training.run.pace import Pace


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


@pytest.mark.parametrize("has_terminal", [True, False])
def test_what_takes_long_shows_that_it_is_at_work(has_terminal, monkeypatch, caplog):
    caplog.set_level("INFO", logger="mg")
    monkeypatch.setattr(progress, "SHOWN_SECONDS" if has_terminal else "LOGGED_SECONDS", 0.01)
    shown = []
    bar = SimpleNamespace(disable=not has_terminal, set_postfix_str=shown.append)
    with counting_seconds("compiling", bar):
        deadline = time.monotonic() + 60
        while not shown and not caplog.messages and time.monotonic() < deadline:
            time.sleep(0.01)
    if has_terminal:
        assert shown[0] == "compiling, 0 s" and caplog.messages == []
    else:
        assert caplog.messages[0] == "Still compiling after 0 s." and shown == []
