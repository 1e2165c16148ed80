"""Progress where there is no terminal: plain lines with what is left; compiling is announced."""

import logging

import pytest

from mg import progress
from mg.progress import ProgressBar, with_progress


@pytest.fixture
def clock(monkeypatch):
    """Return a clock that stands still until it is set."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_line_every_ten_seconds_says_what_is_left(clock, caplog):
    caplog.set_level(logging.INFO, logger="mg")
    with ProgressBar(100, "encoding", unit="frame") as bar:
        for _ in range(100):
            clock.now += 1
            bar.update()
    assert caplog.messages[0] == "encoding: 10 of 100 frames, 2 min left"
    assert caplog.messages[-2:] == [
        "encoding: 90 of 100 frames, 10 s left",
        "encoding: 100 of 100 frames",
    ]
    assert len(caplog.messages) == 10


def test_compiling_is_announced_and_left_out_of_the_estimate(clock, caplog):
    caplog.set_level(logging.INFO, logger="mg")
    with ProgressBar(5, "reconstructing", unit="clip", compiles="the network") as bar:
        clock.now += 100
        bar.update()
        clock.now += 20
        bar.update()
    assert caplog.messages == [
        "Compiling the network, which can take minutes ...",
        "reconstructing: 1 of 5 clips",
        "reconstructing: 2 of 5 clips, 1 min left",
    ]


def test_short_work_and_no_work_are_silent(caplog):
    caplog.set_level(logging.INFO, logger="mg")
    assert list(with_progress("abc", "probing videos", unit="file")) == ["a", "b", "c"]
    with ProgressBar(0, "encoding", compiles="the encoder"):
        pass
    assert caplog.messages == []
